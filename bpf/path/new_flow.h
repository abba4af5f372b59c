/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * A packet to one of our addresses that belongs to no flow: decide, remember, translate.
 *
 * Runs behind tail calls, each of which finds in `scratch` what is known by then: first the packet;
 * where SNAT is needed, the verdict; in the end the flow, by which the packet is translated like any
 * later one. Whatever does not succeed at once (another CPU was faster, a source port is taken) is
 * tried again by calling the program anew.
 */
#pragma once

#include "services/decide.h"
#include "connections/flow_create.h"
#include "path/other_connections.h"
#include "services/service_network.h"
#include "services/still_serves.h"
#include "path/translate.h"

/*
 * The kernel follows 33 tail calls: so many of them may be spent here. Three may come before the first
 * one of CALL_NEW_FLOW, two behind the last: the established flow, and SCTP's checksum or a refusal.
 */
#define MAX_CALLS 27
/* Ports to masquerade with: Linux' own default range for outgoing connections. */
#define SNAT_PORT_FIRST 32768
#define SNAT_PORTS 28232

/* So many free ones are looked for; then one is as good that a dispensable flow has (flow_create.h). */
#define FREE_PORT_CALLS 12

INLINE int takes_used_ports(context *ctx)
{
	return forget((ctx_note(ctx, NOTE_ATTEMPT) & (ANOTHER_PORT - 1)) > FREE_PORT_CALLS,
		      ctx_interface(ctx));
}

/* `another`: not the client's own, whether that is free or not. */
INLINE __be16 snat_candidate(context *ctx, const struct packet *packet, int another)
{
	return another || ctx_note(ctx, NOTE_ATTEMPT) & ANOTHER_PORT ?
		       htons16(SNAT_PORT_FIRST + bpf_get_prandom_u32() % SNAT_PORTS) :
		       packet->source_port;
}

/* Puts up the signpost for replies to `source`:`port`. `bits`: SIGNPOST_OF_NODE or 0. */
INLINE int create_signpost(const struct packet *packet, const struct verdict *verdict,
			   const addr *source, __be16 port, __u64 bits, int takes_over, __u32 now,
			   struct flow_ref *ref)
{
	struct packet turned;
	struct new_flow new;

	packet_between(&turned, source, port, &packet->source, packet->source_port,
		       packet->protocol);
	new.packet = &turned;
	new.backend = &verdict->address;
	new.backend_port = verdict->port;
	new.snat_port = port;
	new.bits = FLOW_SIGNPOST | bits;
	new.takes_over = takes_over;
	new.way = 0;
	new.way_back = 0;
	new.spared = NO_PLACE;
	return flow_create(&new, FLOW_AT_HOME, now, ref);
}

/* Its first fragment would have told which flow it belongs to. */
INLINE int later_fragment_alone(context *ctx, struct packet *packet)
{
	/* as if for no port: finds what stands for all of a ClusterIP */
	packet->source_port = packet->destination_port = 0;
	return frontend_of(packet, CLIENT_REMOTE) ? drop(ctx, REASON_LATER_FRAGMENT) : NEXT;
}

/*
 * The next attempt, or the next part of this one. `bits`: ANOTHER_PORT, PORTED_ON_ENTRY. The packet
 * ends with `reason` if there have been too many.
 */
INLINE int go_on(context *ctx, __u32 program, __u32 bits, __u32 reason)
{
	__u32 calls = ctx_note(ctx, NOTE_ATTEMPT) | bits;

	if ((calls & (ANOTHER_PORT - 1)) >= MAX_CALLS) {
		struct scratch *scratch = scratch_get();

		return drop_of(ctx, reason, scratch ? scratch->verdict.service_id : 0);
	}
	ctx_set_note(ctx, NOTE_ATTEMPT, calls + 1);
	return slow_path(ctx, program);
}

