/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a flow's word says, what a segment makes of it, and for how long it holds.
 *
 * `word` is an entry's state and its lock; it changes by compare-and-swap only:
 *
 *   bits  0..22 time      tick of the last packet; a tick is about half a second, so it comes round
 *                         after seven weeks
 *        23     COUNTED   its backend's connections are counted, and it is one of them: see counted.h
 *        24     OF_XDP    XDP made it, and it stays out of the kernel's stack for as long as it lives, also
 *                         at TC: the kernel's connection tracking must see both halves of a connection or
 *                         none. A reply that is the first it sees is masqueraded, or invalid.
 *        25..28 state     below
 *        29..30 protocol  enum flow_protocol
 *        31     BRIDGED   backend on the client's own bridge: the way to it is in `ways`
 *        32..47 service_id
 *        48..49 kind      see flow.h
 *        50     PORTED    the client has another port (snat_port) from where its packets enter on, so
 *                         that the kernel's stack can tell it from another connection of this client
 *        51..55 generation, one more at each claim, so that a reader notices a change of tenant
 *        56..63 source    number in snat_sources of the address that the backend sees as its client
 *                         (from snat_port); 0: it sees the client's own address
 *
 *   FREE -> CLAIMED (being written) -> TENTATIVE (complete, contenders may still withdraw it) -> NEW
 *
 * A flow lasts only when both ends have shown that they talk to each other, since what one of them
 * says anybody may say in its name, and what the backend answers comes of that:
 *
 *   TCP   NEW -SYN-ACK-> ANSWERED -the client acknowledges that very SYN-ACK-> ESTABLISHED
 *   UDP   NEW -answer-> ANSWERED -the client-> REPEATED -another answer-> ESTABLISHED
 *   SCTP  NEW -INIT-ACK-> ANSWERED -the backend goes on-> ESTABLISHED
 *
 * TCP as well, where the backend goes on, which it does when it has had the acknowledgement: what was
 * noted of the SYN-ACK may have been overwritten (`handshakes`), or not have come by here.
 *
 * What a single segment says of the end is believed as long as nothing contradicts it:
 *
 *   A FIN ends its side (ORIGINAL_FIN, REPLY_FIN), and both end the flow (CLOSING). Data of a side
 *   take its FIN back.
 *   A reset ends a flow that was never confirmed (ABORTED), unless the other end answers yet. One that
 *   was is RESET: it goes on as it was when both sides have been heard again. If it really has ended
 *   nobody notices, for an end that is gone answers each packet by another reset.
 */
#pragma once

#include "ground/context.h"
#include "ground/maps.h"
#include "packet/parse.h"

#define FLOW_TIME_MASK 0x7fffffULL
#define FLOW_COUNTED (1ULL << 23)
#define FLOW_OF_XDP (1ULL << 24)
#define FLOW_STATE_SHIFT 25
#define FLOW_STATE_MASK 0xfULL
#define FLOW_PROTOCOL_SHIFT 29
#define FLOW_PROTOCOL_MASK (3ULL << FLOW_PROTOCOL_SHIFT)
#define FLOW_BRIDGED (1ULL << 31)
#define FLOW_SERVICE_SHIFT 32
#define FLOW_SIGNPOST (1ULL << 48)
#define FLOW_PASS (1ULL << 49)
#define FLOW_KIND_MASK (3ULL << 48)
#define FLOW_PORTED (1ULL << 50)
#define FLOW_GENERATION_SHIFT 51
#define FLOW_GENERATION_MASK 0x1fULL
#define FLOW_SOURCE_SHIFT 56
/* of a signpost: */
#define SIGNPOST_HELD FLOW_BRIDGED
#define SIGNPOST_OF_NODE FLOW_PORTED /* the client is the node itself */

