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
 * At XDP there is no stack: the packet is sent out as the kernel's routing table says, one hop older.
 *
 * What the node itself has sent has been through the stack already, by the way to the VIP. It is sent by
 * the way to the backend.
 *
 * An answer to the node itself: a strict reverse-path filter takes it only by the interface from which
 * the node would ask, wherever the answer came from. If it asks one of its own addresses, that is
 * loopback, where the agent has such packets accepted (accept_local).
 *
 * Ways are kept beside their flow and asked for anew when a tick begins: routes and neighbours change.
 *
 * A device without link header (WireGuard, IP-in-IP, tun) has no neighbours. What goes there is left to
 * the kernel as where the neighbour is unknown: a tunnel of many ends (Calico's tunl0) takes the other
 * end from the route, which only the kernel can attach to the packet.
 *
 * What the node sends and is too big for its way must be answered: the device would drop it silently, and
 * the sender never learn the path's MTU. (Redirected packets are not looked at by the stack.)
 */
#pragma once

#include "connections/flow.h"

enum route {
	ROUTE_NONE,    /* none; with 0 for its interface: to the node itself, or nobody knows one */
	ROUTE_UNKNOWN, /* out by way->ifindex; the neighbour is not known yet */
	ROUTE_NEIGHBOUR, /* all known */
	ROUTE_TOO_BIG,	 /* the way takes no packet of this size */
	ROUTE_LAYER_3,	 /* out by way->ifindex, which has no neighbours */
};

/* Every link takes this much (RFC 791, RFC 8200), as far as it pays to know. */
#define ANY_LINK_BYTES (FAMILY == 4 ? 576 : 1280)
/* To find_way(): do not ask for the size. */
#define ANY_SIZE 1

INLINE int same_mac(const __u8 *a, const __u8 *b)
{
	__u8 differs = 0;

#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		differs |= a[i] ^ b[i];
	return !differs;
}

/*
 * Asks the kernel for the way from `source` to `destination`, as for a packet in by `ifindex`.
 * `size`: in, how many bytes are to be sent; out, how many the way takes, if there is one.
 */
INLINE int find_way(context *ctx, const addr *source, const addr *destination, __u8 protocol,
		    __u32 ifindex, __u32 *size, struct way *way)
{
	struct bpf_fib_lookup fib = {};
	/* at XDP the kernel does not know it by itself */
	__u32 bytes = AT_XDP ? ctx_bytes(ctx) : *size;

	fib.family = ADDRESS_FAMILY;
	fib.l4_protocol = protocol;
	fib.ifindex = ifindex;
	fib.tot_len = bytes > 0xffff ? 0xffff : bytes;
#if FAMILY == 4
	fib.ipv4_src = source->word[0];
	fib.ipv4_dst = destination->word[0];
#else
	__builtin_memcpy(fib.ipv6_src, source, sizeof(addr));
	__builtin_memcpy(fib.ipv6_dst, destination, sizeof(addr));
#endif
	int result = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);

	way->ifindex = result == BPF_FIB_LKUP_RET_NOT_FWDED ? 0 : fib.ifindex;
	*size = fib.mtu_result;
	if (result == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return ROUTE_TOO_BIG;
	if (result == BPF_FIB_LKUP_RET_NO_NEIGH)
		return ROUTE_UNKNOWN;
	if (result != BPF_FIB_LKUP_RET_SUCCESS)
		return ROUTE_NONE;
	__builtin_memcpy(way->destination_mac, fib.dmac, ETH_ALEN);
	__builtin_memcpy(way->source_mac, fib.smac, ETH_ALEN);
	/* where nobody is asked for it (IFF_NOARP), the kernel has the device's own for everybody's */
	return same_mac(fib.dmac, fib.smac) ? ROUTE_LAYER_3 : ROUTE_NEIGHBOUR;
}

/*
 * Is the backend on the bridge that the packet's interface is a port of? `way` then holds the
 * neighbour; its interface is 0 while that is unknown, or where the answer is no.
 */
INLINE int find_bridged_way(context *ctx, const addr *client, const addr *backend, __u8 protocol,
			    struct way *way)
{
	struct interface *interface = interface_get(ctx_interface(ctx));
	__u32 bridge = interface ? interface->bridge : 0;
	__u32 size = ANY_SIZE;
	int route, bridged;

	if (!LINK_HEADER_BYTES || !bridge)
		return 0;
	route = find_way(ctx, client, backend, protocol, bridge, &size, way);
	bridged = route != ROUTE_NONE && way->ifindex == bridge;
	if (!bridged || route == ROUTE_UNKNOWN)
		way->ifindex = 0;
	return bridged;
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

/* Is there another hop in it? */
INLINE int has_hops(context *ctx)
{
	void *header = (void *)(long)ctx->data + LINK_HEADER_BYTES;
#if FAMILY == 4
	struct iphdr *ip = header;

	return (void *)(ip + 1) <= (void *)(long)ctx->data_end && ip->ttl > 1;
#else
	struct ipv6hdr *ip = header;

	return (void *)(ip + 1) <= (void *)(long)ctx->data_end && ip->hop_limit > 1;
#endif
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
#ifndef XDP
	/* no checksum in this header makes up for it in a device's sum over the packet */
	bpf_csum_update(ctx, (__u16)~htons16(1));
#endif
#endif
	return 1;
}

/* Bytes of the IP packet; of each one, where offloads have joined several. */
INLINE __u32 datagram_bytes(context *ctx, const struct packet *packet)
{
	__u32 segment = ctx_segment_bytes(ctx);
	__u32 l4 = packet->l4_offset & MAX_L4_OFFSET;
	__u32 header = sizeof(struct udphdr);

	if (!segment)
		return ctx_bytes(ctx);
	if (segment == CUT_AS_IT_CAME)
		return ANY_SIZE; /* the largest is not known here; its sender knows the path */
	if (packet->protocol == IPPROTO_TCP) {
		__u8 *tcp = packet_at((void *)(long)ctx->data, l4);

		header = (void *)(tcp + 13) <= (void *)(long)ctx->data_end ? (tcp[12] >> 4) * 4 :
									     sizeof(struct tcphdr);
	}
	return l4 - LINK_HEADER_BYTES + header + segment;
}

/* Bytes that a device takes; 0 if it is not there. */
INLINE __u32 device_mtu(context *ctx, __u32 ifindex)
{
	__u32 mtu = 0;

	return bpf_check_mtu(ctx, ifindex, &mtu, 0, 0) < 0 ? 0 : mtu;
}

/* A route narrower than its device is asked for each packet. `size`: what the way takes. */
INLINE int may_be_kept(context *ctx, __u32 ifindex, __u32 size)
{
	return LIKELY(size >= device_mtu(ctx, ifindex));
}

/* SEND_PEER, if packets to be sent by this interface may be handed to its peer. */
INLINE __u32 peer_bit(__u32 ifindex)
{
	struct interface *interface = LINK_HEADER_BYTES ? interface_get(ifindex) : 0;

	return interface && interface->flags & INTERFACE_PEER ? SEND_PEER : 0;
}

/*
 * The way towards `destination` that is kept at `place`, asked for anew where it is time to.
 * Nothing else is changed: the packet may still go elsewhere. `enters`: it is on its way in, from where
 * the kernel hands packets to peers.
 * Returns where, for take_way() and send_by(); 0 where there is no way; SEND_TOO_BIG and the MTU where
 * the packet does not fit.
 */
INLINE __u32 flow_way_at(context *ctx, struct way *place, const struct packet *packet,
			 const addr *source, const addr *destination, int tick, int enters)
{
	int big = ctx_bytes(ctx) > ANY_LINK_BYTES;
	__u32 size = UNLIKELY(big) ? datagram_bytes(ctx, packet) : ANY_SIZE;

	if (!place)
		return 0;
	if (UNLIKELY(tick || !place->ifindex)) {
		struct way found = {};
		int route = find_way(ctx, source, destination, packet->protocol, ctx_interface(ctx),
				     &size, &found);

		if (route == ROUTE_NONE)
			return 0;
		if (route == ROUTE_TOO_BIG)
			return SEND_TOO_BIG | size;
		if (route == ROUTE_UNKNOWN) {
			place->ifindex = 0;
			return found.ifindex | SEND_NEIGHBOUR;
		}

		int kept = may_be_kept(ctx, found.ifindex, size);

		if (route == ROUTE_LAYER_3)
			found.ifindex |= SEND_NEIGHBOUR;
		else if (enters)
			found.ifindex |= peer_bit(found.ifindex);
		found.backend_id = place->backend_id;
		*place = found;
		if (!kept)
			place->ifindex = 0;
		return found.ifindex;
	}
	if (big) {
		__u32 mtu = device_mtu(ctx, place->ifindex & SEND_IFINDEX);

		if (UNLIKELY(mtu && size > mtu))
			return SEND_TOO_BIG | mtu;
	}
	return place->ifindex;
}

/* The way beside the flow, towards what its entry leads to. */
INLINE __u32 flow_way(context *ctx, const struct flow_ref *ref, const struct packet *packet,
		      const addr *source, const addr *destination, int tick)
{
	return flow_way_at(ctx, way_of(ref->set, ref->slot), packet, source, destination, tick, 0);
}

/* Gives the packet the link header for the way that was found at `way`. */
INLINE void take_way_at(context *ctx, const struct way *way, __u32 where)
{
	if (way && !(where & SEND_NEIGHBOUR)) /* else the kernel makes it */
		set_macs(ctx, way->destination_mac, way->source_mac);
}

INLINE void take_way(context *ctx, const struct flow_ref *ref, __u32 where)
{
	take_way_at(ctx, way_of(ref->set, ref->slot), where);
}

/*
 * The way of a reply from `vip` to the node itself, by the signpost that led to it, which keeps the way
 * that the node would take to the VIP: by that it is to be received.
 * Returns where, for take_way_back() and send_by(); 0 where there is no way, or none yet.
 */
INLINE __u32 way_back(context *ctx, const struct flow_ref *signpost, const struct packet *packet,
		      const addr *vip, const addr *client, int tick)
{
	struct way *place = way_of(signpost->set, signpost->slot);

	if (!place)
		return 0;
	if (UNLIKELY(tick || !place->ifindex)) {
		struct way found = {};
		__u32 size = ANY_SIZE;
		int route = find_way(ctx, client, vip, packet->protocol, LOOPBACK, &size, &found);

		if (route == ROUTE_UNKNOWN)
			return 0;
		if (route == ROUTE_NONE) /* an address of its own */
			found.ifindex = LOOPBACK;
		found.ifindex |= SEND_INWARDS;
		found.backend_id = place->backend_id;
		*place = found;
	}
	return place->ifindex;
}

/* Has the packet arrived, where way_back() says that it is to be received? */
INLINE int is_there(context *ctx, __u32 where, int hook)
{
	return (hook == HOOK_FROM_OUTSIDE || hook == HOOK_FROM_POD) &&
	       where == (ctx_interface(ctx) | SEND_INWARDS);
}

/* Gives the packet the link header for the way that way_back() found. */
INLINE void take_way_back(context *ctx, const struct flow_ref *signpost, __u32 where)
{
	struct way *way = way_of(signpost->set, signpost->slot);

	if (way)
		set_macs(ctx, way->source_mac, way->destination_mac);
}

/*
 * May any flow be on its way by loopback? Few nodes ever have such flows, and all have much else there:
 * a look at one word spares the look-ups.
 */
INLINE int loopback_in_use(__u32 now)
{
	__u32 *used = loopback_used_get();
	__u32 age = used ? now - READ_ONCE(*used) : 0;

	return age <= TIMEOUT_TCP_ESTABLISHED || age <= TIMEOUT_UDP || age <= TIMEOUT_SCTP;
}

INLINE void use_loopback(__u32 now)
{
	__u32 *used = loopback_used_get();

	if (used && READ_ONCE(*used) != now)
		WRITE_ONCE(*used, now);
}

/* Prepares a packet for being received by loopback. Returns that, for send_by(). */
INLINE __u32 take_loopback(context *ctx)
{
	const __u8 none[ETH_ALEN] = {};

	set_macs(ctx, none, none);
	return LOOPBACK | SEND_INWARDS;
}
