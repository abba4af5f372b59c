/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/* Counting: by reason, by Service, and what happens to flows. The maps are per CPU, so plain additions do. */
#pragma once

#include "ground/context.h"

/* `packets` of `bytes` in all (without link headers); more than one where offloads joined them. */
INLINE void count_reason(__u32 reason, __u32 packets, __u64 bytes)
{
	struct counter *counter = counter_get(reason);

	if (counter) {
		counter->packets += packets;
		counter->bytes += bytes;
	}
}

INLINE void count_service(__u32 service_id, __u32 connections, __u32 packets, __u64 bytes)
{
	struct service_counter *counter = service_counter_get(service_id);

	if (counter) {
		counter->connections += connections;
		counter->packets += packets;
		counter->bytes += bytes;
	}
}

INLINE void count_flow_event(__u32 event)
{
	__u64 *events = flow_event_get(event);

	if (events)
		*events += 1;
}

INLINE void count_packet(context *ctx, __u32 reason)
{
	count_reason(reason, ctx_packets(ctx), ctx_bytes(ctx));
}

/* A packet of a flow, which is on its way now. */
INLINE void count_flow_packet(context *ctx, __u32 reason, __u32 service_id)
{
	__u32 packets = ctx_packets(ctx);
	__u64 bytes = ctx_bytes(ctx);

	count_reason(reason, packets, bytes);
	count_service(service_id, 0, packets, bytes);
	if (AT_XDP)
		count_reason(REASON_XDP, packets, bytes);
}
