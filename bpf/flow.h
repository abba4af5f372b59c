/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * The connection table: flow_lookup, flow_touch, flow_create. Nothing else knows its shape.
 *
 * A set-associative table in an array map. The set is chosen by a seeded hash of the client's
 * address, port and protocol; these stand in both directions of a translated flow, so one entry
 * serves both, and two VIPs with one backend used from one client port meet in one set, where the
 * clash is seen. A client's tuple has two sets of 4 entries to choose from.
 *
 * `word` is an entry's state and its lock; it changes by compare-and-swap only:
 *
 *   bits  0..23 time      tick of the last packet
 *        24..26 state     below
 *        27..28 protocol  1 TCP, 2 UDP, 3 SCTP
 *        29     SNAT      the backend sees another source: snat_port, and the source numbered below
 *        30     TURNED    a signpost for replies to an SNATed flow, see below
 *        31     BRIDGED   backend on the client's own bridge: the way to it is in `ways`
 *        32..47 service_id
 *        48..55 generation, one more at each claim, so that a reader notices a change of tenant
 *        56..63 source    number in snat_sources
 *
 *   FREE -> CLAIMED (being written) -> TENTATIVE (complete, contenders may still withdraw it)
 *        -> NEW (no reply yet) -> ESTABLISHED -> ORIGINAL_FIN | REPLY_FIN -> CLOSING
 *
 * Two CPUs that create one flow at once end with one entry: each publishes TENTATIVE, then looks for
 * rivals. A rival that is NEW or later has won; among tentative ones the lower place wins and the
 * other withdraws. Whoever wants to go from TENTATIVE to NEW does so by compare-and-swap, which fails
 * if it was withdrawn meanwhile; then the look-up starts anew and finds the winner.
 *
 * A reply to an SNATed packet does not name the client. Its signpost is an entry of its own, found by
 * what the reply does name: client = SNAT address and port, backend = backend, and in place of the
 * VIP the real client, by whom the flow is then found. Its state follows the flow's.
 *
 * Who makes room for a new flow: a free entry, an expired one, the one that has been closing or has
 * waited for its first reply longest. Never an established one: then the new flow fails.
 */
#pragma once

#include "hash.h"
#include "maps.h"
#include "packet.h"

#define FLOW_TIME_MASK 0xffffffULL
#define FLOW_STATE_SHIFT 24
#define FLOW_PROTOCOL_SHIFT 27
#define FLOW_SNAT (1ULL << 29)
#define FLOW_TURNED (1ULL << 30)
#define FLOW_BRIDGED (1ULL << 31)
#define FLOW_SERVICE_SHIFT 32
#define FLOW_GENERATION_SHIFT 48
#define FLOW_SOURCE_SHIFT 56

enum flow_state {
	FLOW_FREE = 0,
	FLOW_CLAIMED = 1,
	FLOW_TENTATIVE = 2,
	FLOW_NEW = 3,
	FLOW_ESTABLISHED = 4,
	FLOW_ORIGINAL_FIN = 5,
	FLOW_REPLY_FIN = 6,
	FLOW_CLOSING = 7,
};

/* the states a packet may use, in one comparison */
#define FLOW_LIVE FLOW_NEW

/* An entry that is given up: free, and still counting its tenants. */
INLINE __u64 flow_freed(__u64 word)
{
	return word & 0xffULL << FLOW_GENERATION_SHIFT;
}

/* A place in the table, and the word it had when it was found. */
struct flow_ref {
	struct flow *flow; /* 0: not found */
	__u64 word;
	__u32 set;
	__u32 slot;
};

INLINE __u32 flow_state(__u64 word)
{
	return word >> FLOW_STATE_SHIFT & 7;
}

INLINE __u64 flow_protocol_bits(__u8 protocol)
{
	return (protocol == IPPROTO_TCP ? 1ULL :
		protocol == IPPROTO_UDP ? 2ULL :
					  3ULL)
	       << FLOW_PROTOCOL_SHIFT;
}