enum flow_state {
	FLOW_FREE = 0,
	FLOW_CLAIMED = 1,
	FLOW_TENTATIVE = 2,
	/* a packet may use it from here on; both ends have not shown yet that they talk */
	FLOW_NEW = 3,
	FLOW_ANSWERED = 4,
	FLOW_REPEATED = 5, /* UDP */
	FLOW_ABORTED = 6,
	/* they have; and who of them has said FIN: 1 the client, 2 the backend */
	FLOW_ESTABLISHED = 8,
	FLOW_ORIGINAL_FIN = 9,
	FLOW_REPLY_FIN = 10,
	FLOW_CLOSING = 11,
	/* and whoever has been heard since, by the same bits */
	FLOW_RESET = 12,
};

/* the states a packet may use, in one comparison */
#define FLOW_LIVE FLOW_NEW

/* What a segment says of its flow: enum packet_flag, and where that matters also these. */
enum segment_flag {
	SEGMENT_GOES_ON = 0x100,  /* its sender takes the connection for open */
	SEGMENT_DATA = 0x200,	  /* has payload */
	SEGMENT_CONFIRMS = 0x400, /* of the client's: it has had the backend's SYN-ACK */
};

INLINE __u32 flow_state(__u64 word)
{
	return word >> FLOW_STATE_SHIFT & FLOW_STATE_MASK;
}

/* Not 0 of an entry that no packet may use. */
INLINE __u64 flow_dead(__u64 word)
{
	return ~(flow_state(word) + 16 - FLOW_LIVE) & 16;
}

/* The word in this state, seen now. */
INLINE __u64 flow_word_at(__u64 word, __u32 state, __u32 now)
{
	return (word & ~(FLOW_TIME_MASK | FLOW_STATE_MASK << FLOW_STATE_SHIFT)) |
	       (now & FLOW_TIME_MASK) | (__u64)state << FLOW_STATE_SHIFT;
}

/* An entry that was freed: it keeps its generation. */
INLINE __u64 flow_freed(__u64 word)
{
	return word & FLOW_GENERATION_MASK << FLOW_GENERATION_SHIFT;
}

INLINE __u32 flow_protocol(__u64 word)
{
	return word >> FLOW_PROTOCOL_SHIFT & 3;
}

INLINE __u64 flow_protocol_bits(__u8 protocol)
{
	__u64 number = protocol == IPPROTO_TCP ? FLOW_TCP :
		       protocol == IPPROTO_UDP ? FLOW_UDP :
						 FLOW_SCTP;

	return number << FLOW_PROTOCOL_SHIFT;
}

INLINE __u32 flow_service_id(__u64 word)
{
	return word >> FLOW_SERVICE_SHIFT & 0xffff;
}

INLINE __u32 flow_source_id(__u64 word)
{
	return word >> FLOW_SOURCE_SHIFT;
}

INLINE int flow_of_xdp(__u64 word)
{
	return (word & FLOW_OF_XDP) != 0;
}

/* Has its backend to do with it? Where it is COUNTED, it counts as long as this holds. */
INLINE int flow_is_open(__u64 word)
{
	const __u32 open = 1U << FLOW_NEW | 1U << FLOW_ANSWERED | 1U << FLOW_REPEATED |
			   1U << FLOW_ESTABLISHED | 1U << FLOW_ORIGINAL_FIN | 1U << FLOW_REPLY_FIN;

	return open >> flow_state(word) & 1;
}

INLINE __u32 flow_age(__u64 word, __u32 now)
{
	return (now - (__u32)word) & FLOW_TIME_MASK;
}

