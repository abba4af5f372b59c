/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * Packets of known flows, where they enter the node and where they leave it.
 *
 * What the kernel's stack sees in between is client -> backend and backend -> client, so that filters,
 * connection tracking, path MTU, fragmentation and reverse-path filters act as for any other packet:
 *
 *                     enters                     leaves
 *   client's packet   VIP -> backend             client -> node, where masqueraded
 *   reply             node -> client, likewise   backend -> VIP
 *
 * A PORTED flow's client has its other port from where it enters until its reply leaves. At XDP, for
 * what the node's own sockets send, and past the stack (past_stack.h), nothing is in between: all is done at once.
 */
#pragma once

#include "connections/flow.h"
#include "packet/fragment.h"
#include "packet/rewrite.h"
#include "connections/signpost.h"
#include "services/decide.h"
#include "path/hook.h"
#include "path/past_stack.h"
#include "path/way.h"
#include "path/xdp.h"

/* After a rewrite: the rest of the checksum where that is SCTP's, and off it goes. */
INLINE int send_on(context *ctx, const struct packet *packet, const struct endpoint_change *source,
		   const struct endpoint_change *destination, __u32 where)
{
	__u32 change = sctp_change(packet, source, destination);

	if (UNLIKELY(change)) {
		if (packet->flags & PACKET_FIRST_FRAGMENT)
			return drop(ctx, REASON_SCTP_FRAGMENT);
		ctx_set_note(ctx, NOTE_SCTP_CHANGE, change);
		ctx_set_note(ctx, NOTE_SEND, where);
		return slow_path(ctx, CALL_SCTP);
	}
	return send_by(ctx, where);
}

/* Does all of a flow's translation happen at this hook? */
INLINE int all_at_once(int hook)
{
	return AT_XDP || hook == HOOK_FROM_NODE;
}

/* What becomes of a client's packet's source where it enters. `at_once`: and leaves. Returns 0 where that
 * cannot be. */
INLINE int source_on_entry(const struct flow_ref *ref, int at_once, struct endpoint_change *change)
{
	change->port = ref->flow->snat_port;
	change->address = ref->flow->client;
	change->wanted = (ref->word & FLOW_PORTED) != 0;
	if (!at_once || !flow_source_id(ref->word))
		return 1;
	change->wanted = 1;
	return seen_address(ref, &change->address);
}

/* A packet of a connection that is not ours is noted, so that its entry lives as long as that. */
INLINE int leave_alone(context *ctx, const struct packet *packet, const struct flow_ref *ref,
		       int towards_backend, __u32 now)
{
	if (!AT_XDP) /* where it is seen again */
		flow_touch(ref, flow_segment(ctx, packet, ref, towards_backend), towards_backend,
			   now);
	return NEXT;
}

/*
 * The way of a packet that the node itself sends, once it is translated: `where`. Returns GO_ON, or how
 * the packet ends.
 */
INLINE int choose_way(context *ctx, struct packet *packet, const struct flow_ref *ref,
		      const struct endpoint_change *destination, int tick, __u32 now, int hook,
		      __u32 *where)
{
	int by_loopback = ctx_interface(ctx) == LOOPBACK;

	if (by_loopback)
		use_loopback(now);
	*where = flow_way(ctx, ref, packet, &packet->source, &destination->address, tick);
	if (UNLIKELY(*where >= SEND_TOO_BIG)) {
		if (!by_loopback || !let_be_fragmented(ctx, packet))
			return refuse(ctx, REASON_TOO_BIG, *where & ~SEND_TOO_BIG, hook,
				      flow_service_id(ref->word));
		*where = 0; /* the kernel forwards it, from loopback */
	}
	if (!*where) {
		/* to a process of its own, or to be forwarded */
		*where = take_loopback(ctx);
		use_loopback(now);
		return GO_ON;
	}
	take_way(ctx, ref, *where);
	return GO_ON;
}

/* The flow is there: its packet is translated like all later ones. */
INLINE int translate_by(context *ctx, struct scratch *scratch, const struct flow_ref *ref, int hook)
{
	scratch->flow_word = ref->word;
	scratch->flow_set = ref->set;
	scratch->flow_slot = ref->slot;
	return slow_path(ctx, CALL_TRANSLATE + calls_of(hook));
}

INLINE int translate_later(context *ctx, const struct packet *packet, const struct flow_ref *ref,
			   int hook)
{
	struct scratch *scratch = scratch_get();

	if (!scratch)
		return NEXT;
	scratch->packet = *packet;
	return translate_by(ctx, scratch, ref, hook);
}

/*
 * client -> VIP, where the client's packets come in. `certain`: this is the program behind CALL_TRANSLATE,
 * which sees to what is not done for every packet, and whoever called it has looked whether the flow is
 * still what a new connection would be.
 */