/* Anything but TRANSLATE ends here; that is GO_ON. */
INLINE int decide_on(context *ctx, struct scratch *scratch, const struct packet *packet, int hook,
		     __u32 now, struct verdict *verdict)
{
	int client = hook == HOOK_FROM_POD  ? CLIENT_POD :
		     hook == HOOK_FROM_NODE ? CLIENT_NODE :
					      CLIENT_REMOTE;
	__u32 chosen = !AT_XDP && ctx_note(ctx, NOTE_ATTEMPT) & CHOSEN ? scratch->chosen : 0;

	switch (decide(packet, client, now, CHOOSE_LATER, chosen, verdict)) {
	case ACTION_TRANSLATE:
		break;
	case ACTION_CHOOSE:
		if (AT_XDP) /* a turn is TC's to take, where the flow surely comes to be */
			return NEXT;
		scratch->asked_by = CALL_NEW_FLOW + calls_of(hook);
		return go_on(ctx, CALL_CHOOSE, 0, REASON_CONTENTION);
	/* rule: CO-17 */
	case ACTION_REJECT:
		return refuse(ctx, verdict->reason, 0, hook, verdict->service_id);
	case ACTION_DROP:
		return drop_of(ctx, verdict->reason, verdict->service_id);
	default:
		return hook == HOOK_FROM_NODE ? next_but_for_services(ctx, packet) : NEXT;
	}
	/* read again from here on: else the verifier follows each kind of verdict by itself */
	BARRIER();
	return GO_ON;
}

/* The source port for masquerading is taken, or has no room. */
/* rule: CO-29 */
INLINE int try_another_port(context *ctx, int hook, __u32 reason)
{
	/* each port has a home of its own; where many are full, it is the table */
	if (reason == REASON_FLOW_TABLE_FULL)
		ctx_set_note(ctx, NOTE_ATTEMPT, ctx_note(ctx, NOTE_ATTEMPT) + MAX_CALLS / 4);
	count_flow_event(FLOW_EVENT_SNAT_RETRY);
	return go_on(ctx, CALL_NEW_SNAT_FLOW + calls_of(hook), ANOTHER_PORT, reason);
}

INLINE void flow_from_verdict(const struct packet *packet, const struct verdict *verdict,
			      struct new_flow *new)
{
	new->packet = packet;
	new->backend = &verdict->address;
	new->backend_port = verdict->port;
	new->snat_port = 0;
	new->bits = (__u64)verdict->service_id << FLOW_SERVICE_SHIFT |
		    (verdict->backend_flags & BACKEND_COUNTED) * (FLOW_COUNTED / BACKEND_COUNTED);
	new->takes_over = 0;
	new->way = 0;
	new->way_back = 0;
	new->spared = NO_PLACE;
}

/* It has come to be as decided. */
INLINE int created_by(context *ctx, struct scratch *scratch, const struct flow_ref *ref, __u32 now,
		      int hook)
{
	decided(&scratch->packet, &scratch->verdict, now);
	count_packet(ctx, REASON_NEW);
	tell_new(ctx, &scratch->verdict);
	count_service(scratch->verdict.service_id, 1, 0, 0);
	return translate_by(ctx, scratch, ref, hook);
}

/*
 * For a new connection to a Service whose backends are not chosen by a hash. Once for each connection: also
 * where CALL_NEW_FLOW must try again, the turn is the one that was taken.
 */
INLINE int choose_for_new_flow(context *ctx)
{
	struct scratch *scratch = scratch_get();

	if (!scratch)
		return drop(ctx, REASON_SLOW_PATH);

	struct verdict *verdict = &scratch->verdict;

	scratch->chosen = choose_backend(&scratch->packet, verdict, 1);
	if (!scratch->chosen)
		return drop_of(ctx, REASON_NO_BACKEND, verdict->service_id);
	return go_on(ctx, scratch->asked_by, CHOSEN, REASON_CONTENTION);
}

