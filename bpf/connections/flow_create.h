/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * New entries in the connection table (flow.h): finding room, and being the only one.
 *
 * Two CPUs that create one flow at once end with one entry: each publishes TENTATIVE, then looks for
 * rivals. A rival that is NEW or later has won; among tentative ones the lower place wins and the
 * other withdraws. Whoever wants to go from TENTATIVE to NEW does so by compare-and-swap, which fails
 * if it was withdrawn meanwhile; then the look-up starts anew and finds the winner.
 *
 * A flow that goes to the overflow says so in `overflows` before it is published and looks for rivals
 * at home after; one that stays at home is published first and asks `overflows` then. So of two CPUs
 * that disagree about the room at home at least one sees the other.
 *
 * Who makes room for a new flow: a free entry, an expired one, what was never confirmed, what is closing
 * or was reset (flow_dispensable()). Never an established one: then the new flow fails. A client's
 * unanswered flows do not give room to its next one: that goes to the overflow.
 *
 * Ports for masquerading are given up in the same order: a signpost that looks like the new one makes
 * room for it, where no free port was found in some tries. Its flow notices by the next packet that
 * changes anything about it (keep_signpost()).
 */
#pragma once

#include "ground/count.h"
#include "connections/flow.h"

/* What a new flow is to hold. */
struct new_flow {
	const struct packet *packet; /* client -> VIP */
	const addr *backend;
	__be16 backend_port;
	__be16 snat_port;
	__u64 bits;	/* kind, service_id, source, PORTED, BRIDGED, as in word */
	int takes_over; /* a signpost: the place of one that looks alike, if it is dispensable */
	const struct way *way;	    /* its way and backend, before anybody finds it */
	const struct way *way_back; /* its way back past the stack; 0: it has none */
	__u32 spared; /* a flow: the place of its signpost, which must not make room for it */
};

/* Above FLOW_VACANT: this very place, since two signposts that look alike must never stand. */
#define FLOW_TAKEN_OVER 0xffffffffU

#define NO_PLACE 0xffffffffU

/* flow_create() returns one of them. Bits: what several entries have to say is put together. */
enum flow_created {
	FLOW_CREATED = 0,
	FLOW_TABLE_FULL = 1,
	FLOW_CONTENDED = 2, /* another CPU was faster somewhere: look up again */
	FLOW_CLASH = 4, /* another connection of this client has this backend: needs another port */
	FLOW_OVERFLOWS =
		8, /* no room at home beside this client's other flows: needs another port as well */
	FLOW_UNDECIDED = 16, /* a rival that may yet withdraw: to be met again (never returned) */
};

/* Whether a flow may live in the overflow: only PORTED ones, whose replies find it there. */
enum flow_homes {
	FLOW_AT_HOME = 0,
	FLOW_ANYWHERE = 1,
};

/*
 * Places compared: dispensability, how many of its set are vacant, and place. So that of two sets with
 * room the emptier one is filled, and both are full as late as can be (Azar et al., Balanced
 * Allocations, STOC'94).
 */
INLINE __u64 flow_candidate(__u32 dispensable, __u32 choice, int slot)
{
	return (__u64)dispensable << 8 | (7 - (choice * 4 + slot));
}

/* 1 if the place is free, else 0. */
INLINE __u64 flow_vacant(__u64 dispensable)
{
	return 1 ^ not_zero(dispensable ^ FLOW_VACANT);
}

/* Best place in a set, if it is better than `best`. */
INLINE __u64 flow_room(__u32 set, __u32 choice, __u32 spared, __u32 now, __u64 best)
{
	struct flow_set *entries = flow_set_get(set);
	__u64 found = 0;
	__u64 vacant = 0;

	if (!entries)
		return forget(best, now);
#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u64 dispensable = flow_dispensable(READ_ONCE(entries->entry[i].word), now);
		__u64 candidate = flow_candidate(dispensable, choice, i);

		found = greater(found, candidate * not_zero(flow_place(set, i) ^ spared));
		vacant += flow_vacant(dispensable);
		SETTLE(found, vacant, best);
	}
	return greater(found | vacant << 4, best);
}

