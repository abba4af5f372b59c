/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * What happens at an interface, in which order. Two kinds of interfaces, two directions:
 *
 * Pods' (the host's side). Ingress: what the pod sends; to one of our addresses it is translated.
 * Egress: what the pod receives; the source of replies is restored.
 *
 * Uplinks and tunnels. Ingress: outside clients to one of our addresses are translated, with SNAT
 * where the backend is on another node, and replies to what was SNATed are sent back to the client.
 * XDP does the latter two before, where it can do so alone (xdp.h).
 * Egress: the source of replies from backends here is restored; and what the node's own sockets send
 * to a frontend past the cgroup hooks (raw sockets, kernel clients, no cgroup v2) is translated.
 *
 * Loopback. Egress: the same, to a frontend that is an address of the node's own; and the source of
 * replies from a backend that is a process of the node's own is restored.
 */
#pragma once

#include "path/own_connections.h"
#include "services/service_network.h"
#include "services/decide.h"
#include "path/translate.h"

/* Does the packet name its flow? A later fragment does if its first one was seen. */
INLINE int knows_ports(struct packet *packet)
{
	return LIKELY(!(packet->flags & PACKET_LATER_FRAGMENT)) || fragment_recall(packet);
}

/*
 * Ingress: to an address of ours, but not towards a backend. It comes back from one, to what was
 * SNATed or to the node itself.
 */
INLINE int back_to_client(context *ctx, struct packet *packet, __u32 now, int hook)
{
	struct flow_ref ref;

	if (flow_lookup(packet, 0, now, &ref))
		return translate_reply(ctx, packet, &ref, now, hook);
	/* a pod's others have come by CALL_NEW_FLOW, which looks for this by itself */
	return hook == HOOK_FROM_POD && !(packet->flags & PACKET_LATER_FRAGMENT) ?
		       NEXT :
		       call_new_flow(ctx, packet, hook);
}

/*
 * An uplink's first call did not come off: with their pins, program arrays lose their content. Services
 * are not served then, but the node must not be cut off: by its own connections, which come this way, an
 * agent learns what it needs to mend that.
 */
INLINE int without_slow_paths(context *ctx)
{
	if (!AT_XDP)
		count_packet(ctx, REASON_SLOW_PATH);
	return NEXT;
}

/* Ingress: a client's packets, or replies that must be sent back. */
INLINE int from_client(context *ctx, int hook)
{
	struct packet packet;
	struct flow_ref ref;
	int parsed = read_packet(ctx, &packet);

	if (UNLIKELY(parsed == PARSE_TRUNCATED || parsed == PARSE_HEADER_CHAIN))
		return unreadable(ctx, parsed);
	if (!may_be_ours(&packet.destination)) {
		if (!AT_XDP && UNLIKELY(packet.flags & PACKET_SYN))
			call_slow_path(ctx, CALL_DIRECT);
		return NEXT;
	}
	if (AT_XDP && !fits_xdp(ctx, &packet, parsed))
		return NEXT;
	if (UNLIKELY(packet.flags & PACKET_ICMP_ERROR))
		return slow_path(ctx, CALL_ICMP_ERROR + hook);
	if (UNLIKELY(parsed == PARSE_OTHER || !knows_ports(&packet))) {
		if (hook == HOOK_FROM_POD)
			return call_new_flow(ctx, &packet, hook);
		try_new_flow(ctx, &packet, hook);
		return without_slow_paths(ctx);
	}

	__u32 now = TICK();

	forget_kind(&packet, now);
	/* rule: CO-10, CO-11 */
	if (LIKELY(flow_lookup(&packet, 1, now, &ref) && !flow_reused(&ref, &packet)))
		return translate_to_backend(ctx, &packet, &ref, now, hook);
	/* half of what XDP sees; at TC rare from pods (hairpins), and too long for an uplink's */
	if (AT_XDP)
		return back_to_client(ctx, &packet, now, hook);
	if (hook == HOOK_FROM_POD && !(packet.flags & PACKET_LATER_FRAGMENT))
		return call_new_flow(ctx, &packet, hook);
	call_slow_path(ctx, CALL_REPLY + calls_of(hook));
	return without_slow_paths(ctx);
}

