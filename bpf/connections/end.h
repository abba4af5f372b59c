/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * Ending one flow, for `ebpf-lb flows --delete`: a program, since only a program changes a word in one
 * step. It is run by BPF_PROG_TEST_RUN on a "packet" that says which (ebpf_lb/datapath/flow_end.py).
 */
#pragma once

#include "connections/flow.h"

/* Returns 1 if the entry was still the same, and is free now. */
INLINE int end_flow_by_request(struct __sk_buff *skb)
{
	struct flow_end request;
	struct flow_set *entries;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &request, sizeof(request)))
		return 0;
	entries = flow_set_get(request.set);
	if (!entries)
		return 0;

	struct flow *flow = &entries->entry[request.slot & 3];
	__u64 word = READ_ONCE(flow->word);

	/* the time of its last packet may have changed since it was read, nothing else */
	if ((word ^ request.word) >> FLOW_GENERATION_SHIFT || flow_state(word) < FLOW_LIVE)
		return 0;
	return flow_end(flow, word, request.set, request.slot & 3);
}
