/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * The connection table: flow_lookup, flow_touch, flow_close; flow_create is flow_create.h's. Nothing
 * else knows its shape. What an entry's word says is flow_state.h's.
 *
 * A set-associative table in an array map. The set is chosen by a seeded hash of the client's
 * address, port and protocol; these stand in both directions of a translated flow, so one entry
 * serves both, and two VIPs with one backend used from one client port meet in one set, where the
 * clash is seen. A client's tuple has two sets of 4 entries to choose from: its home.
 *
 * One socket may talk to more VIPs than its home holds. What finds it full of the same client goes to
 * two other sets, chosen by the VIP as well: the overflow. Replies do not name the VIP, so such a flow
 * gets another port (PORTED), by which its signpost is found. `overflows` tells whether a tuple may have
 * any, so that nobody else searches there.
 *
 * Three kinds of entries share the table:
 *
 *   FLOW      a connection to a Service.
 *   SIGNPOST  A reply to a packet whose source was translated does not name the client. It finds this by
 *             what it does name (struct signpost). Instead of service_id and source the word has the
 *             place of the flow, whose state it follows. There is no flow where HELD is set: another NAT
 *             of this node, or a socket of its own, has a connection from this very source to this
 *             backend, so nothing can be masqueraded with it, and its answers are left alone.
 *   PASS      a connection that is nobody's but the client's own, known because it may be taken for one
 *             of ours: from a pod to a backend past the Service, by a port of the node's that is a
 *             frontend, or older than the consistent hashing of its frontend. Its VIP and its backend
 *             are whom it asks. It is not translated.
 */
#pragma once

#include "connections/counted.h"
#include "connections/outcome.h"
#include "connections/flow_state.h"
#include "ground/hash.h"

/* A place in the table, and the word it had when it was found. */
struct flow_ref {
	struct flow *flow; /* 0: not found */
	__u64 word;
	__u32 set;
	__u32 slot;
};

/* A place as one number. */
INLINE __u32 flow_place(__u32 set, __u32 slot)
{
	return set << 2 | slot;
}

/* What stands beside a place. */
INLINE struct way *way_of(__u32 set, __u32 slot)
{
	struct way_set *ways = way_set_get(set);

	return ways ? &ways->entry[slot & 3] : 0;
}

/* Likewise, of flows that go past the stack: the way to the client. */
INLINE struct way *way_back_of(__u32 set, __u32 slot)
{
	struct way_set *ways = way_back_set_get(set);

	return ways ? &ways->entry[slot & 3] : 0;
}

/* Decides where the flows of a client's tuple live. */
INLINE __u64 flow_home(const addr *client, __be16 port, __u8 protocol)
{
	return hash_tuple(client, port, protocol, FLOW_SEED);
}

/* The same for what does not fit there. `packet`: client -> VIP. */
INLINE __u64 flow_overflow(const struct packet *packet)
{
	return hash_tuple(&packet->source, packet->source_port, packet->protocol,
			  hash_tuple(&packet->destination, packet->destination_port,
				     packet->protocol, FLOW_SEED));
}

/* The two sets that a hash stands for; they differ where there is more than one. */
INLINE void flow_sets(__u64 hash, __u32 *first, __u32 *second)
{
	*first = hash & (FLOW_SETS - 1);
	*second = hash >> 32 & (FLOW_SETS - 1);
	if (*second == *first)
		*second = *first ^ (FLOW_SETS > 1);
}

/* When a tuple with this home, or one that looks like it, was last seen to have overflowed. */
INLINE __u32 *flow_overflowed(__u64 home)
{
	return overflow_get(home >> (64 - OVERFLOW_BITS));
}

/* May it have flows there that still live? */
INLINE int flow_may_overflow(__u64 home, __u32 now)
{
	__u32 *seen = flow_overflowed(home);
	__u32 last = seen ? READ_ONCE(*seen) : 0;

	return last && now - last <= TIMEOUT_LONGEST;
}

INLINE void flow_note_overflow(__u64 home, __u32 now)
{
	__u32 *seen = flow_overflowed(home);

	if (seen && READ_ONCE(*seen) != now)
		WRITE_ONCE(*seen, now);
}

/*
 * Not 0 of a PORTED flow: beyond the hook where its packets enter nobody sees the client's own port. Its
 * signposts have that bit for something else.
 */