INLINE __u32 flow_service_id(__u64 word)
{
	return word >> FLOW_SERVICE_SHIFT & 0xffff;
}

INLINE __u32 flow_source_id(__u64 word)
{
	return word >> FLOW_SOURCE_SHIFT;
}

INLINE __u32 flow_age(__u64 word, __u32 now)
{
	return (now - (__u32)word) & FLOW_TIME_MASK;
}

/* Idle time-out in ticks. */
INLINE __u32 flow_timeout(__u64 word)
{
	__u32 state = flow_state(word);
	__u32 protocol = word >> FLOW_PROTOCOL_SHIFT & 3;

	if (state == FLOW_CLOSING || state <= FLOW_TENTATIVE)
		return TIMEOUT_CLOSING;
	if (protocol == 1)
		return state == FLOW_NEW ? TIMEOUT_TCP_SYN : TIMEOUT_TCP_ESTABLISHED;
	return protocol == 2 ? TIMEOUT_UDP : TIMEOUT_SCTP;
}

INLINE int flow_expired(__u64 word, __u32 now)
{
	return flow_age(word, now) > flow_timeout(word);
}

/* The two sets of a client's tuple; they differ where there is more than one. */
INLINE void flow_sets(const addr *client, __be16 port, __u8 protocol, __u32 *first, __u32 *second)
{
	__u64 hash = hash_tuple(client, port, protocol, FLOW_SEED);

	*first = hash & (FLOW_SETS - 1);
	*second = hash >> 32 & (FLOW_SETS - 1);
	if (*second == *first)
		*second = *first ^ (FLOW_SETS > 1);
}

/*
 * Does a live entry match? `towards_backend`: the packet goes client -> VIP, else backend -> client.
 * SNATed flows cannot be recognised by the client in their replies; their signposts can.
 */
INLINE int flow_matches(struct flow *flow, __u64 word, const struct packet *packet, __u64 protocol,
			int towards_backend)
{
	if (flow_state(word) < FLOW_LIVE || (word & (3ULL << FLOW_PROTOCOL_SHIFT)) != protocol)
		return 0;
	if (towards_backend)
		return flow->client_port == packet->source_port &&
		       flow->vip_port == packet->destination_port &&
		       same_address(&flow->client, &packet->source) &&
		       same_address(&flow->vip, &packet->destination) && !(word & FLOW_TURNED);
	return flow->client_port == packet->destination_port &&
	       flow->backend_port == packet->source_port &&
	       same_address(&flow->client, &packet->destination) &&
	       same_address(&flow->backend, &packet->source) &&
	       (word & (FLOW_SNAT | FLOW_TURNED)) != FLOW_SNAT;
}

INLINE int flow_find_in_set(__u32 set, const struct packet *packet, int towards_backend, __u32 now,
			    struct flow_ref *ref)
{
	struct flow_set *entries = flow_set_get(set);
	__u64 protocol = flow_protocol_bits(packet->protocol);
	__u64 found = 0;
	__u32 slot = 0;

	if (!entries)
		return 0;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		struct flow *flow = &entries->entry[i];
		__u64 word = READ_ONCE(flow->word);

		if (flow_matches(flow, word, packet, protocol, towards_backend) &&
		    !flow_expired(word, now)) {
			found = word;
			slot = i;
			break;
		}
	}
	if (!found)
		return 0;
	ref->set = set;
	ref->slot = forget(slot, now) & 3;
	ref->flow = &entries->entry[ref->slot];
	ref->word = found;
	return 1;
}

/* The flow that a packet belongs to. ref->flow is 0 where there is none. */
INLINE int flow_lookup(const struct packet *packet, int towards_backend, __u32 now,
		       struct flow_ref *ref)
{
	__u32 first, second;

