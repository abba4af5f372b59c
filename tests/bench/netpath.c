// SPDX-License-Identifier: GPL-2.0
/*
 * What the path between two network namespaces costs, without the scheduler's noise.
 *
 * One thread owns both ends: the client's socket is made in the client's namespace, the server's in
 * the server's (setns). On a veth a packet runs its whole way inside the sender's send(), so nothing
 * has to be woken, and the time is the way's plus that of the socket calls.
 *
 *   netpath MODE --client NETNS --server NETNS --port P --dst IP --dport P [--bind IP] [--secs S] [--cpu C]
 *
 *   MODE  rr       UDP, question and answer, one flow: rate and latency
 *         flood    UDP one way, one flow, batches of 32: packets/s that arrive
 *         newflow  UDP, question and answer, another source port each time: rate and latency
 *         connect  TCP connect(), one connection after another (the handshake alone)
 *         crr      TCP connect, accept, a byte each way, close: connections/s
 *         stream   TCP one way, one connection: bytes/s; a "time" is that of 64 KiB
 *
 * The server closes first in crr and keeps the tuple in TIME_WAIT. Ask one server by one address alone:
 * a client counts its timestamps for each address, so the SYN of another way from a port that the
 * server remembers looks like an old duplicate, and is not taken (PAWS).
 *
 * NETNS is a namespace's file. 0.0.0.0 and :: as --bind serve every address. Prints one JSON line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}
static void die(const char *m)
{
	fprintf(stderr, "netpath: %s: %s\n", m, strerror(errno));
	exit(1);
}
static void enter(const char *ns)
{
	int f = open(ns, O_RDONLY | O_CLOEXEC);

	if (f < 0 || setns(f, CLONE_NEWNET))
		die(ns);
	close(f);
}
static socklen_t addr(struct sockaddr_storage *s, const char *ip, int port)
{
	memset(s, 0, sizeof *s);
	if (strchr(ip, ':')) {
		struct sockaddr_in6 *a = (void *)s;
		a->sin6_family = AF_INET6;
		a->sin6_port = htons(port);
		if (inet_pton(AF_INET6, ip, &a->sin6_addr) != 1)
			die(ip);
		return sizeof *a;
	}
	struct sockaddr_in *a = (void *)s;
	a->sin_family = AF_INET;
	a->sin_port = htons(port);
	if (inet_pton(AF_INET, ip, &a->sin_addr) != 1)
		die(ip);
	return sizeof *a;
}
#define BINS 4000000 /* latency histogram, 10 ns bins, up to 40 ms */
static uint32_t *hist;
static uint64_t count;
static void rec(double s)
{
	long b = s * 1e8;
	if (b < 0)
		b = 0;
	if (b >= BINS)
		b = BINS - 1;
	hist[b]++;
	count++;
}
static double pct(double p)
{
	uint64_t c = 0, w = count * p;
	for (long i = 0; i < BINS; i++) {
		c += hist[i];
		if (c > w)
			return i * 10.0;
	}
	return 0;
}

/* one datagram in, one byte back from the address it was sent to */
static int echo(int s)
{
	static char b[2048], c[256];
	struct sockaddr_storage a;
	struct iovec v = { b, sizeof b };
	struct msghdr m = { &a, sizeof a, &v, 1, c, sizeof c };
	if (recvmsg(s, &m, 0) < 0)
		return -1;
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	if (h && h->cmsg_level == IPPROTO_IP)
		((struct in_pktinfo *)CMSG_DATA(h))->ipi_ifindex = 0;
	if (h && h->cmsg_level == IPPROTO_IPV6)
		((struct in6_pktinfo *)CMSG_DATA(h))->ipi6_ifindex = 0;
	v.iov_len = 1;
	m.msg_flags = 0;
	return sendmsg(s, &m, 0) == 1 ? 0 : -1;
}

