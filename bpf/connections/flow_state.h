/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a flow's word says, what a segment makes of it, and for how long it holds.
 *
 * `word` is an entry's state and its lock; it changes by compare-and-swap only:
 *
 *   bits  0..24 time      tick of the last packet; a tick is about half a second, so it comes round
 *                         after half a year
 *        25..28 state     below
 *        29..30 protocol  enum flow_protocol
 *        31     BRIDGED   backend on the client's own bridge: the way to it is in `ways`
 *               OF_XDP, where there is a source: XDP made it, and it stays out of the kernel's stack for as
 *                     long as it lives, also at TC (flow_of_xdp())
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

#define FLOW_TIME_MASK 0x1ffffffULL
#define FLOW_STATE_SHIFT 25
#define FLOW_STATE_MASK 0xfULL
#define FLOW_PROTOCOL_SHIFT 29
#define FLOW_PROTOCOL_MASK (3ULL << FLOW_PROTOCOL_SHIFT)
#define FLOW_BRIDGED (1ULL << 31)
#define FLOW_OF_XDP FLOW_BRIDGED
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

/* The word in this state, seen now. */
INLINE __u64 flow_word_at(__u64 word, __u32 state, __u32 now)
{
	return (word & ~(FLOW_TIME_MASK | FLOW_STATE_MASK << FLOW_STATE_SHIFT)) |
	       (now & FLOW_TIME_MASK) | (__u64)state << FLOW_STATE_SHIFT;
}

/* An entry that is given up: free, and still counting its tenants. */
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

/*
 * Did XDP make it? Then it goes past the stack, at TC as well: the kernel's connection tracking must see both
 * halves of a connection or none. A reply that is the first it sees is masqueraded, or invalid.
 */
INLINE int flow_of_xdp(__u64 word)
{
	return word & FLOW_OF_XDP && flow_source_id(word);
}

INLINE __u32 flow_age(__u64 word, __u32 now)
{
	return (now - (__u32)word) & FLOW_TIME_MASK;
}

/*
 * All bits where x < limit, else none. Chosen by such masks, several time-outs are one way through the
 * program for the verifier, which follows each branch through all that comes after.
 */
INLINE __u64 below(__u64 x, __u64 limit)
{
	__u64 mask = x - limit;

	asm volatile("%0 s>>= 63" : "+r"(mask));
	return mask;
}

INLINE __u64 choose(__u64 mask, __u64 where_set, __u64 otherwise)
{
	return otherwise ^ ((where_set ^ otherwise) & mask);
}

/* Idle time-out in ticks. */
/* rule: CO-14 */
INLINE __u32 flow_timeout(__u64 word)
{
	__u64 state = flow_state(word);
	__u64 protocol = flow_protocol(word);
	__u64 is_tcp = below(protocol, FLOW_UDP);
	__u64 is_udp = below(protocol, FLOW_SCTP) & ~is_tcp;
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

/* May others have its place? Not as long as both ends go on talking, for all that was seen. */
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
	__u32 state = flow_state(word);
	__u32 age = flow_age(word, now);

	__u32 found = 0;

	if (age > FLOW_TIME_MASK - FLOW_FUTURE)
		age = 0;
	if (state == FLOW_FREE || flow_expired(word, now))
		found = FLOW_VACANT;
	else if (state >= FLOW_NEW && state < FLOW_ESTABLISHED)
		found = FLOW_UNCONFIRMED_FIRST + age;
	else if (state >= FLOW_CLOSING && age >= TIMEOUT_CLOSING)
		found = age + (state == FLOW_CLOSING ? FLOW_CLOSING_FIRST : 0);
	return forget(found, word);
}

/* It is over, as far as its ends have said: a client's SYN begins another. */
INLINE int flow_over(__u64 word)
{
	return flow_state(word) == FLOW_CLOSING || flow_state(word) == FLOW_ABORTED;
}

/* Has the client, or anybody in its name, said that it is? */
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
		return 0;
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

INLINE __u32 flow_opens(__u64 word, __u32 segment, int towards_backend)
{
	__u32 state = flow_state(word);

	if (flow_protocol(word) == FLOW_UDP) {
		if (towards_backend)
			return state == FLOW_ANSWERED ? FLOW_REPEATED : state;
		return state == FLOW_NEW      ? FLOW_ANSWERED :
		       state == FLOW_REPEATED ? FLOW_ESTABLISHED :
						state;
	}
	if (towards_backend)
		return state != FLOW_NEW && segment & SEGMENT_CONFIRMS ? FLOW_ESTABLISHED : state;
	return state == FLOW_ANSWERED && segment & SEGMENT_GOES_ON ? FLOW_ESTABLISHED :
								     FLOW_ANSWERED;
}

/* What a segment makes of a flow. `segment`: flow_segment()'s, or of an end without one its flags. */
/* rule: CO-7, CO-8 */
INLINE __u32 flow_next_state(__u64 word, __u32 segment, int towards_backend)
{
	const __u32 side = towards_backend ? 1 : 2;
	__u32 state = flow_state(word);

	if (LIKELY(state == FLOW_ESTABLISHED && !(segment & (PACKET_FIN | PACKET_RST))))
		return forget(state, word);
	if (segment & PACKET_RST)
		state = state < FLOW_ESTABLISHED ? FLOW_ABORTED :
			state == FLOW_CLOSING	 ? FLOW_CLOSING :
						   FLOW_RESET;
	else if (state < FLOW_ESTABLISHED)
		state = flow_opens(word, segment, towards_backend);
	else if (state < FLOW_RESET)
		state = segment & SEGMENT_DATA ? state & ~side : state;
	else if (segment & SEGMENT_GOES_ON)
		state |= side;
	if (state == (FLOW_RESET | 3))
		state = FLOW_ESTABLISHED;
	if (segment & PACKET_FIN && state >= FLOW_ESTABLISHED && state < FLOW_RESET)
		state |= side;
	return forget(state, word);
}
