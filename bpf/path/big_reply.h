/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * A reply that is too big for its way back to a masqueraded client. Its sender is told, unless it may
 * be fragmented (IPv4 without DF), which only the kernel can do.
 *
 * The kernel gets it as the client shall see it: with the backend's address its masquerade rules would
 * take the packet for a pod's own. Where it comes in must fit: from an address of this node it is a
 * martian anywhere but on loopback (accept_local), and any other passes a strict reverse-path filter
 * only by the interface that leads there.
 */
#pragma once

#include "path/interfaces.h"

/* The interface by which the stack takes a packet from `source`; 0: by the one that it came by. */
INLINE __u32 take_way_of(context *ctx, const struct packet *packet, const addr *source,
			 const addr *client)
{
	struct way way = {};
	__u32 size = ANY_SIZE;
	int route = find_way(ctx, client, source, packet->protocol, LOOPBACK, &size, &way);

	if (route == ROUTE_NONE)
		return take_loopback(ctx);
	/* not known yet how its frames look: then the filter decides */
	if (route == ROUTE_UNKNOWN || way.ifindex == ctx_interface(ctx))
		return 0;
	set_macs(ctx, way.source_mac, way.destination_mac);
	return way.ifindex | SEND_INWARDS;
}

/* Behind a tail call: see translate_reply(), which has noted the packet. */
INLINE int reply_by_stack(context *ctx)
{
	struct packet packet;
	struct endpoint_change source;
	struct endpoint_change destination = {};
	struct flow_ref ref;

	if (FAMILY == 6) /* no router fragments it */
		return slow_path(ctx, CALL_REJECT);
	if (read_packet(ctx, &packet) != PARSE_OK || !knows_ports(&packet))
		return drop(ctx, REASON_SLOW_PATH);
	/* a process of the node's own knows loopback's MTU only */
	if (!(packet.flags & PACKET_BY_STACK) && !may_be_fragmented(ctx, &packet) &&
	    !(ctx_interface(ctx) == LOOPBACK && let_be_fragmented(ctx, &packet)))
		return slow_path(ctx, CALL_REJECT);
	packet.flags |= PACKET_BY_STACK;
	if (!flow_lookup(&packet, 0, TICK(), &ref) || !(ref.word & FLOW_TURNED) ||
	    !follow_signpost(&packet, &ref, &destination))
		return drop(ctx, REASON_CONTENTION);
	source.address = ref.flow->vip;
	source.port = ref.flow->vip_port;
	source.wanted = 1;

	__u32 where = take_way_of(ctx, &packet, &source.address, &destination.address);

	if (is_fragment(&packet))
		prepare_fragment(ctx, &packet, 0, &packet.destination);
	count_flow_packet(ctx, REASON_REPLY, flow_service_id(ref.word));
	if (rewrite(ctx, &packet, &source, &destination))
		return drop(ctx, REASON_REWRITE_FAILED);
	return send_on(ctx, &packet, &source, &destination, where);
}
