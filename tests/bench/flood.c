// SPDX-License-Identifier: GPL-2.0
/*
 * Packets from clients that are made up, as many as go out, for some seconds.
 *
 *   flood KIND --dev DEV --mac GATEWAY-MAC --dst4 IP --dst6 IP --port P --secs S [--cpu C]
 *
 *   KIND  syn ack fin rst        TCP segments, each of another client
 *         udp                    datagrams that ask for the hostname, likewise
 *         fragments              UDP in two pieces; of every fourth datagram only the second
 *         icmp                   errors about answers that such clients were never given
 *
 * Families take turns, packet by packet. Clients are 198.18.0.0/15 and 2001:db8:18::/48. Sent from
 * the namespace that it is started in. Prints one JSON line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	BATCH = 64,
	MOST = 256
};
enum {
	FIN = 1,
	SYN = 2,
	RST = 4,
	ACK = 16
};

static void die(const char *m)
{
	fprintf(stderr, "flood: %s: %s\n", m, strerror(errno));
	exit(1);
}
static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}
static uint64_t state;
static uint32_t chance(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state >> 16;
}
static uint32_t sum(const void *data, size_t n)
{
	const uint8_t *p = data;
	uint32_t s = 0;
	for (size_t i = 0; i + 1 < n; i += 2)
		s += p[i] << 8 | p[i + 1];
	return n & 1 ? s + (p[n - 1] << 8) : s;
}
static uint16_t fold(uint32_t s)
{
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return htons(~s);
}
static void put16(uint8_t *at, uint16_t v)
{
	at[0] = v >> 8;
	at[1] = v;
}
static void put32(uint8_t *at, uint32_t v)
{
	put16(at, v >> 16);
	put16(at + 2, v);
}

struct ends {
	uint8_t from[16], to[16];
	size_t bytes;
};

/* An IP header before `n` bytes of payload; where the payload begins. */
static size_t header(uint8_t *p, const struct ends *e, int protocol, size_t n, uint32_t id,
		     int offset, int more)
{
	if (e->bytes == 4) {
		memset(p, 0, 20);
		p[0] = 0x45;
		put16(p + 2, 20 + n);
		put16(p + 4, id);
		put16(p + 6, offset >> 3 | more << 13);
		p[8] = 60;
		p[9] = protocol;
		memcpy(p + 12, e->from, 4);
		memcpy(p + 16, e->to, 4);
		uint16_t check = fold(sum(p, 20));
		memcpy(p + 10, &check, 2);
		return 20;
	}
	int pieces = offset || more;
	memset(p, 0, 48);
	p[0] = 0x60;
	put16(p + 4, n + 8 * pieces);
	p[6] = pieces ? 44 : protocol;
	p[7] = 60;
	memcpy(p + 8, e->from, 16);
	memcpy(p + 24, e->to, 16);
	if (!pieces)
		return 40;
	p[40] = protocol;
	put16(p + 42, offset | more);
	put32(p + 44, id);
	return 48;
}
static void check(uint8_t *at, const struct ends *e, int protocol, const uint8_t *data, size_t n)
{
	uint32_t s = sum(data, n) + protocol + n;
	s += sum(e->from, e->bytes) + sum(e->to, e->bytes);
	uint16_t c = fold(s);
	memcpy(at, &c, 2);
}

/* One packet of a client that nobody has seen; how long it is. */
static size_t make(uint8_t *p, const char *kind, struct ends *e, uint16_t port)
{
	static struct ends begun[2]; /* whose second piece is to come */
	static uint32_t id[2], count[2];
	uint8_t body[MOST] = { 0 };
	size_t n;

	if (e->bytes == 4) {
		put32(e->from, 0xc6120000 | (chance() & 0x1ffff));
	} else {
		inet_pton(AF_INET6, "2001:db8:18::", e->from);
		put32(e->from + 12, chance());
	}
	put16(body, 1024 + chance() % 60000);
	put16(body + 2, port);
	if (!strcmp(kind, "udp") || !strcmp(kind, "fragments")) {
		memcpy(body + 8, "hostname", 8);
		n = !strcmp(kind, "udp") ? 16 : 64;
		put16(body + 4, n);
		check(body + 6, e, IPPROTO_UDP, body, n);
		if (n == 16) {
			size_t at = header(p, e, IPPROTO_UDP, n, 0, 0, 0);
			memcpy(p + at, body, n);
			return at + n;
		}
		int six = e->bytes == 16, second = count[six]++ & 1;
		if (!second) {
			begun[six] = *e;
			id[six] = chance();
		} else if (!(count[six] & 6)) {
			id[six]++; /* of a datagram that nobody has begun */
		}
		size_t at = header(p, &begun[six], IPPROTO_UDP, 32, id[six], 32 * second, !second);
		memcpy(p + at, body + 32 * second, 32);
		return at + 32;
	}
	if (!strcmp(kind, "icmp")) {
		struct ends turned = { .bytes = e->bytes };
		memcpy(turned.from, e->to, 16);
		memcpy(turned.to, e->from, 16);
		int six = e->bytes == 16, big = chance() & 1;
		uint8_t error[MOST] = { 0 };
		error[0] = six ? (big ? 2 : 1) : 3;
		error[1] = six ? (big ? 0 : 4) : (big ? 4 : 3);
		if (big)
			put16(error + 6, 1280);
		size_t quoted = header(error + 8, &turned, IPPROTO_TCP, 20, 1, 0, 0);
		put16(error + 8 + quoted, port);
		put16(error + 10 + quoted, 1024 + chance() % 60000);
		n = 8 + quoted + 20;
		if (six) {
			check(error + 2, e, IPPROTO_ICMPV6, error, n);
		} else {
			uint16_t c = fold(sum(error, n));
			memcpy(error + 2, &c, 2);
		}
		size_t at = header(p, e, six ? IPPROTO_ICMPV6 : IPPROTO_ICMP, n, 1, 0, 0);
		memcpy(p + at, error, n);
		return at + n;
	}
	int flags = !strcmp(kind, "syn") ? SYN :
		    !strcmp(kind, "ack") ? ACK :
		    !strcmp(kind, "fin") ? FIN | ACK :
		    !strcmp(kind, "rst") ? RST :
					   0;
	if (!flags) {
		errno = EINVAL;
		die(kind);
	}
	put32(body + 4, chance());
	put32(body + 8, flags & ACK ? chance() : 0);
	body[12] = 5 << 4;
	body[13] = flags;
	put16(body + 14, 64000);
	check(body + 16, e, IPPROTO_TCP, body, 20);
	size_t at = header(p, e, IPPROTO_TCP, 20, 1, 0, 0);
	memcpy(p + at, body, 20);
	return at + 20;
}