INLINE __u64 flow_hides_client(__u64 word)
{
	return word & FLOW_PORTED & ~((word & FLOW_SIGNPOST) * (FLOW_PORTED / FLOW_SIGNPOST));
}

/* Which packet of a flow is looked for. */
enum flow_direction {
	FLOW_ASKS, /* client -> VIP */
	FLOW_LEAVES, /* client -> backend, as the stack sees it; or from the source that a signpost names */
	FLOW_ANSWERS, /* backend -> client, likewise */
};

/* Two ports that stand side by side, as one number. */
INLINE __u32 both_ports(const __be16 *first)
{
	__u32 both;

	__builtin_memcpy(&both, first, sizeof(both));
	return both;
}

/* The same of a packet. (Little endian, as all of this is.) */
INLINE __u32 packet_ports(const struct packet *packet)
{
	return packet->source_port | (__u32)packet->destination_port << 16;
}

/*
 * Does a live entry match? A PORTED flow's other packets name a port that only its signpost knows.
 * Ports tell nearly all others; the rest is one comparison, for the verifier follows each.
 */
INLINE int flow_matches(struct flow *flow, __u64 word, const struct packet *packet, __u64 protocol,
			int direction)
{
	__u64 differs = ((word ^ protocol) & FLOW_PROTOCOL_MASK) | flow_dead(word);

	if (direction == FLOW_ASKS) {
		if (both_ports(&flow->client_port) != packet_ports(packet))
			return 0;
		differs |= address_differs(&flow->client, &packet->source) |
			   address_differs(&flow->vip, &packet->destination) |
			   (word & FLOW_SIGNPOST);
	} else if (direction == FLOW_LEAVES) {
		if (flow->client_port != packet->source_port)
			return 0;
		differs |= (flow->backend_port ^ packet->destination_port) |
			   address_differs(&flow->client, &packet->source) |
			   address_differs(&flow->backend, &packet->destination) |
			   flow_hides_client(word);
	} else {
		if (flow->client_port != packet->destination_port)
			return 0;
		differs |= (flow->backend_port ^ packet->source_port) |
			   address_differs(&flow->client, &packet->destination) |
			   address_differs(&flow->backend, &packet->source) |
			   flow_hides_client(word);
	}
	return !unbranched(differs);
}