/* Idle time-out in ticks. */
/* rule: CO-14 */
INLINE __u32 flow_timeout(__u64 word)
{
	__u64 state = flow_state(word);
	__u64 protocol = flow_protocol(word);
	__u64 is_tcp = below(protocol, FLOW_UDP);
	__u64 is_udp = below(protocol, FLOW_SCTP) ^ is_tcp;
	__u64 open =
		choose(is_tcp, TIMEOUT_TCP_ESTABLISHED, choose(is_udp, TIMEOUT_UDP, TIMEOUT_SCTP));
	__u64 opening = choose(is_udp, TIMEOUT_UDP_NEW, TIMEOUT_TCP_SYN);
	__u64 over = choose(below(state, FLOW_RESET), TIMEOUT_TIME_WAIT, TIMEOUT_RESET);
	__u64 confirmed = choose(below(state, FLOW_CLOSING), open, over);

	/* a program writes for microseconds; one that was cut off must not keep its place */
	return choose(below(state, FLOW_NEW), TIMEOUT_CLOSING,
		      choose(below(state, FLOW_ESTABLISHED), opening, confirmed));
}

/*
 * Another CPU may have noted a packet a tick later than `now`, which this one read before: that is
 * not the longest possible age. So many ticks count as the future.
 */
#define FLOW_FUTURE 64

INLINE int flow_expired(__u64 word, __u32 now)
{
	__u32 age = flow_age(word, now + FLOW_FUTURE);

	/* most that are looked at were heard of just now */
	return UNLIKELY(age > TIMEOUT_SHORTEST + FLOW_FUTURE) &&
	       age > flow_timeout(word) + FLOW_FUTURE;
}

/* May another flow take its place? Not while both ends go on talking, as far as was seen. */
INLINE int flow_gives_way(__u64 word)
{
	return flow_state(word) < FLOW_ESTABLISHED || flow_state(word) >= FLOW_CLOSING;
}

/* Dispensability of an entry that holds nothing any more. */
#define FLOW_VACANT 0xfffffffeU
/* Above an age, whatever it is. */
#define FLOW_CLOSING_FIRST (1U << 26)
#define FLOW_UNCONFIRMED_FIRST (1U << 27)

/*
 * How readily an entry is given up: 0 never, the highest first. What was never confirmed comes first,
 * the longest unheard of before others; then what both sides have closed, and what was reset. These two
 * only when nothing has been heard of them for a while: neither takes the place of a connection whose
 * ends go on, even if somebody has forged its end.
 */
/* rule: CO-8, CO-30 */
INLINE __u32 flow_dispensable(__u64 word, __u32 now)
{
	__u64 state = flow_state(word);
	__u64 age = flow_age(word, now);
	__u64 unconfirmed = below(state - FLOW_NEW, FLOW_ESTABLISHED - FLOW_NEW);
	__u64 vacant = forget(state == FLOW_FREE || flow_expired(word, now), word) & 1;
	__u64 quiet;

	age = choose(below(FLOW_TIME_MASK - FLOW_FUTURE, age), 0, age);
	quiet = below(FLOW_CLOSING - 1, state) & below(TIMEOUT_CLOSING - 1, age);
	age += choose(unconfirmed, FLOW_UNCONFIRMED_FIRST,
		      below(state, FLOW_RESET) * FLOW_CLOSING_FIRST);
	return choose(vacant, FLOW_VACANT, age * (unconfirmed | quiet));
}

/* It is over, as far as its ends have said: a client's SYN begins another. */
INLINE int flow_over(__u64 word)
{
	return flow_state(word) == FLOW_CLOSING || flow_state(word) == FLOW_ABORTED;
}

/* Has the client, or a forged packet of its, said that it is? */
INLINE int flow_may_be_over(__u64 word)
{
	return flow_over(word) || flow_state(word) == FLOW_ORIGINAL_FIN ||
	       flow_state(word) >= FLOW_RESET;
}

/* The number by which a SYN-ACK is acknowledged stands here for each place; see `handshakes` in maps.h. */
INLINE __u32 *flow_handshake(__u32 place)
{
	return handshake_get(place & (HANDSHAKES - 1));
}