INLINE int new_flow(context *ctx, int hook)
{
	struct scratch *scratch = scratch_get();
	struct flow_ref ref;
	struct new_flow new;
	__u32 now = TICK();

	if (!scratch)
		return drop(ctx, REASON_SLOW_PATH);

	struct packet *packet = &scratch->packet;
	struct verdict *verdict = &scratch->verdict;
	struct way *way = &scratch->way;
	int named = has_ports(packet->protocol);

	if (packet->flags & PACKET_LATER_FRAGMENT)
		return later_fragment_alone(ctx, packet);
	/* at the first attempt, whoever called had looked */
	if (ctx_note(ctx, NOTE_ATTEMPT) && named && flow_lookup(packet, FLOW_ASKS, now, &ref)) {
		if (!flow_reused(&ref, packet))
			/* another CPU was faster */
			return translate_by(ctx, scratch, &ref, hook);
		flow_end(ref.flow, ref.word, ref.set, ref.slot);
	}
	if (may_not_open(packet, hook == HOOK_FROM_NODE))
		return NEXT;

	int result = decide_on(ctx, scratch, packet, hook, now, verdict);

	if (result != GO_ON)
		return result;
	if (AT_XDP && (!begins_here(ctx, packet, verdict->port) || !source_fits_xdp(ctx, packet)))
		return NEXT;
	if (verdict->masquerade || hook == HOOK_FROM_NODE)
		return go_on(ctx, CALL_NEW_SNAT_FLOW + calls_of(hook), 0, REASON_CONTENTION);
	if (AT_XDP)
		return NEXT;
	flow_from_verdict(packet, verdict, &new);
	way->ifindex = 0;
	if (hook == HOOK_FROM_POD)
		new.bits |= forget(find_bridged_way(ctx, &packet->source, &verdict->address,
						    packet->protocol, way) ?
					   FLOW_BRIDGED :
					   0,
				   now);
	way->backend_id = verdict->backend_id;
	new.way = way;
	if (may_pass_stack(hook) && !(new.bits &FLOW_BRIDGED)) {
		find_past_ways(ctx, packet, verdict, &scratch->way_back);
		new.way_back = &scratch->way_back;
	}

	int created = flow_create(&new, FLOW_AT_HOME, now, &ref);

	if (created == FLOW_CLASH || created == FLOW_OVERFLOWS)
		/* the client's own port is what clashes */
		return go_on(ctx, CALL_NEW_SNAT_FLOW + calls_of(hook),
			     ANOTHER_PORT | PORTED_ON_ENTRY, REASON_CONTENTION);
	if (created == FLOW_TABLE_FULL)
		return drop_of(ctx, REASON_FLOW_TABLE_FULL, scratch->verdict.service_id);
	if (created != FLOW_CREATED)
		return go_on(ctx, CALL_NEW_FLOW + calls_of(hook), 0, REASON_CONTENTION);
	return created_by(ctx, scratch, &ref, now, hook);
}

/*
 * The number of the address to masquerade with: that of the interface which the packet leaves by.
 * A hairpin leaves by the one it came from. 0: there is no way. `way`: for the flow's; its interface
 * is 0 where not all is known of it, or where the packet is for the node itself.
 */
INLINE __u32 masquerade_source(context *ctx, const struct packet *packet,
			       const struct verdict *verdict, int hook, struct way *way)
{
	__u32 ifindex = ctx_interface(ctx);
	struct interface *interface;

	if (!same_address(&packet->source, &verdict->address)) {
		__u32 size = ANY_SIZE;
		int route = find_way(ctx, &packet->source, &verdict->address, packet->protocol,
				     ifindex, &size, way);

		if (route == ROUTE_NONE) {
			way->ifindex = 0;
			/*
			 * To a process of the node's, which may ask another one of its own by any
			 * address; or nowhere, and the stack says so to the client.
			 */
			return hook == HOOK_FROM_NODE ? NODE_SOURCE_ID : 0;
		}
		ifindex = way->ifindex;
		if (route != ROUTE_NEIGHBOUR || !may_be_kept(ctx, ifindex, size))
			way->ifindex = 0;
	}
	interface = interface_get(ifindex);
	return interface && interface->source_id ? interface->source_id : NODE_SOURCE_ID;
}