INLINE int flow_find_in_set(__u32 set, const struct packet *packet, int direction, __u32 now,
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

		BARRIER(); /* what another entry holds is not read before it is its turn */
		if (flow_matches(flow, word, packet, protocol, direction) &&
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

INLINE int flow_find(__u64 hash, const struct packet *packet, int direction, __u32 now,
		     struct flow_ref *ref)
{
	__u32 first, second;

	flow_sets(hash, &first, &second);
	return flow_find_in_set(first, packet, direction, now, ref) ||
	       flow_find_in_set(second, packet, direction, now, ref);
}

/* Flows to this backend may come to be from now on: their replies must be looked up. */
INLINE void flow_note_replier(const addr *backend, __be16 port)
{
	__u32 index = hash_replier(backend, port);
	__u64 bit = 1ULL << (index & 63);
	__u64 *word = repliers_get(index >> 6);

	if (word && UNLIKELY(!(READ_ONCE(*word) & bit)))
		__sync_fetch_and_or(word, bit);
}

/* May the packet be a reply? Most that are none are told by that, without a look at cold memory. */
INLINE int flow_may_be_reply(const struct packet *packet)
{
	__u32 index = hash_replier(&packet->source, packet->source_port);
	__u64 *word = repliers_get(index >> 6);

	return word && READ_ONCE(*word) >> (index & 63) & 1;
}

/* The entry that a packet belongs to. ref->flow is 0 where there is none. */
INLINE int flow_lookup(const struct packet *packet, int direction, __u32 now, struct flow_ref *ref)
{
	__u64 home = direction == FLOW_ANSWERS ?
			     flow_home(&packet->destination, packet->destination_port,
				       packet->protocol) :
			     flow_home(&packet->source, packet->source_port, packet->protocol);

	ref->flow = 0;
	if (direction == FLOW_ANSWERS && !flow_may_be_reply(packet))
		return 0;
	if (flow_find(home, packet, direction, now, ref))
		return 1;
	if (direction != FLOW_ASKS || LIKELY(!flow_may_overflow(home, now)) ||
	    !flow_find(flow_overflow(packet), packet, FLOW_ASKS, now, ref))
		return 0;
	flow_note_overflow(home, now);
	return 1;
}

/*
 * The entry was read while others may write: nothing read from it counts unless its tenant is still
 * the same afterwards.
 */
INLINE int flow_unchanged(const struct flow_ref *ref)
{
	__u64 word = READ_ONCE(ref->flow->word);

	return !((word ^ ref->word) >> FLOW_GENERATION_SHIFT & FLOW_GENERATION_MASK) &&
	       flow_state(word) >= FLOW_LIVE;
}

/*
 * A known flow's packet belongs to it, but for a SYN on a tuple that nobody has confirmed yet or that may
 * be over: that may begin another (flow_reused()).
 */
INLINE int flow_goes_on(const struct flow_ref *ref, const struct packet *packet)
{
	return !(packet->flags & PACKET_SYN) || flow_state(ref->word) == FLOW_ESTABLISHED;
}

/*
 * What a packet says of its flow. Of one that simply goes on, and of a later fragment, its flags are
 * all there is to say.
 */
INLINE __u32 flow_segment(context *ctx, const struct packet *packet, const struct flow_ref *ref,
			  int towards_backend)
{
	__u32 segment = packet->flags;

	if (LIKELY(flow_state(ref->word) == FLOW_ESTABLISHED) || packet->protocol == IPPROTO_UDP ||
	    segment & PACKET_LATER_FRAGMENT)
		return forget(segment, ref->word);
	segment |= segment_evidence(ctx, packet, flow_handshake(flow_place(ref->set, ref->slot)),
				    towards_backend);
	return forget(segment, ref->word);
}

/*
 * Notes a packet: time and state. `segment`: flow_segment()'s. Returns 1 if a tick began since the
 * flow's last packet, which is the occasion for whatever need not be done for every packet.
 */
INLINE int flow_touch(const struct flow_ref *ref, __u32 segment, int towards_backend, __u32 now)
{
	__u64 word = ref->word;
	__s64 counts = 0;
	int tick = 0;

	/* once more if another CPU noted something at the same time: a FIN must not get lost */
#pragma unroll
	for (int i = 0; i < 2; i++) {
		__u64 next =
			flow_word_at(word, flow_next_state(word, segment, towards_backend), now);

		if (LIKELY(next == word))
			return tick;
		tick = (next ^ word) & FLOW_TIME_MASK ? 1 : 0;

		__u64 seen = __sync_val_compare_and_swap(&ref->flow->word, word, next);

		if (seen == word) {
			counts = (word & FLOW_COUNTED) / FLOW_COUNTED * flow_change(word, next);
			break;
		}
		if (flow_state(seen) < FLOW_LIVE ||
		    (seen ^ word) >> FLOW_GENERATION_SHIFT & FLOW_GENERATION_MASK)
			break;
		word = seen;
	}
	/* at XDP there are none: see decide() */
	if (!AT_XDP && UNLIKELY(forget(counts, now))) {
		struct way *way = way_of(ref->set, ref->slot);

		if (way)
			count_connection(way->backend_id, word, counts);
	}
	return forget(tick, now);
}

/* Gives a signpost the state of its flow, and the time. */
INLINE void flow_mirror(const struct flow_ref *signpost, __u32 state, __u32 now)
{
	__u64 word = signpost->word;
	__u64 next = flow_word_at(word, state, now);

	if (next != word)
		__sync_val_compare_and_swap(&signpost->flow->word, word, next);
}

/* Frees an entry, if it is still as it was; returns 1 then. */
INLINE int flow_free(struct flow *flow, __u64 word, __u32 set, __u32 slot)
{
	if (__sync_val_compare_and_swap(&flow->word, word, flow_freed(word)) != word)
		return 0;
	if (UNLIKELY(word & FLOW_COUNTED) && flow_is_open(word)) {
		struct way *way = way_of(set, slot);

		if (way)
			count_connection(way->backend_id, word, -1);
	}
	return 1;
}

/* The same, and what became of the connection is counted. */
INLINE int flow_end(struct flow *flow, __u64 word, __u32 set, __u32 slot)
{
	struct way *way = way_of(set, slot);
	struct outcome *outcome = way ? outcome_place(flow, word, way->backend_id) : 0;

	if (!flow_free(flow, word, set, slot))
		return 0;
	count_outcome(outcome, word);
	return 1;
}

/* Removes a flow at once: what was begun for it cannot be finished. */
INLINE void flow_close(const struct flow_ref *ref)
{
	flow_free(ref->flow, ref->word, ref->set, ref->slot);
}
