/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/* Packets of known flows: there to the backend, back to the client. */
#pragma once

#include "connections/flow.h"
#include "packet/fragment.h"
#include "packet/rewrite.h"
#include "connections/signpost.h"
#include "services/still_serves.h"
#include "path/hook.h"
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

/* What the backend sees as source of an SNATed flow: an address of this node, or the client's own. */
INLINE int snat_change(const struct flow_ref *ref, struct endpoint_change *change)
{
	__u32 id = flow_source_id(ref->word);

	change->wanted = 1;
	change->port = ref->flow->snat_port;
	change->address = ref->flow->client;
	if (id) {
		struct snat_source *source = snat_source_get(id);

		if (!source)
			return 0;
		change->address = source->address;
	}
	return 1;
}

/*
 * The way of a packet whose source becomes the node's, or that the node sends: `where`, as flow_way() has
 * said it at XDP. Returns GO_ON, or how the packet ends.
 */
INLINE int choose_way(context *ctx, struct packet *packet, const struct flow_ref *ref,
		      struct endpoint_change *source, const struct endpoint_change *destination,
		      int tick, __u32 now, int hook, __u32 *where)
{
	int from_node = hook == HOOK_FROM_NODE;
	int by_loopback = from_node && ctx_interface(ctx) == LOOPBACK;

	if (by_loopback)
		use_loopback(now);
	if (!AT_XDP && LIKELY(!(packet->flags & PACKET_BY_STACK)))
		*where = flow_way(ctx, ref, packet, &packet->source, &destination->address, tick);
	if (!AT_XDP && UNLIKELY(*where >= SEND_TOO_BIG)) {
		if (by_loopback && let_be_fragmented(ctx, packet))
			*where = 0; /* the kernel forwards it, from loopback */
		else if (from_node || !may_be_fragmented(ctx, packet))
			return refuse(ctx, REASON_TOO_BIG, *where & ~SEND_TOO_BIG, hook,
				      flow_service_id(ref->word));
		else
			packet->flags |= PACKET_BY_STACK;
	}
	if (!AT_XDP && UNLIKELY(packet->flags & PACKET_BY_STACK)) {
		/* from its client, or it would be a martian: see masquerade_fragment() */
		if (!(packet->flags & PACKET_LATER_FRAGMENT))
			note_for_kernel(packet, &destination->address, destination->port,
					flow_source_id(ref->word), source->port);
		source->wanted = 0;
		*where = 0;
		return GO_ON;
	}
	if (from_node && !*where) {
		/* to a process of its own, or to be forwarded */
		*where = take_loopback(ctx);
		use_loopback(now);
		return GO_ON;
	}
	if (!*where)
		return drop(ctx, REASON_NO_ROUTE);
	if (!from_node && !pass_hop(ctx))
		return refuse(ctx, REASON_HOP_LIMIT, HOPS_ENDED, hook, flow_service_id(ref->word));
	take_way(ctx, ref, *where);
	return GO_ON;
}

/* client -> VIP, where the client's packets come in. */
INLINE int translate_to_backend(context *ctx, struct packet *packet, const struct flow_ref *ref,
				__u32 now, int hook)
{
	struct endpoint_change source = {};
	struct endpoint_change destination;
	__u32 service_id = flow_service_id(ref->word);
	__u32 where = 0, segment, state;
	int tick = forget(flow_age(ref->word, now) != 0, now);

	/* UDP has no end that could be waited for: a client with a fixed source port is moved on */
	if (packet->protocol == IPPROTO_UDP && tick && !flow_serves(ref, packet->protocol)) {
		flow_close(ref);
		return call_new_flow(ctx, packet, hook);
	}
	destination.address = ref->flow->backend;
	destination.port = ref->flow->backend_port;
	destination.wanted = 1;
	if (UNLIKELY(ref->word & FLOW_SNAT) && !snat_change(ref, &source))
		return drop_of(ctx, REASON_NO_SNAT_SOURCE, flow_service_id(ref->word));
	if (UNLIKELY(!flow_unchanged(ref)))
		return call_new_flow(ctx, packet, hook);
	if (AT_XDP) {
		if (flow_source_id(ref->word))
			where = flow_way(ctx, ref, packet, &packet->source, &destination.address,
					 tick);
		if (!finishes_here(ctx, packet, &source, &destination, where))
			return NEXT;
	}
	segment = flow_segment(ctx, packet, ref, 1);
	state = flow_next_state(ref->word, segment, 1);
	if (UNLIKELY(source.wanted && (tick || state != flow_state(ref->word))) &&
	    !keep_signpost(packet, ref, &source, &destination, state, now) &&
	    flow_gives_way(ref->word)) {
		/* other flows took its place: no reply can come, but a new attempt may hear one */
		flow_close(ref);
		return call_new_flow(ctx, packet, hook);
	}
	flow_touch(ref, segment, 1, now);
	if (hook == HOOK_FROM_POD && UNLIKELY(source.wanted) &&
	    same_address(&destination.address, &packet->source)) {
		/* hairpin: its source is the node's now */
		swap_macs(ctx);
		where = ctx_interface(ctx);
	} else if (hook == HOOK_FROM_NODE && destination.port == packet->destination_port &&
		   same_address(&destination.address, &packet->destination)) {
		/* only its own port changes: it is on its way already */
	} else if (hook == HOOK_FROM_NODE || flow_source_id(ref->word)) {
		int chosen = choose_way(ctx, packet, ref, &source, &destination, tick, now, hook,
					&where);

		if (chosen != GO_ON)
			return chosen;
		/* what was chosen makes no difference to the verifier any more */
		where = forget(where, now);
		source.wanted = forget(source.wanted, now);
	} else if (LINK_HEADER_BYTES && ref->word & FLOW_BRIDGED) {
		take_bridged_way(ctx, packet, ref, &destination.address, tick);
	}
	if (!AT_XDP && UNLIKELY(is_fragment(packet)))
		prepare_fragment(ctx, packet, source.wanted, &destination.address);
	count_flow_packet(ctx, REASON_ESTABLISHED, service_id);
	if (rewrite(ctx, packet, &source, &destination))
		return drop(ctx, REASON_REWRITE_FAILED);
	return send_on(ctx, packet, &source, &destination, where);
}