/* Of a flow that is not simply going on: what else the segment says. */
INLINE __u32 segment_evidence(context *ctx, const struct packet *packet, __u32 *handshake,
			      int towards_backend)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	void *transport = data + (packet->l4_offset & MAX_L4_OFFSET);
	struct tcphdr *tcp = transport;
	__u8 *bytes = transport;
	__u32 found = SEGMENT_GOES_ON;

	if (transport + 16 > data_end)
		/* joined DATA, which stands elsewhere */
		return packet->protocol == IPPROTO_SCTP ? SEGMENT_GOES_ON : 0;
	if (packet->protocol == IPPROTO_SCTP)
		/* not INIT, INIT-ACK, ABORT and SHUTDOWN COMPLETE (RFC 9260) */
		return bytes[12] == 1 || bytes[12] == 2 || bytes[12] == 6 || bytes[12] == 14 ?
			       0 :
			       SEGMENT_GOES_ON;
	if ((bytes[13] & 0x12) == 0x12 && !towards_backend && handshake)
		WRITE_ONCE(*handshake, htonl32(tcp->seq) + 1);
	if ((bytes[13] & 0x12) != 0x10)
		return 0;
	if (towards_backend && handshake && READ_ONCE(*handshake) == htonl32(tcp->ack_seq))
		found |= SEGMENT_CONFIRMS;
	if (transport_bytes(data, data_end, packet) != (__u32)(bytes[12] >> 4) * 4)
		found |= SEGMENT_DATA;
	return found;
}

/*
 * What follows on each state, one hexadecimal digit a state, the highest state first. Looked up and not
 * branched to: the verifier follows each branch through all code behind.
 */
#define STATE_STAYS 0xfedcba9876543210ULL

INLINE __u32 state_after(__u64 table, __u32 state)
{
	return table >> state * 4 & FLOW_STATE_MASK;
}

/* 1 where the flag is set, else 0; the compiler would make a branch of it */
INLINE __u64 where_set(__u32 segment, __u32 flag)
{
	__u64 bit = segment / flag & 1;

	asm volatile("" : "+r"(bit));
	return bit;
}

/*
 * A segment without end of an open flow, or one that opens. Of TCP and SCTP the client's own segments open
 * nothing unless they confirm, and whatever the backend says is an answer.
 */
INLINE __u64 states_after_segment(__u64 is_udp, __u32 segment, int towards_backend)
{
	__u64 confirms = where_set(segment, SEGMENT_CONFIRMS);
	__u64 goes_on = where_set(segment, SEGMENT_GOES_ON);
	__u64 data = where_set(segment, SEGMENT_DATA);
	__u64 udp = towards_backend ? 0x76553210 : 0x76844210;
	__u64 opening = towards_backend ? choose(confirms, 0x88883210, 0x76543210) :
					  choose(goes_on, 0x44484210, 0x44444210);
	__u64 open = towards_backend ? choose(data, 0xaa88, 0xba98) : choose(data, 0x9898, 0xba98);
	__u64 reset =
		towards_backend ? choose(goes_on, 0x88dd, 0x8edc) : choose(goes_on, 0x8e8e, 0x8edc);

	return reset << 48 | open << 32 | choose(is_udp, udp, opening);
}

/* What a segment makes of a flow. `segment`: flow_segment()'s, or of an end without one its flags. */
/* rule: CO-7, CO-8 */
INLINE __u32 flow_next_state(__u64 word, __u32 segment, int towards_backend)
{
	const __u64 reset = 0xccccbccc66666666ULL;
	const __u64 fin = towards_backend ? 0xfedcbb9976543210ULL : 0xfedcbaba76543210ULL;
	__u32 state = flow_state(word);
	__u64 protocol = flow_protocol(word);
	__u64 table;

	if (LIKELY(state == FLOW_ESTABLISHED && !(segment & (PACKET_FIN | PACKET_RST))))
		return forget(state, word);
	table = states_after_segment(below(protocol ^ FLOW_UDP, 1), segment, towards_backend);
	state = state_after(choose(where_set(segment, PACKET_RST), reset, table), state);
	state = state_after(choose(where_set(segment, PACKET_FIN), fin, STATE_STAYS), state);
	return forget(state, word);
}