INLINE int translate_flow(context *ctx, struct packet *packet, const struct flow_ref *ref,
			  __u32 now, int hook, int certain)
{
	struct endpoint_change source = {};
	struct endpoint_change destination;
	__u32 service_id = flow_service_id(ref->word);
	__u32 where = 0, segment, state, past = 0;
	int tick = forget(flow_age(ref->word, now) != 0, now);
	int of_xdp = hook == HOOK_FROM_OUTSIDE && flow_of_xdp(ref->word);

	segment = flow_segment(ctx, packet, ref, 1);
	if (UNLIKELY(ref->word & FLOW_KIND_MASK)) {
		if (!AT_XDP) /* where it is seen again */
			flow_touch(ref, segment, 1, now);
		return NEXT;
	}
	/* UDP has no end that could be waited for: a client with a fixed source port is moved on */
	if (!certain && tick && packet->protocol == IPPROTO_UDP &&
	    !(packet->flags & PACKET_LATER_FRAGMENT))
		return call_known_flow(ctx, packet, hook);
	destination.address = ref->flow->backend;
	destination.port = ref->flow->backend_port;
	destination.wanted = 1;
	if (may_pass_stack(hook)) {
		past = past_stack(ctx, ref, way_of(ref->set, ref->slot), packet,
				  &destination.address, tick);
		where = past;
	}
	if (!AT_XDP && !certain && UNLIKELY(of_xdp))
		return translate_later(ctx, packet, ref, hook);
	if ((AT_XDP || certain) && of_xdp) {
		where = way_of_xdp(ctx, ref, packet, &packet->source, &destination.address, tick);
		where = forget(where, now);
		past = forget(where, now);
	}
	if (!source_on_entry(ref, all_at_once(hook) || past, &source))
		return drop_of(ctx, REASON_NO_SNAT_SOURCE, flow_service_id(ref->word));
	if (UNLIKELY(!flow_unchanged(ref)))
		return call_new_flow(ctx, packet, hook);
	/* else it is TC's, and perhaps the node's own, whose packets come by no uplink */
	if (AT_XDP && !(past && finishes_here(ctx, ref, packet, &source, &destination, where)))
		return NEXT;
	state = flow_next_state(ref->word, segment, 1);
	if (UNLIKELY((flow_source_id(ref->word) || source.wanted) &&
		     (tick || state != flow_state(ref->word)))) {
		if (!certain)
			return translate_later(ctx, packet, ref, hook);
		if (!keep_signpost(packet, ref, state, now) && flow_gives_way(ref->word)) {
			/* others took its place: no reply can come, but a new attempt may hear one */
			flow_close(ref);
			return call_new_flow(ctx, packet, hook);
		}
	}
	flow_touch(ref, segment, 1, now);
	if (AT_XDP || past) {
		pass_hop(ctx);
		take_way(ctx, ref, where);
		if (of_xdp)
			ctx_note_translated(ctx);
	} else if (hook == HOOK_FROM_NODE && destination.port == packet->destination_port &&
		   same_address(&destination.address, &packet->destination)) {
		/* only its own port changes: it is on its way already */
	} else if (hook == HOOK_FROM_NODE) {
		int chosen = choose_way(ctx, packet, ref, &destination, tick, now, hook, &where);

		if (chosen != GO_ON)
			return chosen;
		/* what was chosen makes no difference to the verifier any more */
		where = forget(where, now);
		source.wanted = forget(source.wanted, now);
	} else if (LINK_HEADER_BYTES && hook == HOOK_FROM_POD && ref->word & FLOW_BRIDGED) {
		take_bridged_way(ctx, packet, ref, &destination.address, tick);
	}
	if (!AT_XDP && UNLIKELY(is_fragment(packet)))
		prepare_fragment(ctx, packet, source.wanted, &destination.address, !past, now);
	count_flow_packet(ctx, REASON_ESTABLISHED, service_id);
	if ((all_at_once(hook) || past) && flow_source_id(ref->word))
		count_packet(ctx, REASON_MASQUERADED);
	if (rewrite(ctx, packet, &source, &destination))
		return drop(ctx, REASON_REWRITE_FAILED);
	return send_on(ctx, packet, &source, &destination, where);
}

INLINE int translate_to_backend(context *ctx, struct packet *packet, const struct flow_ref *ref,
				__u32 now, int hook)
{
	return translate_flow(ctx, packet, ref, now, hook, 0);
}

/* client -> backend, where it leaves: the backend sees an address of this node. */
INLINE int masquerade(context *ctx, struct packet *packet, const struct flow_ref *ref, __u32 now)
{
	struct endpoint_change source;
	struct endpoint_change destination = {};

	source.port = ref->flow->snat_port;
	source.wanted = 1;
	if (!seen_address(ref, &source.address))
		return drop_of(ctx, REASON_NO_SNAT_SOURCE, flow_service_id(ref->word));
	if (UNLIKELY(!flow_unchanged(ref)))
		return drop_of(ctx, REASON_CONTENTION, flow_service_id(ref->word));
	if (UNLIKELY(is_fragment(packet)))
		prepare_fragment(ctx, packet, 1, &packet->destination, 1, now);
	count_packet(ctx, REASON_MASQUERADED);
	if (rewrite(ctx, packet, &source, &destination))
		return drop(ctx, REASON_REWRITE_FAILED);
	return send_on(ctx, packet, &source, &destination, 0);
}

