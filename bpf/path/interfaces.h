/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * What happens at an interface, in which order. Two kinds of interfaces, two directions:
 *
 * Pods' (the host's side). Ingress: what the pod sends; to one of our addresses it is translated.
 * Egress: what the pod receives; the source of replies is restored, and hairpins are masqueraded.
 *
 * Uplinks and tunnels. Ingress: outside clients to one of our addresses are translated, and replies to
 * what was masqueraded get their client back. XDP does all of it before, where it can do so alone (xdp.h).
 * Egress: what goes to a backend on another node is masqueraded where it must be; the source of replies
 * is restored; and what the node's own sockets send to a frontend past the cgroup hooks (raw sockets,
 * kernel clients, no cgroup v2) is translated.
 *
 * Loopback. Egress: the same, to a frontend that is an address of the node's own; and the source of
 * replies from a backend that is a process of the node's own is restored.
 */
#pragma once

#include "path/other_connections.h"
#include "services/service_network.h"
#include "services/decide.h"
#include "path/translate.h"

/* Does the packet name its flow? A later fragment does if its first one was seen. */
INLINE int knows_ports(struct packet *packet, __u32 now)
{
	return LIKELY(!(packet->flags & PACKET_LATER_FRAGMENT)) || fragment_recall(packet, now);
}

/*
 * Is the frame for another host, or for a group? Pods' interfaces may be a bridge's ports, where frames
 * carry the MAC address of the bridge: there only groups can be told. (linux/if_packet.h)
 */
#define PACKET_HOST 0
#define PACKET_OTHERHOST 3

/* rule: CO-22 */
INLINE int is_for_others(context *ctx, int hook)
{
#ifdef XDP
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	/* a group; for another host, see finishes_here() and frame_is_for_us() */
	return (void *)(ethernet + 1) > (void *)(long)ctx->data_end || ethernet->h_dest[0] & 1;
#else
	if (LIKELY(ctx->pkt_type == PACKET_HOST))
		return 0;
	if (ctx->pkt_type != PACKET_OTHERHOST)
		return 1;
#if LINK_HEADER_BYTES
	return hook == HOOK_FROM_OUTSIDE && !frame_is_for_us(ctx);
#else
	return 0;
#endif
#endif
}

/*
 * In mid-connection, and of no known flow: may it be taken over? At a frontend with consistent hashing,
 * another node may have had the connection before; but not while that is new, for then it may as well be
 * the stack's. What is left to the stack there is known from then on, and stays with it.
 */
/* rule: CO-2 */
INLINE int may_be_taken_over(context *ctx, const struct packet *packet, int hook)
{
	struct frontend *frontend;

	if (hook != HOOK_FROM_OUTSIDE || packet->flags & PACKET_RST)
		return 0;
	frontend = exact_frontend(&packet->destination, packet->destination_port, packet->protocol);
	if (!frontend)
		return 0;
	if (!AT_XDP && UNLIKELY(frontend->flags & FRONTEND_YOUNG))
		call_slow_path(ctx, CALL_DIRECT + calls_of(hook));
	return frontend->flags & FRONTEND_CONSISTENT;
}

/*
 * Ingress: to an address of ours, and of no known flow. It comes back from a backend, to what was
 * masqueraded or to the node itself; or it opens a connection. All else is the stack's: a connection
 * older than its Service, another proxy's, an answer to somebody's own.
 */
/* rule: CO-1 */
INLINE int back_to_client(context *ctx, struct packet *packet, __u32 now, int hook)
{
	struct flow_ref ref;

	if (flow_lookup(packet, FLOW_ANSWERS, now, &ref))
		return translate_reply(ctx, packet, &ref, now, hook);
	if (may_pass_stack(hook) && !may_be_ours(&packet->destination)) {
		if (may_go_direct(packet))
			call_slow_path(ctx, CALL_DIRECT + calls_of(hook));
		return NEXT;
	}
	if (!opens(packet) && !(packet->flags & PACKET_LATER_FRAGMENT) &&
	    !may_be_taken_over(ctx, packet, hook))
		return NEXT;
	return call_new_flow(ctx, packet, hook);
}

