/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * Going through the connection table, one set a run: the agent runs it by BPF_PROG_TEST_RUN, so many
 * times at once as it likes (ebpf_lb/datapath/sweep.py).
 *
 * Nobody needs it for room: expired entries are no longer found, and are the first to be given to a
 * new flow. But an entry's time is cut to 25 bits. After half a year what had long expired would look as if it
 * were of today, and be some unlucky connection's; so it is taken out before that. And somebody has to
 * count. Here, and not in the agent, because only a program changes a word in one step.
 *
 * By the agent's word (`stale`), UDP flows end too whose backend no longer serves, or whose frontend is another
 * Service's by now. A client's next packet would see to that, but the backend may go on talking until then.
 */
#pragma once

#include "ground/count.h"
#include "connections/flow.h"
#include "services/still_serves.h"

#define CENSUS_KINDS 32
#define CENSUS_SIGNPOSTS 16

/* rule: CO-15 */
INLINE int is_stale(struct flow *flow, __u64 word, __u32 set, __u32 slot)
{
	struct flow_ref ref;

	if ((word & (FLOW_PROTOCOL_MASK | FLOW_KIND_MASK)) != flow_protocol_bits(IPPROTO_UDP) ||
	    flow_state(word) < FLOW_LIVE)
		return 0;
	ref.flow = flow;
	ref.word = word;
	ref.set = set;
	ref.slot = slot;
	return !flow_serves(&ref, IPPROTO_UDP);
}

INLINE void sweep_entry(struct flow *flow, struct census *census, __u32 slot, int stale, __u32 now)
{
	__u64 word = READ_ONCE(flow->word);
	__u32 state = flow_state(word);
	__u32 kind = (state > FLOW_RESET ? FLOW_RESET : state) +
		     (word & FLOW_SIGNPOST ? CENSUS_SIGNPOSTS : 0);

	if (state != FLOW_FREE && flow_expired(word, now)) {
		if (flow_end(flow, word, census->next_set, slot))
			count_flow_event(FLOW_EVENT_EXPIRED);
		kind = FLOW_FREE;
	} else if (stale && is_stale(flow, word, census->next_set, slot)) {
		if (flow_end(flow, word, census->next_set, slot))
			count_flow_event(FLOW_EVENT_STALE);
		kind = FLOW_FREE;
	}
	census->counting[within(kind, CENSUS_KINDS - 1)] += 1;
}

/* A pass over the whole table has ended. */
INLINE void sweep_ends(struct census *census)
{
#pragma unroll
	for (int i = 0; i < CENSUS_KINDS; i++) {
		census->counted[i] = census->counting[i];
		census->counting[i] = 0;
	}
	census->next_set = 0;
	census->passes += 1;
}

INLINE int sweep_set(int stale)
{
	struct census *census = census_get();
	struct flow_set *entries = census ? flow_set_get(census->next_set) : 0;
	__u32 now = TICK();

	if (!entries)
		return 0;
#pragma unroll
	for (int i = 0; i < 4; i++)
		sweep_entry(&entries->entry[i], census, i, stale, now);
	census->next_set += 1;
	if (census->next_set >= FLOW_SETS)
		sweep_ends(census);
	return 0;
}