INLINE int is_entry(int hook)
{
	return hook == HOOK_FROM_POD || hook == HOOK_FROM_OUTSIDE;
}

/* A reply to what the node itself sent: `where` it is received as if it had come from the VIP. */
INLINE int to_node_itself(context *ctx, const struct packet *packet,
			  const struct flow_ref *signpost, const struct endpoint_change *source,
			  const struct endpoint_change *destination, int tick, int hook,
			  __u32 *where)
{
	*where = way_back(ctx, signpost, packet, &source->address, &destination->address, tick);
	if (!*where)
		return drop(ctx, REASON_NO_ROUTE);
	if (is_there(ctx, *where, hook))
		*where = 0;
	else
		take_way_back(ctx, signpost, *where);
	return GO_ON;
}

/*
 * backend -> client, or -> node: where it enters, the client becomes its destination again; where it
 * leaves, the VIP its source.
 */
INLINE int translate_reply(context *ctx, struct packet *packet, struct flow_ref *ref, __u32 now,
			   int hook)
{
	struct endpoint_change source = {};
	struct endpoint_change destination = {};
	struct flow_ref signpost = *ref;
	__u32 where = 0;
	int turned = (ref->word & FLOW_SIGNPOST) != 0;
	int of_node = turned && ref->word & SIGNPOST_OF_NODE;
	int masqueraded = 0;
	__u32 past = 0;

	if (UNLIKELY(ref->word & FLOW_PASS || (turned && ref->word & SIGNPOST_HELD)))
		return leave_alone(ctx, packet, ref, 0, now);
	if (UNLIKELY(turned)) {
		if (!follow_signpost(packet, ref, &destination))
			return NEXT;
		masqueraded = flow_source_id(ref->word) &&
			      !(ref->word & FLOW_PORTED &&
				same_address(&ref->flow->client, &packet->destination));
	}

	int tick = flow_age(ref->word, now) != 0;

	if (may_pass_stack(hook) && !of_node) {
		past = past_stack(ctx, ref, way_back_of(ref->set, ref->slot), packet,
				  turned ? &destination.address : &packet->destination, tick);
		where = past;
	}

	int of_xdp = hook == HOOK_FROM_OUTSIDE && masqueraded && !of_node && flow_of_xdp(ref->word);

	if (of_xdp) {
		source.address = ref->flow->vip;
		where = way_of_xdp(ctx, &signpost, packet, &source.address, &destination.address,
				   tick);
		where = forget(where, now);
		past = forget(where, now);
	}
	/* restored where it leaves (the filter errs about some addresses) */
	if (is_entry(hook) && !masqueraded && !of_node && !past)
		return NEXT;

	int whole = AT_XDP || of_node || !is_entry(hook) || past;

	if (whole) {
		source.address = ref->flow->vip;
		source.port = ref->flow->vip_port;
		source.wanted = 1;
	} else if (ref->word & FLOW_PORTED) {
		destination.port = ref->flow->snat_port;
	}

	__u32 service_id = flow_service_id(ref->word);

	if (UNLIKELY(!flow_unchanged(ref)))
		return NEXT;
	if (AT_XDP &&
	    !(past && finishes_here(ctx, &signpost, packet, &source, &destination, where)))
		return NEXT;

	__u32 segment = flow_segment(ctx, packet, ref, 0);

	if (UNLIKELY(turned))
		flow_mirror(&signpost, flow_next_state(ref->word, segment, 0), now);
	flow_touch(ref, segment, 0, now);
	if (of_xdp && past) {
		pass_hop(ctx);
		take_way(ctx, &signpost, where);
		ctx_note_translated(ctx);
	} else if (past) {
		pass_hop(ctx);
		take_way_at(ctx, way_back_of(ref->set, ref->slot), where);
	} else if (of_node && flow_source_id(ref->word) && hook != HOOK_TO_POD &&
		   hook != HOOK_TO_OUTSIDE) {
		int found = to_node_itself(ctx, packet, &signpost, &source, &destination, tick,
					   hook, &where);

		if (found != GO_ON)
			return found;
	}
	if (!AT_XDP && UNLIKELY(is_fragment(packet)))
		prepare_fragment(ctx, packet, 0, &packet->destination, !past, now);
	if (whole)
		count_flow_packet(ctx, REASON_REPLY, service_id);
	if (masqueraded)
		count_packet(ctx, REASON_MASQUERADED);
	if (rewrite(ctx, packet, &source, &destination))
		return drop(ctx, REASON_REWRITE_FAILED);
	return send_on(ctx, packet, &source, &destination, where);
}