/*
 * The first call did not come off: with their pins, program arrays lose their content. Services
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
	int parsed;

	if (HOST_ROUTING && !AT_XDP)
		ctx_was_translated(
			ctx); /* on another machine, or by another one in this one's namespaces */
	if (UNLIKELY(is_for_others(ctx, hook)))
		return NEXT;
	parsed = read_packet(ctx, &packet);
	if (UNLIKELY(parsed == PARSE_TRUNCATED || parsed == PARSE_HEADER_CHAIN))
		return unreadable(ctx, parsed);
	if (!may_be_ours(&packet.destination)) {
		if (may_pass_stack(hook) && parsed == PARSE_OK && has_ports(packet.protocol) &&
		    (packet.flags & PACKET_LATER_FRAGMENT || flow_may_be_reply(&packet)))
			call_slow_path(ctx, CALL_REPLY + calls_of(hook));
		if (!AT_XDP && UNLIKELY(may_go_direct(&packet)))
			call_slow_path(ctx, CALL_DIRECT + calls_of(hook));
		return NEXT;
	}
	if (AT_XDP && !fits_xdp(ctx, &packet, parsed))
		return NEXT;
	if (UNLIKELY(packet.flags & PACKET_ICMP_ERROR))
		return slow_path(ctx, CALL_ICMP_ERROR + hook);

	__u32 now = TICK();

	if (UNLIKELY(parsed == PARSE_OTHER || !knows_ports(&packet, now))) {
		if (hook == HOOK_FROM_POD)
			return call_new_flow(ctx, &packet, hook);
		try_new_flow(ctx, &packet, hook);
		return without_slow_paths(ctx);
	}
	forget_kind(&packet, now);
	/* rule: CO-10, CO-11 */
	if (LIKELY(flow_lookup(&packet, FLOW_ASKS, now, &ref)))
		return LIKELY(flow_goes_on(&ref, &packet)) ?
			       translate_to_backend(ctx, &packet, &ref, now, hook) :
			       call_known_flow(ctx, &packet, hook);
	/* half of what XDP sees; at TC few, and too long for every packet's program */
	if (AT_XDP)
		return back_to_client(ctx, &packet, now, hook);
	call_slow_path(ctx, CALL_REPLY + calls_of(hook));
	return without_slow_paths(ctx);
}

/*
 * Ingress, behind a tail call: a client goes to a backend past the Service. If it has a connection to
 * that backend by the Service from the same port, and both live, the backend must see two ports. Or to the
 * Service itself, and is left to the stack (may_be_taken_over()).
 */
/* rule: CO-5 */
INLINE int goes_directly(context *ctx, int hook)
{
	struct scratch *scratch = scratch_get();
	struct packet packet;
	struct packet reply;
	struct flow_ref ref;
	__u32 now = TICK();

	if (!scratch || read_packet(ctx, &packet) != PARSE_OK)
		return NEXT;
	forget_kind(&packet, now);
	if (flow_lookup(&packet, FLOW_ASKS, now, &ref) && !flow_over(ref.word)) {
		if (ref.word & FLOW_PORTED)
			use_direct(now);
		return translate_to_backend(ctx, &packet, &ref, now, hook);
	}
	if (!opens(&packet) && !may_be_ours(&packet.destination))
		return NEXT;
	turn_round(&packet, &reply);
	if (flow_lookup(&reply, FLOW_ANSWERS, now, &ref) && !(ref.word & FLOW_KIND_MASK) &&
	    flow_over(ref.word))
		flow_end(ref.flow, ref.word, ref.set, ref.slot); /* that one is over */
	if (create_untranslated(&packet, &packet.destination, packet.destination_port, FLOW_PASS,
				now, &ref) != FLOW_CLASH ||
	    !opens(&packet))
		return NEXT;
	scratch->packet = packet;
	decide_other_port(&packet, &scratch->verdict);
	use_direct(now);
	ctx_set_note(ctx, NOTE_ATTEMPT, ANOTHER_PORT | PORTED_ON_ENTRY);
	call_slow_path(ctx, CALL_NEW_SNAT_FLOW + calls_of(hook));
	return NEXT;
}

/* Likewise, behind a tail call: what is not towards a backend. */
INLINE int reply_from_client(context *ctx, int hook)
{
	struct packet packet;
	__u32 now = TICK();

	if (read_packet(ctx, &packet) != PARSE_OK || !knows_ports(&packet, now))
		return NEXT;
	forget_kind(&packet, now);
	return back_to_client(ctx, &packet, now, hook);
}

/* Egress: replies to a client, and what must be masqueraded. */
INLINE int to_client(context *ctx, int hook)
{
	struct packet packet;
	struct flow_ref ref;
	int parsed;

	if (ctx_was_translated(ctx))
		return NEXT;
	parsed = read_packet(ctx, &packet);
	if (UNLIKELY(parsed == PARSE_TRUNCATED || parsed == PARSE_HEADER_CHAIN))
		return NEXT;
	if (UNLIKELY(packet.flags & PACKET_ICMP_ERROR))
		return slow_path(ctx, CALL_ICMP_ERROR + hook);
	if (UNLIKELY(is_fragment(&packet)) || may_be_masqueraded_to(&packet.destination) ||
	    (hook == HOOK_TO_OUTSIDE && UNLIKELY(may_be_ours(&packet.destination))) ||
	    UNLIKELY(may_be_taken_for_ours(&packet))) {
		call_slow_path(ctx, hook == HOOK_TO_POD ? CALL_POD_LEAVES : CALL_OUTSIDE_LEAVES);
		return without_slow_paths(ctx);
	}

	__u32 now = TICK();

	forget_kind(&packet, now);
	if (LIKELY(parsed == PARSE_OK) && flow_lookup(&packet, FLOW_ANSWERS, now, &ref))
		return translate_reply(ctx, &packet, &ref, now, hook);
	return hook == HOOK_TO_OUTSIDE ? next_but_for_services(ctx, &packet) : NEXT;
}