	ref->flow = 0;
	if (towards_backend)
		flow_sets(&packet->source, packet->source_port, packet->protocol, &first, &second);
	else
		flow_sets(&packet->destination, packet->destination_port, packet->protocol, &first,
			  &second);
	return flow_find_in_set(first, packet, towards_backend, now, ref) ||
	       flow_find_in_set(second, packet, towards_backend, now, ref);
}

/*
 * The entry was read while others may write: nothing read from it counts unless its tenant is still
 * the same afterwards.
 */
INLINE int flow_unchanged(const struct flow_ref *ref)
{
	__u64 word = READ_ONCE(ref->flow->word);

	return word >> FLOW_GENERATION_SHIFT == ref->word >> FLOW_GENERATION_SHIFT &&
	       flow_state(word) >= FLOW_LIVE;
}

INLINE __u32 flow_next_state(__u32 state, __u8 packet_flags, int towards_backend)
{
	if (packet_flags & PACKET_RST)
		return FLOW_CLOSING;
	if (!towards_backend && state == FLOW_NEW)
		state = FLOW_ESTABLISHED;
	if (UNLIKELY(packet_flags & PACKET_FIN)) {
		if (towards_backend)
			return state == FLOW_ESTABLISHED || state == FLOW_NEW ? FLOW_ORIGINAL_FIN :
			       state == FLOW_REPLY_FIN			      ? FLOW_CLOSING :
										state;
		return state == FLOW_ESTABLISHED  ? FLOW_REPLY_FIN :
		       state == FLOW_ORIGINAL_FIN ? FLOW_CLOSING :
						    state;
	}
	return state;
}

/* A client's SYN that cannot belong to the connection it had: the tuple is used again. */
INLINE int flow_reused(__u64 word, __u8 packet_flags)
{
	__u32 state = flow_state(word);

	return (packet_flags & PACKET_SYN) && (state == FLOW_CLOSING || state == FLOW_ORIGINAL_FIN);
}

/*
 * Notes a packet: time and state. Returns 1 if a tick began since the flow's last packet, which is
 * the occasion for whatever need not be done for every packet.
 */
INLINE int flow_touch(const struct flow_ref *ref, __u8 packet_flags, int towards_backend, __u32 now)
{
	__u64 word = ref->word;
	int tick = 0;

	/* once more if another CPU noted something at the same time: a FIN must not get lost */
#pragma unroll
	for (int i = 0; i < 2; i++) {
		__u32 state = flow_next_state(flow_state(word), packet_flags, towards_backend);
		__u64 next = (word & ~(FLOW_TIME_MASK | 7ULL << FLOW_STATE_SHIFT)) |
			     (now & FLOW_TIME_MASK) | (__u64)state << FLOW_STATE_SHIFT;

		if (LIKELY(next == word))
			return tick;
		tick = (next ^ word) & FLOW_TIME_MASK ? 1 : 0;

		__u64 seen = __sync_val_compare_and_swap(&ref->flow->word, word, next);

		if (seen == word || flow_state(seen) < FLOW_LIVE ||
		    (seen ^ word) >> FLOW_GENERATION_SHIFT)
			return tick;
		word = seen;
	}
	return tick;
}

/* Gives a signpost the state of its flow, and the time. */
INLINE void flow_mirror(const struct flow_ref *signpost, __u32 state, __u32 now)
{
	__u64 word = signpost->word;
	__u64 next = (word & ~(FLOW_TIME_MASK | 7ULL << FLOW_STATE_SHIFT)) |
		     (now & FLOW_TIME_MASK) | (__u64)state << FLOW_STATE_SHIFT;

	if (next != word)
		__sync_val_compare_and_swap(&signpost->flow->word, word, next);
}

/* What a new flow is to hold. */
struct new_flow {
	const struct packet *packet; /* client -> VIP */
	const addr *backend;
	__be16 backend_port;
	__be16 snat_port;
	__u64 bits; /* service_id, source, SNAT, BRIDGED, as in word */
};

