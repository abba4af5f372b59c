/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * From bytes to a tuple. A tuple is always as on the wire at this hook; whoever needs it turned
 * says so by name. Nothing here reads a map or changes the packet.
 */
#pragma once

#include "ground/base.h"
#include "ground/layout.h"

enum packet_flag {
	PACKET_SYN = 1, /* TCP: opens a connection (SYN without ACK) */
	PACKET_FIN = 2,
	PACKET_RST = 4,
	PACKET_FIRST_FRAGMENT = 8,  /* has ports, and more fragments follow */
	PACKET_LATER_FRAGMENT = 16, /* has none */
	PACKET_ICMP_ERROR = 32,	    /* never to be answered by an ICMP error (RFC 1122, RFC 4443) */
	PACKET_ACK = 64,
	PACKET_REDIRECT = 128, /* an ICMP error that tells of another router */
};

enum parse_result {
	PARSE_OK,	    /* TCP, UDP or SCTP, ports and all */
	PARSE_OTHER,	    /* another protocol: addresses and protocol are known, ports are 0 */
	PARSE_TRUNCATED,    /* a header runs past the packet's end, or contradicts it */
	PARSE_HEADER_CHAIN, /* more or longer IPv6 extension headers than are followed */
};

/* rule: CO-26 */
#define MAX_EXTENSION_HEADERS 6
/* Mask and bound of l4_offset: the verifier wants to see that it fits. */
#define MAX_L4_OFFSET 0x3ff

/*
 * The place in a packet, as one pointer: what is compared with the packet's end must be the very pointer that
 * is used, since Linux 6.1's verifier knows nothing of another that the compiler makes of the same numbers.
 */
INLINE void *packet_at(void *data, __u32 offset)
{
	void *place = data + within(offset, MAX_L4_OFFSET);

	asm("" : "+r"(place));
	return place;
}

#define IPV4_DONT_FRAGMENT 0x4000
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_OFFSET 0x1fff

/* Bytes of the IP packet by its own account; 0: it has none, or says none (BIG TCP). */
INLINE __u32 declared_bytes(void *data, void *data_end)
{
#if FAMILY == 4
	struct iphdr *ip = data + LINK_HEADER_BYTES;

	return (void *)(ip + 1) > data_end ? 0 : ntohs16(ip->tot_len);
#else
	struct ipv6hdr *ip = data + LINK_HEADER_BYTES;

	if ((void *)(ip + 1) > data_end || !ip->payload_len)
		return 0;
	return ntohs16(ip->payload_len) + sizeof(*ip);
#endif
}

INLINE int has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

/*
 * `declared`: how much follows the IP header by its own account; a frame may be padded beyond that,
 * and padding is not a header. 0 in the IP header stands for more than 16 bits can tell (BIG TCP).
 */
#define DECLARED_BIG 0x10000

INLINE int parse_ports(void *data, void *data_end, int declared, struct packet *packet)
{
	void *transport = packet_at(data, packet->l4_offset);
	__be16 *ports = transport;

	if ((void *)(ports + 4) > data_end || declared < 8)
		return PARSE_TRUNCATED;
	packet->source_port = ports[0];
	packet->destination_port = ports[1];
	if (packet->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = transport;

		if ((void *)(tcp + 1) > data_end || declared < (int)sizeof(*tcp))
			return PARSE_TRUNCATED;
		__u8 bits = ((__u8 *)tcp)[13];

		packet->flags |= ((bits & 0x12) == 0x02 ? PACKET_SYN : 0) |
				 (bits & 0x01 ? PACKET_FIN : 0) | (bits & 0x04 ? PACKET_RST : 0) |
				 (bits & 0x10 ? PACKET_ACK : 0);
	} else if (packet->protocol == IPPROTO_SCTP) {
		/* ports, tag, checksum, and the first chunk's type: 13 bytes, chunks are 4 at least */
		__u8 *chunk = transport + 12;

		if ((void *)(chunk + 4) > data_end || declared < 16)
			return PARSE_TRUNCATED;
		/* INIT opens, ABORT and SHUTDOWN COMPLETE end an association (RFC 9260) */
		packet->flags |= (*chunk == 1 ? PACKET_SYN : 0) |
				 (*chunk == 6 || *chunk == 14 ? PACKET_RST : 0);
	}
	return PARSE_OK;
}

#if FAMILY == 4

INLINE int parse(void *data, void *data_end, struct packet *packet)
{
	struct iphdr *ip = data + LINK_HEADER_BYTES;

	packet->flags = 0;
	packet->source_port = packet->destination_port = 0;
	if ((void *)(ip + 1) > data_end || ip->version != 4 || ip->ihl < 5)
		return PARSE_TRUNCATED;
	packet->source.word[0] = ip->saddr;
	packet->destination.word[0] = ip->daddr;
	packet->protocol = ip->protocol;
	packet->fragment_id = ip->id;
	packet->l4_offset = LINK_HEADER_BYTES + ip->ihl * 4;
	if (UNLIKELY(ip->frag_off & htons16(IPV4_MORE_FRAGMENTS | IPV4_OFFSET))) {
		if (ip->frag_off & htons16(IPV4_OFFSET)) {
			packet->flags = PACKET_LATER_FRAGMENT;
			return has_ports(packet->protocol) ? PARSE_OK : PARSE_OTHER;
		}
		packet->flags = PACKET_FIRST_FRAGMENT;
	}
	if (UNLIKELY(!has_ports(packet->protocol))) {
		__u8 *type = packet_at(data, packet->l4_offset);

		if (packet->protocol != IPPROTO_ICMP)
			return PARSE_OTHER;
		if ((void *)(type + 8) > data_end)
			return PARSE_TRUNCATED;
		/* all but echo, timestamp, information and address mask are errors */
		if (*type == 3 || *type == 4 || *type == 5 || *type == 11 || *type == 12)
			packet->flags |= PACKET_ICMP_ERROR;
		if (*type == 5)
			packet->flags |= PACKET_REDIRECT;
		return PARSE_OTHER;
	}
	return parse_ports(data, data_end,
			   ip->tot_len ? ntohs16(ip->tot_len) - ip->ihl * 4 : DECLARED_BIG, packet);
}

