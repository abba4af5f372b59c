/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * Straight through the host (hostRouting: bpf): what enters by a pod's interface or an uplink is translated
 * completely there, one hop older, and sent on to where the stack would have sent it, in both directions. A
 * pod of this node gets it by its interface's peer.
 *
 * Whether a flow goes so is settled when it begins, so that the kernel's connection tracking sees all of it
 * or nothing: the ways there and back must be known, and the client's packets come in by the interface by
 * which the stack would answer it (a strict reverse-path filter would take no others). A packet that cannot
 * be finished here (too big for its way, its last hop) is left to the stack, translated as
 * there is the rule.
 *
 * What is sent so leaves by an interface whose egress programs would find it a stranger's: it bears a note.
 */
#pragma once

#include "connections/flow.h"
#include "path/hook.h"
#include "path/way.h"

/* Do packets of such flows enter here? */
INLINE int may_pass_stack(int hook)
{
	return HOST_ROUTING && !AT_XDP && (hook == HOOK_FROM_POD || hook == HOOK_FROM_OUTSIDE);
}

/* The way from one end of a new flow to the other, for packets in by `ifindex`. Returns the interface, or 0. */
INLINE __u32 find_past_way(context *ctx, const addr *from, const addr *to, __u8 protocol,
			   __u32 ifindex, struct way *way)
{
	__u32 size = ANY_SIZE;
	int route = find_way(ctx, from, to, protocol, ifindex, &size, way);
	__u32 found = way->ifindex;

	if (route == ROUTE_NONE || route == ROUTE_TOO_BIG)
		return 0;
	if (route == ROUTE_UNKNOWN)
		way->ifindex = 0; /* the kernel asks for the neighbour, see flow_way() */
	else if (route == ROUTE_LAYER_3)
		way->ifindex |= SEND_NEIGHBOUR;
	else
		way->ifindex |= peer_bit(found);
	return found;
}

/*
 * Settles whether a new flow goes past the stack: then `back` has its way back, and bears its backend's
 * number; else that is 0.
 */
INLINE void find_past_ways(context *ctx, const struct packet *packet, const struct verdict *verdict,
			   struct way *back)
{
	__u32 here = ctx_interface(ctx);
	struct interface *interface = interface_get(here);
	struct way there = {};
	__u32 out;

	__builtin_memset(back, 0, sizeof(*back));
	/* a hairpin comes back by the interface it came from */
	if (same_address(&packet->source, &verdict->address))
		return;
	out = find_past_way(ctx, &packet->source, &verdict->address, packet->protocol, here,
			    &there);
	if (!out)
		return;
	if (interface && interface->bridge)
		here = interface->bridge;
	if (find_past_way(ctx, &verdict->address, &packet->source, packet->protocol, out, back) !=
	    here)
		return;
	back->backend_id = verdict->backend_id;
}

/*
 * Can the packet, which goes to `destination`, be finished here? `place`: the way of its direction, beside
 * its flow. Returns where it goes, as flow_way() does; 0: the stack's.
 */
INLINE __u32 past_stack(context *ctx, const struct flow_ref *ref, struct way *place,
			const struct packet *packet, const addr *destination, int tick)
{
	struct way *back = way_back_of(ref->set, ref->slot);
	__u32 where;

	if (!place || !back || !back->backend_id || !has_hops(ctx) ||
	    follows_by_stack(packet, TICK()))
		return 0;
	where = flow_way_at(ctx, place, packet, &packet->source, destination, tick, 1);
	return where >= SEND_TOO_BIG ? 0 : where;
}

/*
 * The way of a packet whose flow XDP made, at XDP and at TC: what XDP leaves of it (a fragment, a checksum that
 * a device has yet to complete, or all of it, once XDP is switched off) TC sends on past the stack as well.
 * `ref`: the entry beside which the way is kept. Returns where, as flow_way() does; at TC, 0 where the packet
 * must be answered or fragmented, which is the stack's to do, or its datagram's first fragment was.
 */
INLINE __u32 way_of_xdp(context *ctx, const struct flow_ref *ref, const struct packet *packet,
			const addr *source, const addr *destination, int tick)
{
	__u32 where = flow_way(ctx, ref, packet, source, destination, tick);

	if (AT_XDP)
		return where;
	return where < SEND_TOO_BIG && has_hops(ctx) && !follows_by_stack(packet, TICK()) ? where :
											    0;
}