/*
 * Ingress, behind a tail call: a client opens a connection to what is not an address of ours. It may be the
 * backend of a connection that the same port had by a Service. If that one has ended, it is forgotten:
 * the backend's answers are the new one's. If it has not, the backend cannot tell them apart, and takes
 * the new one's SYN for the old one's: who of the two has gone is found out among themselves (RFC 9293,
 * 3.10.7.4), and the reset that comes of it ends the flow.
 */
INLINE int opens_directly(context *ctx)
{
	struct packet packet;
	struct packet reply;
	struct flow_ref ref;

	if (read_packet(ctx, &packet) != PARSE_OK)
		return NEXT;
	turn_round(&packet, &reply);
	if (flow_lookup(&reply, 0, TICK(), &ref) && !(ref.word & FLOW_TURNED) &&
	    flow_may_be_over(ref.word))
		flow_close(&ref);
	return NEXT;
}

/* Likewise, behind a tail call: what is not towards a backend. */
INLINE int reply_from_client(context *ctx, int hook)
{
	struct packet packet;
	__u32 now = TICK();

	if (read_packet(ctx, &packet) != PARSE_OK || !knows_ports(&packet))
		return NEXT;
	forget_kind(&packet, now);
	return back_to_client(ctx, &packet, now, hook);
}

/* Egress: replies to a client. */
INLINE int to_client(context *ctx, int hook)
{
	struct packet packet;
	struct flow_ref ref;
	int parsed = read_packet(ctx, &packet);

	if (UNLIKELY(parsed == PARSE_TRUNCATED || parsed == PARSE_HEADER_CHAIN))
		return NEXT;
	if (UNLIKELY(packet.flags & PACKET_ICMP_ERROR))
		return slow_path(ctx, CALL_ICMP_ERROR + hook);
	if (UNLIKELY(is_fragment(&packet))) {
		ctx_set_note(ctx, NOTE_HOOK, hook);
		return slow_path(ctx, CALL_FRAGMENT);
	}
	if ((hook == HOOK_TO_OUTSIDE && UNLIKELY(may_be_ours(&packet.destination))) ||
	    UNLIKELY(may_collide(ctx, &packet)))
		return slow_path(ctx, CALL_FROM_NODE);

	__u32 now = TICK();

	forget_kind(&packet, now);
	if (LIKELY(parsed == PARSE_OK) && flow_lookup(&packet, 0, now, &ref))
		return translate_reply(ctx, &packet, &ref, now, hook);
	return hook == HOOK_TO_OUTSIDE ? next_but_for_services(ctx, &packet) : NEXT;
}

/* A fragment that the kernel made of what must be masqueraded: it has its client's address still. */
INLINE int masquerade_fragment(context *ctx, struct packet *packet, const struct fragment *fragment)
{
	struct endpoint_change source;
	struct endpoint_change destination = {};
	struct snat_source *node = snat_source_get(fragment->source_id);

	if (!node)
		return drop(ctx, REASON_NO_SNAT_SOURCE);
	source.address = node->address;
	source.port = fragment->snat_port;
	source.wanted = 1;
	packet->source_port = fragment->source_port;
	packet->destination_port = fragment->destination_port;
	write_fragment_id(ctx, packet, fragment->new_id);
	if (rewrite(ctx, packet, &source, &destination))
		return drop(ctx, REASON_REWRITE_FAILED);
	return send_on(ctx, packet, &source, &destination, 0);
}

/*
 * Egress, behind a tail call: fragments. They are of a reply; or the kernel has made them of what was
 * too big for its way (translate_to_backend()); or they are the node's own.
 */
