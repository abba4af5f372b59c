/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * How a packet gets where it must go when it may not, or need not, go through the stack.
 *
 * A backend on the client's own bridge: its replies are bridged, they never come by the bridge's
 * address. So the packets towards it must be bridged as well, or the kernel's connection tracking,
 * which looks at one way and not at the other, calls the replies invalid. The packet gets the
 * backend's MAC address and goes on. While the neighbour is unknown, it takes the way through the
 * stack, which then asks for it.
 *
 * A packet whose source has become one of the node's own addresses: it would be a martian to the
 * stack. It is sent out directly, as the kernel's routing table says, one hop older.
 *
 * Ways are kept beside their flow and asked for anew when a tick begins: routes and neighbours change.
 */
#pragma once

#include "flow.h"

enum route {
	ROUTE_NONE,	 /* no route, or not through us */
	ROUTE_UNKNOWN,	 /* out by way->ifindex; the neighbour is not known yet */
	ROUTE_NEIGHBOUR, /* all known */
};

/* Asks the kernel for the way from `source` to `destination`, as for a packet in by `ifindex`. */
INLINE int find_way(context *ctx, const addr *source, const addr *destination, __u8 protocol,
		    __u32 ifindex, struct way *way)
{
	struct bpf_fib_lookup fib = {};

	fib.family = ADDRESS_FAMILY;
	fib.l4_protocol = protocol;
	fib.ifindex = ifindex;
	if (AT_XDP) /* at TC the kernel knows it by itself */
		fib.tot_len = ctx_bytes(ctx);
#if FAMILY == 4
	fib.ipv4_src = source->word[0];
	fib.ipv4_dst = destination->word[0];
#else
	__builtin_memcpy(fib.ipv6_src, source, sizeof(addr));
	__builtin_memcpy(fib.ipv6_dst, destination, sizeof(addr));
#endif
	int result = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);

	way->ifindex = fib.ifindex;
	if (result == BPF_FIB_LKUP_RET_NO_NEIGH)
		return ROUTE_UNKNOWN;
	if (result != BPF_FIB_LKUP_RET_SUCCESS)
		return ROUTE_NONE;
	__builtin_memcpy(way->destination_mac, fib.dmac, ETH_ALEN);
	__builtin_memcpy(way->source_mac, fib.smac, ETH_ALEN);
	return ROUTE_NEIGHBOUR;
}

/*
 * Is the backend on the bridge that the packet's interface is a port of? `way` then holds the
 * neighbour, or 0 for its interface while that is unknown.
 */
INLINE int find_bridged_way(context *ctx, const addr *client, const addr *backend, __u8 protocol,
			    struct way *way)
{
	struct interface *interface = interface_get(ctx_interface(ctx));
	__u32 bridge = interface ? interface->bridge : 0;
	int route;

	if (!LINK_HEADER_BYTES || !bridge)
		return 0;
	route = find_way(ctx, client, backend, protocol, bridge, way);
	if (route == ROUTE_NONE || way->ifindex != bridge)
		return 0;
	if (route == ROUTE_UNKNOWN)
		way->ifindex = 0;
	return 1;
}

/* Before a packet of a BRIDGED flow goes on. */
INLINE void take_bridged_way(context *ctx, const struct packet *packet, const struct flow_ref *ref,
			     const addr *backend, int tick)
{
	struct way *way = way_of(ref->set, ref->slot);

	if (!way)
		return;
	if (UNLIKELY(tick || !way->ifindex)) {
		struct way found = {};

		if (!find_bridged_way(ctx, &packet->source, backend, packet->protocol, &found))
			found.ifindex = 0;
		found.backend_id = way->backend_id;
		*way = found;
	}
	if (way->ifindex) {
		struct ethhdr *ethernet = (void *)(long)ctx->data;

		if ((void *)(ethernet + 1) <= (void *)(long)ctx->data_end)
			__builtin_memcpy(ethernet->h_dest, way->destination_mac, ETH_ALEN);
	}
}

INLINE void set_macs(context *ctx, const __u8 *destination, const __u8 *source)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	if (!LINK_HEADER_BYTES || (void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return;
	__builtin_memcpy(ethernet->h_dest, destination, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, source, ETH_ALEN);
}

/* One hop older. Returns 0 if it must not live on. */
INLINE int pass_hop(context *ctx)
{
	void *header = (void *)(long)ctx->data + LINK_HEADER_BYTES;
	void *data_end = (void *)(long)ctx->data_end;
#if FAMILY == 4
	struct iphdr *ip = header;

	if ((void *)(ip + 1) > data_end || ip->ttl <= 1)
		return 0;

	__u32 check = ip->check + htons16(0x0100);

	ip->check = check + (check >= 0xffff); /* RFC 1141, as the kernel does it */
	ip->ttl--;
#else
	struct ipv6hdr *ip = header;

	if ((void *)(ip + 1) > data_end || ip->hop_limit <= 1)
		return 0;
	ip->hop_limit--;
#endif
	return 1;
}

/*
 * The way towards `destination` that is kept beside the flow, asked for anew where it is time to.
 * Nothing else is changed: the packet may still go elsewhere.
 * Returns where, for take_way() and send_by(); 0 where there is no way.
 */
INLINE __u32 flow_way(context *ctx, const struct flow_ref *ref, const struct packet *packet,
		      const addr *source, const addr *destination, int tick)
{
	struct way *place = way_of(ref->set, ref->slot);

	if (!place)
		return 0;
	if (UNLIKELY(tick || !place->ifindex)) {
		struct way found = {};
		int route = find_way(ctx, source, destination, packet->protocol, ctx_interface(ctx),
				     &found);

		if (route == ROUTE_NONE)
			return 0;
		if (route == ROUTE_UNKNOWN) {
			place->ifindex = 0;
			return found.ifindex | SEND_NEIGHBOUR;
		}
		found.backend_id = place->backend_id;
		*place = found;
	}
	return place->ifindex;
}

/* Gives the packet the link header for the way that flow_way() found. */
INLINE void take_way(context *ctx, const struct flow_ref *ref, __u32 where)
{
	struct way *way = way_of(ref->set, ref->slot);

	if (way && !(where & SEND_NEIGHBOUR)) /* else the kernel makes it */
		set_macs(ctx, way->destination_mac, way->source_mac);
}
