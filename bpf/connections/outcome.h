/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * What became of each backend's connections: answered, refused, or never answered. Counted when an entry ends,
 * by whoever ends it, so that no packet of a connection pays for it. Those that live are told by the table.
 */
#pragma once

#include "connections/flow_state.h"

/* By the state in which it ended. */
INLINE __u32 outcome_of(__u64 word)
{
	__u64 state = flow_state(word);

	return (1 ^ not_zero(state ^ FLOW_NEW)) * OUTCOME_UNANSWERED +
	       (1 ^ not_zero(state ^ FLOW_ABORTED)) * OUTCOME_REFUSED;
}

/*
 * Before an entry ends, while what it holds is still its own: where its outcome is to be counted; 0 where it
 * is not. `backend_id`: from beside the flow; by now it may be another's number.
 */
INLINE struct outcome *outcome_place(const struct flow *flow, __u64 word, __u32 backend_id)
{
	struct backend *backend = backend_get(backend_id);
	struct outcome *outcome = outcome_get(backend_id);
	__u32 service_id = flow_service_id(word);

	if (!backend || !outcome || flow_dead(word) | (word & FLOW_KIND_MASK))
		return 0;
	if (unbranched((backend->service_id ^ service_id) | (backend->port ^ flow->backend_port) |
		       address_differs(&backend->address, &flow->backend)))
		return 0;
	if (unbranched((outcome->service_id ^ service_id) | (outcome->port ^ flow->backend_port) |
		       address_differs(&outcome->address, &flow->backend))) {
		__builtin_memset(outcome, 0, sizeof(*outcome));
		outcome->address = flow->backend;
		outcome->port = flow->backend_port;
		outcome->service_id = service_id;
	}
	return outcome;
}

/* It has ended, and its word was this. */
INLINE void count_outcome(struct outcome *outcome, __u64 word)
{
	if (outcome)
		__sync_fetch_and_add(&outcome->counts[within(outcome_of(word), OUTCOME_KINDS - 1)],
				     1);
}