INLINE int fragment_leaves(context *ctx)
{
	struct packet packet;
	struct flow_ref ref;
	__u32 now = TICK();
	int parsed = read_packet(ctx, &packet);

	if (parsed == PARSE_TRUNCATED || parsed == PARSE_HEADER_CHAIN)
		return NEXT;
	if (parsed == PARSE_OK) {
		if (FAMILY == 4) {
			struct fragment *fragment = fragment_of(&packet);

			if (fragment && fragment->flags & FRAGMENT_MASQUERADE)
				return masquerade_fragment(ctx, &packet, fragment);
		}
		/* a later fragment without its first: whose it is cannot be told */
		if (knows_ports(&packet) && flow_lookup(&packet, 0, now, &ref))
			return translate_reply(ctx, &packet, &ref, now, HOOK_TO_OUTSIDE);
	}
	if (ctx_note(ctx, NOTE_HOOK) != HOOK_TO_OUTSIDE)
		return NEXT;
	if (!may_be_ours(&packet.destination) && !may_collide(ctx, &packet))
		return next_but_for_services(ctx, &packet);
	return slow_path(ctx, CALL_FROM_NODE);
}

/*
 * Egress of loopback. Most of what passes here is nobody's business but the node's: 127.0.0.1 is told
 * by the filter; its own addresses, as long as no flow uses loopback, by what is sent or by the frontends.
 */
INLINE int over_loopback(context *ctx)
{
	struct packet packet;
	struct flow_ref ref;
	int parsed = read_packet(ctx, &packet);

	if (parsed == PARSE_TRUNCATED || parsed == PARSE_HEADER_CHAIN ||
	    !may_be_ours(&packet.destination))
		return NEXT;

	__u32 now = TICK();

	if (loopback_in_use(now)) {
		if (packet.flags & PACKET_ICMP_ERROR)
			return slow_path(ctx, CALL_ICMP_ERROR + HOOK_TO_OUTSIDE);
		if (parsed == PARSE_OK && knows_ports(&packet)) {
			if (flow_lookup(&packet, 1, now, &ref))
				return slow_path(ctx, CALL_FROM_NODE);
			if (flow_lookup(&packet, 0, now, &ref))
				return slow_path(ctx, CALL_REPLY + CALLS_OF_NODE);
		}
	} else if (packet.protocol == IPPROTO_TCP && !(packet.flags & PACKET_SYN)) {
		return NEXT;
	}
	return frontend_of(&packet, CLIENT_NODE) ? call_new_flow(ctx, &packet, HOOK_FROM_NODE) :
						   NEXT;
}

/*
 * Behind a tail call: what the node itself sends to a frontend, or to an address to which something is
 * masqueraded.
 */
INLINE int from_node(context *ctx)
{
	struct packet packet;
	struct flow_ref ref;
	__u32 now = TICK();
	int parsed = read_packet(ctx, &packet);

	if (parsed == PARSE_TRUNCATED || parsed == PARSE_HEADER_CHAIN)
		return unreadable(ctx, parsed);
	if (parsed == PARSE_OK && knows_ports(&packet)) {
		forget_kind(&packet, now);
		if (flow_lookup(&packet, 1, now, &ref) && !flow_reused(&ref, &packet))
			return translate_to_backend(ctx, &packet, &ref, now, HOOK_FROM_NODE);
		/* to a client that only shares its filter bit with an address of ours */
		if (flow_lookup(&packet, 0, now, &ref))
			return slow_path(ctx, CALL_REPLY + CALLS_OF_NODE);
		/* no Service's, and whether its ports are in use has been seen when it began */
		if (packet.protocol == IPPROTO_TCP && !(packet.flags & PACKET_SYN) &&
		    !may_be_ours(&packet.destination))
			return NEXT;
	}
	return call_new_flow(ctx, &packet, HOOK_FROM_NODE);
}