/* The client's port must be another one already where its packets enter. */
INLINE int ported_on_entry(context *ctx, const struct packet *packet, const struct verdict *verdict,
			   int hook)
{
	return hook == HOOK_FROM_NODE || ctx_note(ctx, NOTE_ATTEMPT) & PORTED_ON_ENTRY ||
	       /* a hairpin whose both directions would look the same */
	       (packet->source_port == verdict->port &&
		same_address(&packet->source, &verdict->address));
}

/*
 * The backend must see another source: an address of this node where the verdict says masquerade; and
 * another port where the client's own is taken, there or (PORTED) in the stack.
 */
INLINE int new_snat_flow(context *ctx, int hook)
{
	struct scratch *scratch = scratch_get();
	struct flow_ref ref;
	struct flow_ref signpost;
	struct new_flow new;
	addr source;
	__u32 source_id = 0;
	__u32 now = TICK();

	if (!scratch)
		return drop(ctx, REASON_SLOW_PATH);

	struct packet *packet = &scratch->packet;
	struct verdict *verdict = &scratch->verdict;
	struct way *way = &scratch->way;
	int ported = ported_on_entry(ctx, packet, verdict, hook);

	if (AT_XDP && ported)
		return NEXT;
	way->ifindex = 0;
	flow_from_verdict(packet, verdict, &new);
	new.snat_port = forget(snat_candidate(ctx, packet, ported && hook != HOOK_FROM_NODE), now);
	source = packet->source;
	/*
	 * The node's own socket chose its source by the way to the VIP. The backend shall see what it
	 * would have seen, had the socket asked for the backend itself: in a tunnel, and past a strict
	 * reverse-path filter, any other source is a stranger's.
	 */
	if (AT_XDP || hook == HOOK_FROM_NODE || verdict->masquerade) {
		struct snat_source *found;

		source_id = masquerade_source(ctx, packet, verdict, hook, way);
		if (AT_XDP && way->ifindex != ctx_interface(ctx))
			return NEXT;
		found = source_id ? snat_source_get(source_id) : 0;
		if (found && is_zero(&found->address))
			found = 0;
		if (found && !(ported && hook != HOOK_FROM_NODE))
			source = found->address;
		else if (!found && way->ifindex)
			return drop_of(ctx, REASON_NO_SNAT_SOURCE, scratch->verdict.service_id);
		if (!found)
			source_id = 0;
		/* rule: KI-8 */
		/*
		 * To the node itself: not masqueraded, as kube-proxy's rules for packets on their way
		 * out do not see such. Nor need it be, for the reply starts out here.
		 */
		if (found && node_socket_exists(ctx, packet->protocol, &found->address,
						new.snat_port, &verdict->address, verdict->port))
			return try_another_port(ctx, hook, REASON_SNAT_PORTS);
	}
	source_id = forget(source_id, now);
	BARRIER();
	new.bits |= (ported ? FLOW_PORTED : 0) | (AT_XDP ? FLOW_OF_XDP : 0) |
		    (__u64)source_id << FLOW_SOURCE_SHIFT;
	new.bits = forget(new.bits, now);

	int created = create_signpost(packet, verdict, &source, new.snat_port,
				      hook == HOOK_FROM_NODE ? SIGNPOST_OF_NODE : 0,
				      takes_used_ports(ctx), now, &signpost);

	if (created != FLOW_CREATED)
		/* another port has another home */
		return try_another_port(ctx, hook,
					created == FLOW_TABLE_FULL ? REASON_FLOW_TABLE_FULL :
								     REASON_SNAT_PORTS);
	new.spared = flow_place(signpost.set, signpost.slot);
	way->backend_id = verdict->backend_id;
	new.way = way;
	if (may_pass_stack(hook)) {
		find_past_ways(ctx, packet, verdict, &scratch->way_back);
		new.way_back = &scratch->way_back;
	}
	created = flow_create(&new, ported ? FLOW_ANYWHERE : FLOW_AT_HOME, now, &ref);
	if (created != FLOW_CREATED) {
		flow_close(&signpost);
		if (created == FLOW_CLASH || created == FLOW_OVERFLOWS)
			return AT_XDP ? NEXT :
					go_on(ctx, CALL_NEW_SNAT_FLOW + calls_of(hook),
					      ANOTHER_PORT | PORTED_ON_ENTRY, REASON_CONTENTION);
		if (created == FLOW_TABLE_FULL)
			return drop_of(ctx, REASON_FLOW_TABLE_FULL, scratch->verdict.service_id);
		/* from the start: what was contended may stand by now */
		return go_on(ctx,
			     calls_of(hook) + (verdict->backend_id == BACKEND_ITSELF ?
						       CALL_NEW_SNAT_FLOW :
						       CALL_NEW_FLOW),
			     0, REASON_CONTENTION);
	}
	write_signpost(&signpost, &ref);
	if (source_id)
		note_masqueraded(&verdict->address);
	if (hook != HOOK_FROM_NODE && ported && source_id) {
		scratch->flow_word = ref.word;
		scratch->flow_set = ref.set;
		scratch->flow_slot = ref.slot;
		return slow_path(ctx, CALL_SECOND_SIGNPOST + calls_of(hook));
	}
	return created_by(ctx, scratch, &ref, now, hook);
}