/*
 * Is it an answer to an address of the node's own, where packets come in? All others are restored
 * where they go out to their client, and until then the kernel's connection tracking must know them
 * as they are. (The filter errs for some addresses.)
 */
INLINE int answers_node(__u64 word, int hook)
{
	return hook == HOOK_TO_POD || hook == HOOK_TO_OUTSIDE || hook == HOOK_FROM_NODE ||
	       flow_source_id(word);
}

/* backend -> client: the source becomes the VIP again. */
INLINE int translate_reply(context *ctx, struct packet *packet, struct flow_ref *ref, __u32 now,
			   int hook)
{
	struct endpoint_change source;
	struct endpoint_change destination = {};
	struct flow_ref signpost = *ref;
	__u32 where = 0;
	int turned = (ref->word & FLOW_TURNED) != 0;

	if (UNLIKELY(turned) && !follow_signpost(packet, ref, &destination))
		return NEXT;
	if (!answers_node(ref->word, hook))
		return NEXT;
	source.address = ref->flow->vip;
	source.port = ref->flow->vip_port;
	source.wanted = 1;

	__u32 service_id = flow_service_id(ref->word);
	__u32 source_id = flow_source_id(ref->word);
	int tick = flow_age(ref->word, now) != 0;

	if (UNLIKELY(!flow_unchanged(ref)))
		return NEXT;
	if (AT_XDP) {
		if (turned)
			where = way_back(ctx, &signpost, packet, &source.address,
					 &destination.address, tick);
		if (!finishes_here(ctx, packet, &source, &destination, where))
			return NEXT;
	}
	__u32 segment = flow_segment(ctx, packet, ref, 0);

	if (UNLIKELY(turned))
		flow_mirror(&signpost, flow_next_state(ref->word, segment, 0), now);
	flow_touch(ref, segment, 0, now);
	if (hook == HOOK_FROM_POD && same_address(&destination.address, &packet->source)) {
		swap_macs(ctx);
		where = ctx_interface(ctx);
	} else if (hook != HOOK_TO_POD && hook != HOOK_TO_OUTSIDE && turned && source_id) {
		/* from the node's address back to the VIP, which may be the node's as well */
		if (!AT_XDP)
			where = way_back(ctx, &signpost, packet, &source.address,
					 &destination.address, tick);
		if (!where)
			return drop(ctx, REASON_NO_ROUTE);
		if (!AT_XDP && UNLIKELY(where >= SEND_TOO_BIG || packet->flags & PACKET_BY_STACK))
			return answer_by(ctx, CALL_BIG_REPLY, REASON_TOO_BIG, where & ~SEND_TOO_BIG,
					 hook, flow_service_id(ref->word));
		if (!(where & SEND_INWARDS) && !pass_hop(ctx))
			return refuse(ctx, REASON_HOP_LIMIT, HOPS_ENDED, hook,
				      flow_service_id(ref->word));
		if (is_there(ctx, where, hook))
			where = 0;
		else
			take_way_back(ctx, &signpost, where);
	}
	if (!AT_XDP && UNLIKELY(is_fragment(packet)))
		prepare_fragment(ctx, packet, 0, &packet->destination);
	count_flow_packet(ctx, REASON_REPLY, service_id);
	if (rewrite(ctx, packet, &source, &destination))
		return drop(ctx, REASON_REWRITE_FAILED);
	return send_on(ctx, packet, &source, &destination, where);
}
