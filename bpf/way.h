/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * The way to a backend on the client's own bridge.
 *
 * Such a backend's replies are bridged: they never come by the bridge's address. So the packets
 * towards it must be bridged as well, or the kernel's connection tracking, which looks at one way and
 * not at the other, calls the replies invalid. The packet gets the backend's MAC address and goes on.
 * While the neighbour is unknown, it takes the way through the stack, which then asks for it.
 */
#pragma once

#include "flow.h"

enum bridged {
	BRIDGED_NOT,	 /* not on this bridge: the stack routes it */
	BRIDGED_UNKNOWN, /* on this bridge, the neighbour is not known yet */
	BRIDGED_KNOWN,
};

INLINE int find_bridged_way(struct __sk_buff *skb, const struct packet *packet,
			    const addr *backend, __u32 bridge, struct way *way)
{
	struct bpf_fib_lookup fib = {};

	fib.family = ADDRESS_FAMILY;
	fib.l4_protocol = packet->protocol;
	fib.ifindex = bridge;
#if FAMILY == 4
	fib.ipv4_src = packet->source.word[0];
	fib.ipv4_dst = backend->word[0];
#else
	__builtin_memcpy(fib.ipv6_src, &packet->source, sizeof(addr));
	__builtin_memcpy(fib.ipv6_dst, backend, sizeof(addr));
#endif
	int result = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);

	if ((result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH) ||
	    fib.ifindex != bridge)
		return BRIDGED_NOT;
	if (result == BPF_FIB_LKUP_RET_NO_NEIGH)
		return BRIDGED_UNKNOWN;
	__builtin_memcpy(way->destination_mac, fib.dmac, ETH_ALEN);
	__builtin_memcpy(way->source_mac, fib.smac, ETH_ALEN);
	way->ifindex = bridge;
	return BRIDGED_KNOWN;
}

INLINE struct way *way_of(const struct flow_ref *ref)
{
	struct way_set *ways = way_set_get(ref->set);

	return ways ? &ways->entry[ref->slot & 3] : 0;
}

/* Before a packet of a BRIDGED flow goes on. `refresh`: ask the kernel again, neighbours change. */
INLINE void take_bridged_way(struct __sk_buff *skb, const struct packet *packet,
			     const struct flow_ref *ref, int refresh)
{
	struct way *way = way_of(ref);

	if (!way)
		return;
	if (UNLIKELY(refresh || !way->ifindex)) {
		struct interface *interface = interface_get(skb->ifindex);
		addr backend = ref->flow->backend;
		struct way found = {};

		if (interface && interface->bridge &&
		    find_bridged_way(skb, packet, &backend, interface->bridge, &found) ==
			    BRIDGED_KNOWN)
			*way = found;
		else
			way->ifindex = 0;
	}
	if (way->ifindex) {
		struct ethhdr *ethernet = (void *)(long)skb->data;

		if ((void *)(ethernet + 1) <= (void *)(long)skb->data_end)
			__builtin_memcpy(ethernet->h_dest, way->destination_mac, ETH_ALEN);
	}
}