enum rival {
	RIVAL_NONE,
	RIVAL_KIN,   /* the same client, but no matter */
	RIVAL_SAME,  /* this very flow */
	RIVAL_CLASH, /* same client and backend, another VIP: the stack cannot tell them apart */
};

/* Without a branch: it is looked at eight and more times, and the verifier follows each. */
INLINE __u64 flow_rivalry(struct flow *flow, __u64 word, const struct new_flow *new, __u64 protocol)
{
	const struct packet *packet = new->packet;
	__u64 other = ((word ^ protocol) & FLOW_PROTOCOL_MASK) |
		      (flow->client_port ^ packet->source_port) |
		      address_differs(&flow->client, &packet->source) |
		      below(flow_state(word), FLOW_TENTATIVE);
	__u64 vip = ((word | new->bits) & FLOW_SIGNPOST) |
		    (flow->vip_port ^ packet->destination_port) |
		    address_differs(&flow->vip, &packet->destination);
	__u64 backend = flow_hides_client(word) | flow_hides_client(new->bits) |
			(flow->backend_port ^ new->backend_port) |
			address_differs(&flow->backend, new->backend);
	__u64 no_clash = not_zero(backend);

	return (1 ^ not_zero(other)) *
	       choose(not_zero(vip), RIVAL_KIN + (1 ^ no_clash) * (RIVAL_CLASH - RIVAL_KIN),
		      RIVAL_SAME);
}

/* What an entry that still lives has to say before anything of the new flow stands. */
INLINE __u64 flow_oppose(struct flow *flow, __u64 word, const struct new_flow *new, __u64 protocol)
{
	const __u64 decided = FLOW_OVERFLOWS << 8 * RIVAL_KIN | FLOW_CONTENDED << 8 * RIVAL_SAME |
			      FLOW_CLASH << 8 * RIVAL_CLASH;
	const __u64 undecided = FLOW_OVERFLOWS << 8 * RIVAL_KIN | FLOW_UNDECIDED << 8 * RIVAL_SAME |
				FLOW_UNDECIDED << 8 * RIVAL_CLASH;
	__u64 rival = flow_rivalry(flow, word, new, protocol);

	/* a byte for each kind of rival */
	return choose(below(flow_state(word), FLOW_TENTATIVE + 1), undecided, decided) >>
		       8 * rival &
	       0xff;
}

/*
 * Looks through one of the two sets at home, once for both: what stands against the new flow, and the
 * best place for it. `seen` gets the words that were judged.
 */
INLINE __u64 flow_survey(__u32 set, __u32 choice, const struct new_flow *new, __u64 protocol,
			 __u32 now, __u64 *seen, __u64 *best)
{
	struct flow_set *entries = flow_set_get(set);
	int takes_over = new->takes_over;
	__u64 result = FLOW_CREATED;
	__u64 found = 0;
	__u64 vacant = 0;

	if (!entries)
		return forget(FLOW_TABLE_FULL, now);
#pragma unroll
	for (int i = 0; i < 4; i++) {
		struct flow *flow = &entries->entry[i];
		__u64 word = READ_ONCE(flow->word);
		__u64 dispensable =
			flow_dispensable(word, now) * not_zero(flow_place(set, i) ^ new->spared);
		__u64 said = 0;

		seen[choice * 4 + i] = word;
		if (dispensable != FLOW_VACANT)
			said = flow_oppose(flow, word, new, protocol);
		said = forget(said, word);
		if (UNLIKELY(takes_over)) {
			__u64 taken = (1 ^ not_zero(said ^ FLOW_CLASH)) & not_zero(dispensable);

			dispensable = choose(taken, FLOW_TAKEN_OVER, dispensable);
			said *= 1 ^ taken;
		}
		dispensable = forget(dispensable, word);
		result |= forget(said, word);
		found = greater(found,
				flow_candidate(dispensable, choice, i) * not_zero(dispensable));
		vacant += flow_vacant(dispensable);
		SETTLE(found, vacant, result);
	}
	*best = greater(found | vacant << 4, *best);
	return result;
}