#else

struct extension_header {
	__u8 next;
	__u8 length;
	__be16 fragment_offset; /* of a fragment header, like the next */
	__be32 fragment_id;
};

INLINE int parse(void *data, void *data_end, struct packet *packet)
{
	struct ipv6hdr *ip = data + LINK_HEADER_BYTES;
	__u32 offset = LINK_HEADER_BYTES + sizeof(*ip);

	packet->flags = 0;
	packet->source_port = packet->destination_port = 0;
	packet->fragment_id = 0;
	if ((void *)(ip + 1) > data_end || ip->version != 6)
		return PARSE_TRUNCATED;
	__builtin_memcpy(&packet->source, &ip->saddr, sizeof(addr));
	__builtin_memcpy(&packet->destination, &ip->daddr, sizeof(addr));

	__u8 next = ip->nexthdr;
	int known = 0;

#pragma unroll
	for (int i = 0; i <= MAX_EXTENSION_HEADERS && !known; i++) {
		struct extension_header *extension = packet_at(data, offset);

		if (next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS) {
			if ((void *)(extension + 1) > data_end)
				return PARSE_TRUNCATED;
			next = extension->next;
			offset += (extension->length + 1) * 8;
			if (offset > MAX_L4_OFFSET)
				return PARSE_HEADER_CHAIN;
		} else if (next == IPPROTO_FRAGMENT) {
			if ((void *)(extension + 1) > data_end)
				return PARSE_TRUNCATED;
			next = extension->next;
			offset += 8;
			packet->fragment_id = extension->fragment_id;
			if (extension->fragment_offset & htons16(0xfff8)) {
				packet->flags = PACKET_LATER_FRAGMENT;
				known = 1;
			} else if (extension->fragment_offset & htons16(1)) {
				packet->flags = PACKET_FIRST_FRAGMENT;
			}
		} else {
			known = 1;
		}
	}
	if (UNLIKELY(offset != LINK_HEADER_BYTES + sizeof(*ip)))
		offset = forget(offset, ip->payload_len) & 0xffff;
	packet->protocol = next;
	packet->l4_offset = offset;
	if (UNLIKELY(!known || offset > MAX_L4_OFFSET - sizeof(struct tcphdr)))
		return PARSE_HEADER_CHAIN;
	if (UNLIKELY(packet->flags & PACKET_LATER_FRAGMENT))
		return has_ports(next) ? PARSE_OK : PARSE_OTHER;
	if (UNLIKELY(!has_ports(next))) {
		__u8 *type = packet_at(data, offset);

		if (next != IPPROTO_ICMPV6)
			return PARSE_OTHER;
		if ((void *)(type + 8) > data_end)
			return PARSE_TRUNCATED;
		if (*type < 128 || *type == 137) /* errors and redirect */
			packet->flags |= PACKET_ICMP_ERROR;
		if (*type == 137)
			packet->flags |= PACKET_REDIRECT;
		return PARSE_OTHER;
	}
	return parse_ports(data, data_end,
			   ip->payload_len ? (int)(ntohs16(ip->payload_len) + LINK_HEADER_BYTES +
						   sizeof(*ip) - offset) :
					     DECLARED_BIG,
			   packet);
}

#endif

/* A packet that is not there, with these ends: what a flow is looked up by. */
INLINE void packet_between(struct packet *packet, const addr *source, __be16 source_port,
			   const addr *destination, __be16 destination_port, __u8 protocol)
{
	packet->source = *source;
	packet->source_port = source_port;
	packet->destination = *destination;
	packet->destination_port = destination_port;
	packet->protocol = protocol;
}

/* The answer to a packet. */
INLINE void turn_round(const struct packet *packet, struct packet *answer)
{
	packet_between(answer, &packet->destination, packet->destination_port, &packet->source,
		       packet->source_port, packet->protocol);
}

/* Of whatever kind it is: else the verifier follows each by itself through all that comes after. */
INLINE void forget_kind(struct packet *packet, __u32 now)
{
	packet->protocol = forget(packet->protocol, now);
	packet->flags = forget(packet->flags, now);
	packet->l4_offset = forget(packet->l4_offset, now);
}

/* Bytes of transport header and payload, by what the IP header says (the frame may be padded). */
INLINE __u32 transport_bytes(void *data, void *data_end, const struct packet *packet)
{
#if FAMILY == 4
	struct iphdr *ip = data + LINK_HEADER_BYTES;

	if ((void *)(ip + 1) > data_end)
		return 0;
	return ntohs16(ip->tot_len) - ip->ihl * 4;
#else
	struct ipv6hdr *ip = data + LINK_HEADER_BYTES;

	if ((void *)(ip + 1) > data_end)
		return 0;
	return ntohs16(ip->payload_len) - (packet->l4_offset - LINK_HEADER_BYTES - sizeof(*ip));
#endif
}