/* A flow that is PORTED and masqueraded: by the former it is found in the stack, by the latter where
 * replies enter. */
INLINE int second_signpost(context *ctx, int hook)
{
	struct scratch *scratch = scratch_get();
	struct flow_set *entries = scratch ? flow_set_get(scratch->flow_set) : 0;
	struct snat_source *found;
	struct flow_ref ref;
	struct flow_ref signpost;
	__u32 now = TICK();

	if (!entries)
		return drop(ctx, REASON_SLOW_PATH);
	ref.set = scratch->flow_set;
	ref.slot = scratch->flow_slot & 3;
	ref.word = scratch->flow_word;
	ref.flow = &entries->entry[ref.slot];
	found = snat_source_get(flow_source_id(ref.word));
	if (!found)
		return drop_of(ctx, REASON_NO_SNAT_SOURCE, scratch->verdict.service_id);

	/* a forged source, the node's own: one signpost serves as both */
	if (same_address(&found->address, &scratch->packet.source))
		return created_by(ctx, scratch, &ref, now, hook);

	int created = create_signpost(&scratch->packet, &scratch->verdict, &found->address,
				      ref.flow->snat_port, 0, 0, now, &signpost);

	if (created != FLOW_CREATED) {
		flow_close(&ref);
		return try_another_port(ctx, hook, REASON_SNAT_PORTS);
	}
	write_signpost(&signpost, &ref);
	return created_by(ctx, scratch, &ref, now, hook);
}

/* The first packet of a flow that new_flow() or new_snat_flow() made, or came upon. */
INLINE int translate_first(context *ctx, int hook)
{
	struct scratch *scratch = scratch_get();
	struct flow_set *entries = scratch ? flow_set_get(scratch->flow_set) : 0;
	struct flow_ref ref;

	if (!entries)
		return drop(ctx, REASON_SLOW_PATH);
	ref.set = scratch->flow_set;
	ref.slot = scratch->flow_slot & 3;
	ref.word = scratch->flow_word;
	ref.flow = &entries->entry[ref.slot];
	/* read where it lies: this program has no room on its stack for a copy */
	return translate_flow(ctx, &scratch->packet, &ref, TICK(), hook, 1);
}