/* The node's own connection, or another NAT's, needs another port: a masqueraded flow has this one. */
INLINE int move_own(context *ctx, const struct packet *packet)
{
	struct scratch *scratch = scratch_get();

	if (!scratch)
		return NEXT;
	scratch->packet = *packet;
	decide_other_port(packet, &scratch->verdict);
	ctx_set_note(ctx, NOTE_ATTEMPT, ANOTHER_PORT);
	return slow_path(ctx, CALL_NEW_SNAT_FLOW + CALLS_OF_NODE);
}

/*
 * An entry was found by client and backend: what leaves towards the backend. Returns GO_ON where the
 * packet is to be looked at further.
 */
INLINE int leaves_for_backend(context *ctx, struct packet *packet, struct flow_ref *ref, int own,
			      __u32 now)
{
	struct packet reply;
	struct flow_ref signpost = *ref;
	struct endpoint_change client;
	__u64 word = ref->word;

	if (word & FLOW_SIGNPOST) {
		if (word & SIGNPOST_HELD)
			return leave_alone(ctx, packet, ref, 1, now);
		if (word & SIGNPOST_OF_NODE)
			return NEXT;
		turn_round(packet, &reply);
		if (!follow_signpost(&reply, ref, &client))
			return GO_ON;
		if (!same_address(&ref->flow->client, &packet->source))
			return own && opens(packet) ? move_own(ctx, packet) : NEXT;
		/* where its packets enter, only its other signpost is kept */
		flow_mirror(&signpost, flow_state(ref->word), now);
	} else if (word & FLOW_PASS) {
		return GO_ON;
	}
	return flow_source_id(ref->word) ? masquerade(ctx, packet, ref, now) : GO_ON;
}

/*
 * Egress, behind a tail call: fragments; what may have to be masqueraded; what the node itself, or
 * another NAT, sends to a frontend, to a backend, or from a port that is a frontend.
 */
INLINE int leaves(context *ctx, int hook)
{
	struct scratch *scratch = scratch_get();
	/* this program has no room on its stack for it */
	struct packet *packet = scratch ? &scratch->packet : 0;
	struct flow_ref ref;
	__u32 now = TICK();
	int parsed, to_ours, to_service, own, end;

	if (!packet)
		return NEXT;
	parsed = read_packet(ctx, packet);
	to_ours = may_be_ours(&packet->destination);
	to_service = hook == HOOK_TO_OUTSIDE && to_ours;

	if (parsed == PARSE_TRUNCATED || parsed == PARSE_HEADER_CHAIN)
		return to_service ? unreadable(ctx, parsed) : NEXT;
	if (parsed == PARSE_OK && knows_ports(packet, now)) {
		forget_kind(packet, now);
		own = forget(may_be_ours(&packet->source), now);
		if ((own || to_service) && flow_lookup(packet, FLOW_ASKS, now, &ref) &&
		    !(ref.word & FLOW_KIND_MASK) &&
		    (to_service || same_address(&ref.flow->vip, &ref.flow->backend)))
			return slow_path(ctx, CALL_FROM_NODE);
		if (flow_lookup(packet, FLOW_LEAVES, now, &ref)) {
			end = leaves_for_backend(ctx, packet, &ref, own, now);
			if (end != GO_ON)
				return end;
		}
		if (flow_lookup(packet, FLOW_ANSWERS, now, &ref))
			return translate_reply(ctx, packet, &ref, now, hook);
		if (own && !to_ours && !is_fragment(packet))
			note_own(packet, now);
		/* no Service's, unless it opens a connection */
		if (!opens(packet))
			to_service = 0;
	}
	if (to_service)
		return call_new_flow(ctx, packet, HOOK_FROM_NODE);
	return hook == HOOK_TO_OUTSIDE ? next_but_for_services(ctx, packet) : NEXT;
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
		if (parsed == PARSE_OK && knows_ports(&packet, now)) {
			forget_kind(&packet, now);
			if (flow_lookup(&packet, FLOW_ASKS, now, &ref))
				return slow_path(ctx, CALL_FROM_NODE);
			if (flow_lookup(&packet, FLOW_ANSWERS, now, &ref))
				return slow_path(ctx, CALL_REPLY + CALLS_OF_NODE);
		}
	}
	if (has_ports(packet.protocol) && !opens(&packet))
		return NEXT;
	return frontend_of(&packet, CLIENT_NODE) ? call_new_flow(ctx, &packet, HOOK_FROM_NODE) :
						   NEXT;
}

/* Behind a tail call: of a known flow, what the node itself sends. */
INLINE int from_node(context *ctx)
{
	struct packet packet;
	struct flow_ref ref;
	__u32 now = TICK();

	if (read_packet(ctx, &packet) != PARSE_OK || !knows_ports(&packet, now))
		return NEXT;
	forget_kind(&packet, now);
	if (!flow_lookup(&packet, FLOW_ASKS, now, &ref))
		return call_new_flow(ctx, &packet, HOOK_FROM_NODE);
	return flow_goes_on(&ref, &packet) ?
		       translate_to_backend(ctx, &packet, &ref, now, HOOK_FROM_NODE) :
		       call_known_flow(ctx, &packet, HOOK_FROM_NODE);
}