/* Do the words of a set differ from those that were judged? */
INLINE __u64 flow_changed(__u32 set, const __u64 *seen)
{
	struct flow_set *entries = flow_set_get(set);
	__u64 changed = 0;

	if (!entries)
		return 1;
#pragma unroll
	for (int i = 0; i < 4; i++)
		changed |= READ_ONCE(entries->entry[i].word) ^ seen[i];
	return changed;
}

/* What an entry has to say to what stands at `place`, TENTATIVE. */
INLINE __u64 flow_contend_one(struct flow *flow, __u32 here, __u32 place,
			      const struct new_flow *new, __u64 protocol, __u32 now)
{
	__u64 word = READ_ONCE(flow->word);
	int expired = forget(flow_expired(word, now), now);

	if (here == place || expired || flow_rivalry(flow, word, new, protocol) <= RIVAL_KIN)
		return FLOW_CREATED;
	if (flow_state(word) == FLOW_TENTATIVE && here > place &&
	    __sync_val_compare_and_swap(&flow->word, word, flow_freed(word)) == word)
		return FLOW_CREATED;
	return FLOW_CONTENDED;
}

/* Looks through a set for rivals of what stands at `place`. Returns FLOW_CREATED if none has won. */
INLINE __u64 flow_contend(__u32 set, __u32 place, const struct new_flow *new, __u64 protocol,
			  __u32 now)
{
	struct flow_set *entries = flow_set_get(set);
	__u64 result = FLOW_CREATED;

	if (!entries)
		return forget(FLOW_TABLE_FULL, now);
#pragma unroll
	for (int i = 0; i < 4; i++)
		result = forget(result | flow_contend_one(&entries->entry[i], flow_place(set, i),
							  place, new, protocol, now),
				now);
	return result;
}

/* Fills in an entry that was `old`; returns what its word is now, 0 if another CPU took it. */
INLINE __u64 flow_publish(struct flow *flow, __u64 old, const struct new_flow *new, __u32 now)
{
	const struct packet *packet = new->packet;
	__u64 generation = ((old >> FLOW_GENERATION_SHIFT) + 1) & FLOW_GENERATION_MASK;
	__u64 claimed = (now & FLOW_TIME_MASK) | (__u64)FLOW_CLAIMED << FLOW_STATE_SHIFT |
			generation << FLOW_GENERATION_SHIFT;

	if (__sync_val_compare_and_swap(&flow->word, old, claimed) != old)
		return 0;
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
	return tentative;
}

/*
 * Creates an entry. What flows with another source need besides is new_flow.h's.
 *
 * The home is judged once, before. Once the flow stands there, its words are looked at again: what has
 * not changed has been judged, since an entry's content changes with its word only. Rivals that came
 * meanwhile show, and only then all are judged anew.
 */