/* Bits: what several entries have to say is put together. */
enum flow_created {
	FLOW_CREATED = 0,
	FLOW_TABLE_FULL = 1,
	FLOW_CONTENDED = 2, /* another CPU was faster somewhere: look up again */
	FLOW_CLASH =
		4, /* another flow of this client has this backend: only SNAT can tell replies apart */
};

#define NO_PLACE 8

/* How readily an entry is given up: 0 never, the highest first. */
INLINE __u32 flow_dispensable(__u64 word, __u32 now)
{
	__u32 state = flow_state(word);
	__u32 age = flow_age(word, now);

	if (state == FLOW_FREE)
		return 0xffffffff;
	if (state <= FLOW_TENTATIVE)
		/* a program writes for microseconds; one that was cut off must not keep its place */
		return age > TIMEOUT_CLOSING && age < FLOW_TIME_MASK / 2 ? 0xfffffff0 : 0;
	if (age > flow_timeout(word))
		return 0x80000000 | age;
	if (state == FLOW_NEW || state == FLOW_CLOSING)
		return age + 1;
	return 0;
}

/* Best place in a set, if it is better than `best`; packed as dispensability, set choice and slot. */
INLINE __u64 flow_room(__u32 set, __u32 choice, __u32 now, __u64 best)
{
	struct flow_set *entries = flow_set_get(set);

	if (!entries)
		return best;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u64 candidate = (__u64)flow_dispensable(READ_ONCE(entries->entry[i].word), now)
					  << 8 |
				  (7 - (choice * 4 + i));

		best = forget(candidate > best ? candidate : best, now);
	}
	return best;
}

enum rival {
	RIVAL_NONE,
	RIVAL_SAME,  /* this very flow */
	RIVAL_CLASH, /* same client and backend, another VIP: replies look alike */
};

INLINE int flow_rivalry(struct flow *flow, __u64 word, const struct new_flow *new, __u64 protocol)
{
	const struct packet *packet = new->packet;

	if (flow_state(word) < FLOW_TENTATIVE ||
	    (word & (3ULL << FLOW_PROTOCOL_SHIFT)) != protocol ||
	    flow->client_port != packet->source_port ||
	    !same_address(&flow->client, &packet->source))
		return RIVAL_NONE;
	if (!((word | new->bits) & FLOW_TURNED) && flow->vip_port == packet->destination_port &&
	    same_address(&flow->vip, &packet->destination))
		return RIVAL_SAME;
	if (!(new->bits &FLOW_SNAT) && (word & (FLOW_SNAT | FLOW_TURNED)) != FLOW_SNAT &&
	    flow->backend_port == new->backend_port &&same_address(&flow->backend, new->backend))
		return RIVAL_CLASH;
	return RIVAL_NONE;
}

INLINE __u64 flow_contend_one(struct flow *flow, __u32 here, __u32 place,
			      const struct new_flow *new, __u64 protocol, __u32 now)
{
	__u64 word = READ_ONCE(flow->word);

	if (here == place || flow_expired(word, now))
		return FLOW_CREATED;

	int rival = flow_rivalry(flow, word, new, protocol);

	if (rival == RIVAL_NONE)
		return FLOW_CREATED;
	if (flow_state(word) != FLOW_TENTATIVE)
		return rival == RIVAL_CLASH && place == NO_PLACE ? FLOW_CLASH : FLOW_CONTENDED;
	/* It may yet withdraw. With ours in place we shall meet it again. */
	if (place == NO_PLACE)
		return FLOW_CREATED;
	if (here > place &&
	    __sync_val_compare_and_swap(&flow->word, word, flow_freed(word)) == word)
		return FLOW_CREATED;
	return FLOW_CONTENDED;
}

/*
 * Looks through a set for rivals of what stands at `place` (0..7, or NO_PLACE: nothing stands yet).
 * Returns FLOW_CREATED if there is none that matters.
 */