int main(int argc, char **argv)
{
	const char *cns = 0, *sns = 0, *bindip = "0.0.0.0", *dst = 0;
	int port = 8080, dport = 80, cpu = 0;
	double secs = 3;
	static struct option lo[] = {
		{ "client", 1, 0, 'c' }, { "server", 1, 0, 's' }, { "bind", 1, 0, 'b' },
		{ "port", 1, 0, 'p' },	 { "dst", 1, 0, 'd' },	  { "dport", 1, 0, 'D' },
		{ "secs", 1, 0, 't' },	 { "cpu", 1, 0, 'C' },	  { 0 }
	};
	for (int o; (o = getopt_long(argc, argv, "", lo, 0)) != -1;)
		switch (o) {
		case 'c':
			cns = optarg;
			break;
		case 's':
			sns = optarg;
			break;
		case 'b':
			bindip = optarg;
			break;
		case 'p':
			port = atoi(optarg);
			break;
		case 'd':
			dst = optarg;
			break;
		case 'D':
			dport = atoi(optarg);
			break;
		case 't':
			secs = atof(optarg);
			break;
		case 'C':
			cpu = atoi(optarg);
			break;
		default:
			return 2;
		}
	if (optind >= argc || !cns || !sns || !dst) {
		fprintf(stderr, "netpath: MODE, --client, --server and --dst are required\n");
		return 2;
	}
	const char *mode = argv[optind];
	int udp = !strcmp(mode, "rr") || !strcmp(mode, "flood") || !strcmp(mode, "newflow"),
	    one = 1;
	hist = calloc(BINS, 4);
	cpu_set_t cs;
	CPU_ZERO(&cs);
	CPU_SET(cpu, &cs);
	sched_setaffinity(0, sizeof cs, &cs);
	struct sockaddr_storage sa, da;
	socklen_t sl, dl;

	enter(sns);
	sl = addr(&sa, bindip, port);
	int ls = socket(sa.ss_family, udp ? SOCK_DGRAM : SOCK_STREAM, 0);
	setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	int big = 8 << 20;
	setsockopt(ls, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big);
	if (bind(ls, (void *)&sa, sl))
		die("bind");
	if (udp &&
	    setsockopt(ls, sa.ss_family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6,
		       sa.ss_family == AF_INET ? IP_PKTINFO : IPV6_RECVPKTINFO, &one, sizeof one))
		die("pktinfo");
	if (!udp && listen(ls, 4096))
		die("listen");
	struct timeval tv = { 1, 0 };
	setsockopt(ls, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	enter(cns);
	dl = addr(&da, dst, dport);
	char buf[2048] = "x";
	uint64_t done = 0, lost = 0;
	double t0, t1, stop;

	if (!strcmp(mode, "rr") || !strcmp(mode, "flood")) {
		int cl = socket(da.ss_family, SOCK_DGRAM, 0);
		setsockopt(cl, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
		if (connect(cl, (void *)&da, dl))
			die("connect");
		if (mode[0] == 'r') {
			for (int warm = 0; warm < 2; warm++)
				for (t0 = now(), stop = t0 + (warm ? secs : 0.2), done = 0;
				     (t1 = now()) < stop; done++) {
					if (send(cl, buf, 1, 0) != 1 || echo(ls) ||
					    recv(cl, buf, sizeof buf, 0) < 0) {
						if (++lost > 3)
							die("lost");
						continue;
					}
					if (warm)
						rec(now() - t1);
				}
			printf("{\"mode\":\"rr\",\"rate\":%.0f,\"p50_ns\":%.0f,\"p99_ns\":%.0f,"
			       "\"n\":%lu}\n",
			       done / (now() - t0), pct(.5), pct(.99), done);
		} else {
			struct mmsghdr m[32];
			struct iovec v[32], rv[32];
			static char rb[32][64];
			struct mmsghdr r[32];
			for (int i = 0; i < 32; i++) {
				v[i] = (struct iovec){ buf, 18 };
				m[i] = (struct mmsghdr){ { 0, 0, &v[i], 1 } };
				rv[i] = (struct iovec){ rb[i], 64 };
				r[i] = (struct mmsghdr){ { 0, 0, &rv[i], 1 } };
			}
			for (t0 = now(), stop = t0 + secs; (t1 = now()) < stop;) {
				int n = sendmmsg(cl, m, 32, 0), g = 0;
				if (n < 1)
					die("sendmmsg");
				while (g < n) {
					int k = recvmmsg(ls, r, n - g, MSG_DONTWAIT, 0);
					if (k < 1) {
						lost += n - g;
						break;
					}
					g += k;
				}
				done += g;
			}
			printf("{\"mode\":\"flood\",\"rate\":%.0f,\"ns_per_packet\":%.1f,\"lost\":%"
			       "lu,\"n\":%lu}\n",
			       done / (now() - t0), (now() - t0) * 1e9 / done, lost, done);
		}
	} else if (!strcmp(mode, "stream")) {
		static char piece[65536], got[1 << 20];
		int c = socket(da.ss_family, SOCK_STREAM, 0);
		setsockopt(c, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
		if (connect(c, (void *)&da, dl))
			die("connect");
		int s = accept(ls, 0, 0);
		if (s < 0)
			die("accept");
		setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
		/* the window opens first */
		for (int warm = 0; warm < 2; warm++)
			for (t0 = now(), stop = t0 + (warm ? secs : 0.1), done = 0;
			     (t1 = now()) < stop; done++) {
				for (size_t sent = 0, read_ = 0; read_ < sizeof piece;) {
					ssize_t n = sent < sizeof piece ?
							    send(c, piece, sizeof piece - sent, MSG_DONTWAIT) :
							    0;
					sent += n > 0 ? n : 0;
					/* waits where nothing can be sent: acknowledgements are delayed */
					n = recv(s, got, sizeof got,
						 n > 0 || read_ < sent ? MSG_DONTWAIT : 0);
					if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK))
						die("stream");
					read_ += n > 0 ? n : 0;
					if (now() - t1 > 2)
						die("stream stands still");
				}
				if (warm)
					rec(now() - t1);
			}
		printf("{\"mode\":\"stream\",\"rate\":%.0f,\"p50_ns\":%.0f,\"p99_ns\":%.0f,\"n\":%lu}"
		       "\n",
		       done / (now() - t0), pct(.5), pct(.99), done);
	} else if (!strcmp(mode, "newflow")) {
		for (t0 = now(), stop = t0 + secs; (t1 = now()) < stop; done++) {
			int cl = socket(da.ss_family, SOCK_DGRAM, 0);
			setsockopt(cl, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
			if (connect(cl, (void *)&da, dl))
				die("connect");
			double a = now();
			if (send(cl, buf, 1, 0) != 1 || echo(ls) ||
			    recv(cl, buf, sizeof buf, 0) < 0) {
				if (++lost > 3)
					die("lost");
			}
			rec(now() - a);
			close(cl);
		}
		printf("{\"mode\":\"newflow\",\"rate\":%.0f,\"p50_ns\":%.0f,\"p99_ns\":%.0f,\"n\":%"
		       "lu}\n",
		       done / (now() - t0), pct(.5), pct(.99), done);
	} else {
		int crr = !strcmp(mode, "crr");
		struct linger rst = { 1, 0 };
		for (t0 = now(), stop = t0 + secs; (t1 = now()) < stop; done++) {
			int c = socket(da.ss_family, SOCK_STREAM, 0);
			setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
			setsockopt(c, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
			double a = now();
			if (connect(c, (void *)&da, dl))
				die("connect");
			double b = now();
			int s = accept(ls, 0, 0);
			if (s < 0)
				die("accept");
			if (crr) {
				setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
				setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
				if (send(c, buf, 1, 0) != 1 || recv(s, buf, 1, 0) != 1 ||
				    send(s, buf, 1, 0) != 1 || recv(c, buf, 1, 0) != 1)
					die("exchange");
				close(s); /* server closes first: TIME_WAIT stays on the server side */
				if (recv(c, buf, 1, 0) != 0)
					die("eof");
				close(c);
				rec(now() - a);
			} else {
				setsockopt(c, SOL_SOCKET, SO_LINGER, &rst, sizeof rst);
				close(c);
				close(s);
				rec(b - a);
			}
		}
		printf("{\"mode\":\"%s\",\"rate\":%.0f,\"p50_ns\":%.0f,\"p99_ns\":%.0f,\"n\":%lu}"
		       "\n",
		       mode, done / (now() - t0), pct(.5), pct(.99), done);
	}
	return 0;
}