/* rule: CO-13, CO-30 */
INLINE int flow_create(const struct new_flow *new, int homes, __u32 now, struct flow_ref *ref)
{
	const struct packet *packet = new->packet;
	struct scratch *scratch = scratch_get();
	__u64 home = flow_home(&packet->source, packet->source_port, packet->protocol);
	__u64 protocol = flow_protocol_bits(packet->protocol);
	__u32 first, second, over_first = 0, over_second = 0;
	__u64 best = 0;
	__u64 result;
	int over = 0;

	if (!scratch)
		return FLOW_TABLE_FULL;
	flow_sets(home, &first, &second);
	result = flow_survey(first, 0, new, protocol, now, scratch->seen, &best) |
		 flow_survey(second, 1, new, protocol, now, scratch->seen, &best);
	if (UNLIKELY(result & FLOW_TABLE_FULL))
		return FLOW_TABLE_FULL;
	if (UNLIKELY(result & FLOW_CONTENDED))
		return FLOW_CONTENDED;
	if (UNLIKELY(result & FLOW_CLASH))
		return FLOW_CLASH;

	__u32 set = best & 4 ? first : second;

	if (UNLIKELY(result & FLOW_OVERFLOWS && best >> 8 < FLOW_VACANT)) {
		if (homes == FLOW_AT_HOME)
			return FLOW_OVERFLOWS;
		flow_sets(flow_overflow(packet), &over_first, &over_second);

		__u64 room = flow_room(over_second, 1, new->spared, now,
				       flow_room(over_first, 0, new->spared, now, 0));

		if (room > best) {
			best = room;
			set = best & 4 ? over_first : over_second;
			over = 1;
			flow_note_overflow(home, now);
			count_flow_event(FLOW_EVENT_OVERFLOW);
		}
	}
	best = forget(best, now);
	set = forget(set, now) & (FLOW_SETS - 1);
	over = forget(over, now);
	if (best >> 8 == 0)
		return FLOW_TABLE_FULL;

	struct flow_set *entries = flow_set_get(set);

	if (!entries)
		return FLOW_TABLE_FULL;

	__u32 slot = 3 - (best & 3);
	struct flow *flow = &entries->entry[slot];
	__u64 *judged = &scratch->seen[7 - (best & 7)];
	__u64 old = *judged;

	if (UNLIKELY(over)) {
		old = READ_ONCE(flow->word);
		/* as when it was chosen: since then another CPU may have put this very flow there */
		if (flow_dispensable(old, now) != best >> 8 ||
		    (!flow_expired(old, now) && flow_rivalry(flow, old, new, protocol) > RIVAL_KIN))
			return FLOW_CONTENDED;
	}

	flow_note_replier(new->backend, new->backend_port);

	struct way *way = way_of(set, slot);
	struct outcome *outcome = 0;

	if (UNLIKELY(flow_state(old) >= FLOW_LIVE) && way)
		outcome = outcome_place(flow, old, way->backend_id);

	__u64 tentative = flow_publish(flow, old, new, now);
	__u32 place = flow_place(set, slot);

	if (!tentative)
		return FLOW_CONTENDED;
	count_outcome(outcome, old);
	if (way) {
		if (UNLIKELY(old & FLOW_COUNTED))
			count_connection(way->backend_id, old, -flow_is_open(old));
		if (new->way)
			*way = *new->way;
		else /* what stands there is of the place's last tenant */
			__builtin_memset(way, 0, sizeof(*way));
	}
	if (HOST_ROUTING) {
		way = way_back_of(set, slot);
		if (way && new->way_back)
			*way = *new->way_back;
		else if (way)
			__builtin_memset(way, 0, sizeof(*way));
	}
	if (UNLIKELY(best >> 8 < FLOW_VACANT))
		count_flow_event(flow_state(old) < FLOW_ESTABLISHED ? FLOW_EVENT_EVICTED_NEW :
				 flow_state(old) == FLOW_CLOSING    ? FLOW_EVENT_EVICTED_CLOSING :
								      FLOW_EVENT_EVICTED_RESET);
	if (!over)
		*judged = tentative;
	result &= FLOW_UNDECIDED;
	result |= flow_changed(first, scratch->seen) | flow_changed(second, scratch->seen + 4);
	if (UNLIKELY(result))
		result = flow_contend(first, place, new, protocol, now) |
			 flow_contend(second, place, new, protocol, now);
	if (!(new->bits &FLOW_SIGNPOST) && UNLIKELY(flow_may_overflow(home, now))) {
		flow_sets(flow_overflow(packet), &over_first, &over_second);
		result |= flow_contend(over_first, place, new, protocol, now) |
			  flow_contend(over_second, place, new, protocol, now);
	}
	if (result != FLOW_CREATED) {
		__sync_val_compare_and_swap(&flow->word, tentative, flow_freed(tentative));
		return FLOW_CONTENDED;
	}

	__u64 live = tentative ^ (__u64)(FLOW_TENTATIVE ^ FLOW_NEW) << FLOW_STATE_SHIFT;

	if (__sync_val_compare_and_swap(&flow->word, tentative, live) != tentative)
		return FLOW_CONTENDED;
	if (UNLIKELY(live & FLOW_COUNTED) && new->way)
		count_connection(new->way->backend_id, live, 1);
	ref->flow = flow;
	ref->word = live;
	ref->set = set;
	ref->slot = slot;
	return FLOW_CREATED;
}
