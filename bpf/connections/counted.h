/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * How many connections a backend has, where its Service goes by that (services/choose.h). Whoever changes a
 * COUNTED flow's word so that it is open, or not any more, counts; since words change by compare-and-swap
 * only, each change is counted once. What has expired counts until the sweep has come by.
 */
#pragma once

#include "connections/flow_state.h"

/*
 * `backend_id`: from beside the flow; by now it may be the number of another Service's, or of nobody. A number
 * is not given to another backend of its Service while connections are counted under it
 * (ebpf_lb/datapath/writer/backends.py).
 */
INLINE void count_connection(__u32 backend_id, __u64 word, __s64 change)
{
	struct backend *backend = backend_get(backend_id);
	__u32 *connections = connections_get(backend_id);

	if (!backend || !connections)
		return;
	/* without a branch, which the verifier would follow through all that comes after */
	change &= -(__s64)(backend->service_id == flow_service_id(word));
	__sync_fetch_and_add(connections, change);
}

/* By how much the number changes where a flow's word becomes `next`. */
INLINE __s64 flow_change(__u64 word, __u64 next)
{
	return forget(flow_is_open(next) - flow_is_open(word), word);
}
