/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/* Counting: by reason, and by Service. The maps are per CPU, so plain additions do. */
#pragma once

#include "maps.h"

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

INLINE __u32 skb_packets(struct __sk_buff *skb)
{
	return skb->gso_segs ? skb->gso_segs : 1;
}

INLINE __u64 skb_bytes(struct __sk_buff *skb)
{
	return skb->len - LINK_HEADER_BYTES;
}

INLINE void count_skb(struct __sk_buff *skb, __u32 reason)
{
	count_reason(reason, skb_packets(skb), skb_bytes(skb));
}

INLINE void count_flow_skb(struct __sk_buff *skb, __u32 reason, __u32 service_id)
{
	__u32 packets = skb_packets(skb);
	__u64 bytes = skb_bytes(skb);

	count_reason(reason, packets, bytes);
	count_service(service_id, 0, packets, bytes);
}