int main(int argc, char **argv)
{
	const char *dev = 0, *mac = 0, *dst[2] = { 0 };
	int port = 0, cpu = -1;
	double secs = 1;
	static struct option lo[] = { { "dev", 1, 0, 'd' },  { "mac", 1, 0, 'm' },
				      { "dst4", 1, 0, '4' }, { "dst6", 1, 0, '6' },
				      { "port", 1, 0, 'p' }, { "secs", 1, 0, 's' },
				      { "cpu", 1, 0, 'c' },  { 0 } };
	for (int o; (o = getopt_long(argc, argv, "", lo, 0)) != -1;)
		switch (o) {
		case 'd':
			dev = optarg;
			break;
		case 'm':
			mac = optarg;
			break;
		case '4':
			dst[0] = optarg;
			break;
		case '6':
			dst[1] = optarg;
			break;
		case 'p':
			port = atoi(optarg);
			break;
		case 's':
			secs = atof(optarg);
			break;
		case 'c':
			cpu = atoi(optarg);
			break;
		default:
			return 2;
		}
	if (optind >= argc || !dev || !mac || !dst[0] || !dst[1]) {
		fprintf(stderr, "flood: KIND, --dev, --mac, --dst4 and --dst6 are required\n");
		return 2;
	}
	if (cpu >= 0) {
		cpu_set_t cs;
		CPU_ZERO(&cs);
		CPU_SET(cpu, &cs);
		sched_setaffinity(0, sizeof cs, &cs);
	}
	state = (uint64_t)time(0) << 20 | getpid() | 1;
	struct ends ends[2] = { { .bytes = 4 }, { .bytes = 16 } };
	if (inet_pton(AF_INET, dst[0], ends[0].to) != 1 ||
	    inet_pton(AF_INET6, dst[1], ends[1].to) != 1)
		die("an address");
	struct sockaddr_ll to[2];
	for (int i = 0; i < 2; i++) {
		to[i] = (struct sockaddr_ll){ .sll_family = AF_PACKET,
					      .sll_protocol = htons(i ? 0x86dd : 0x0800),
					      .sll_ifindex = if_nametoindex(dev),
					      .sll_halen = 6 };
		if (sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &to[i].sll_addr[0],
			   &to[i].sll_addr[1], &to[i].sll_addr[2], &to[i].sll_addr[3],
			   &to[i].sll_addr[4], &to[i].sll_addr[5]) != 6)
			die("a MAC");
	}
	int s = socket(AF_PACKET, SOCK_DGRAM, 0);
	if (s < 0 || !to[0].sll_ifindex)
		die("socket");
	static uint8_t packets[BATCH][MOST];
	struct mmsghdr m[BATCH];
	struct iovec v[BATCH];
	uint64_t sent = 0;
	double begin = now();

	while (now() < begin + secs) {
		for (int i = 0; i < BATCH; i++) {
			v[i] = (struct iovec){ packets[i],
					       make(packets[i], argv[optind], &ends[i & 1], port) };
			m[i] = (struct mmsghdr){ { &to[i & 1], sizeof to[0], &v[i], 1, 0, 0, 0 },
						 0 };
		}
		int n = sendmmsg(s, m, BATCH, 0);
		if (n < 0 && errno != ENOBUFS && errno != EAGAIN)
			die("sendmmsg");
		sent += n > 0 ? n : 0;
	}
	printf("{\"packets\": %lu, \"seconds\": %.2f}\n", sent, now() - begin);
	return 0;
}