INLINE int flow_contend(__u32 set, __u32 choice, __u32 place, const struct new_flow *new, __u32 now)
{
	struct flow_set *entries = flow_set_get(set);
	__u64 protocol = flow_protocol_bits(new->packet->protocol);
	__u64 result = FLOW_CREATED;

	if (!entries)
		return FLOW_TABLE_FULL;
#pragma unroll
	for (int i = 0; i < 4; i++)
		result = forget(result | flow_contend_one(&entries->entry[i], choice * 4 + i, place,
							  new, protocol, now),
				now);
	return result;
}

/* Creates a flow. What the SNATed ones need besides is snat.h's. */
INLINE int flow_create(const struct new_flow *new, __u32 now, struct flow_ref *ref)
{
	const struct packet *packet = new->packet;
	__u32 first, second;
	int result;

	flow_sets(&packet->source, packet->source_port, packet->protocol, &first, &second);
	result = flow_contend(first, 0, NO_PLACE, new, now) |
		 flow_contend(second, 1, NO_PLACE, new, now);
	if (result != FLOW_CREATED)
		return result;

	__u64 best = flow_room(second, 1, now, flow_room(first, 0, now, 0));

	if (best >> 8 == 0)
		return FLOW_TABLE_FULL;

	__u32 place = 7 - (best & 7);
	__u32 set = place & 4 ? second : first;
	struct flow_set *entries = flow_set_get(set);

	if (!entries)
		return FLOW_TABLE_FULL;

	struct flow *flow = &entries->entry[place & 3];
	__u64 old = READ_ONCE(flow->word);
	__u64 generation = ((old >> FLOW_GENERATION_SHIFT) + 1) & 0xff;
	__u64 claimed = (now & FLOW_TIME_MASK) | (__u64)FLOW_CLAIMED << FLOW_STATE_SHIFT |
			generation << FLOW_GENERATION_SHIFT;

	/* as when it was chosen: since then another CPU may have put this very flow there */
	if (flow_dispensable(old, now) != best >> 8 ||
	    (!flow_expired(old, now) &&
	     flow_rivalry(flow, old, new, flow_protocol_bits(packet->protocol)) != RIVAL_NONE) ||
	    __sync_val_compare_and_swap(&flow->word, old, claimed) != old)
		return FLOW_CONTENDED;

	flow->client = packet->source;
	flow->vip = packet->destination;
	flow->backend = *new->backend;
	flow->client_port = packet->source_port;
	flow->vip_port = packet->destination_port;
	flow->backend_port = new->backend_port;
	flow->snat_port = new->snat_port;

	__u64 tentative = (now & FLOW_TIME_MASK) | (__u64)FLOW_TENTATIVE << FLOW_STATE_SHIFT |
			  flow_protocol_bits(packet->protocol) |
			  generation << FLOW_GENERATION_SHIFT | new->bits;
	/* The atomic store is the barrier: all above is visible before it, the search comes after. */
	__sync_lock_test_and_set(&flow->word, tentative);

	result = flow_contend(first, 0, place, new, now) | flow_contend(second, 1, place, new, now);
	if (result != FLOW_CREATED) {
		__sync_val_compare_and_swap(&flow->word, tentative, flow_freed(tentative));
		return FLOW_CONTENDED;
	}

	__u64 live = tentative ^ (__u64)(FLOW_TENTATIVE ^ FLOW_NEW) << FLOW_STATE_SHIFT;

	if (__sync_val_compare_and_swap(&flow->word, tentative, live) != tentative)
		return FLOW_CONTENDED;
	ref->flow = flow;
	ref->word = live;
	ref->set = set;
	ref->slot = place & 3;
	return FLOW_CREATED;
}

/* Ends a flow at once: its tuple is used again, or what was begun for it cannot be finished. */
INLINE void flow_close(const struct flow_ref *ref)
{
	__sync_val_compare_and_swap(&ref->flow->word, ref->word, flow_freed(ref->word));
}
