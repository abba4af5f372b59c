/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/* Following the entries that lead a reply to its SNATed flow (flow.h says what they are). */
#pragma once

#include "connections/flow.h"
#include "packet/rewrite.h"

/* Puts the flow's place on its signpost, and whether replies go inwards (see way_back()). */
INLINE void write_signpost(const struct flow_ref *signpost, const struct flow_ref *flow,
			   __u32 inwards)
{
	struct way *way = way_of(signpost->set, signpost->slot);
	struct way towards = {};

	towards.backend_id = flow_place(flow->set, flow->slot);
	towards.ifindex = inwards;
	if (way)
		*way = towards;
}

/* A signpost was found: the flow that it stands for, which replaces it in `ref`. */
INLINE int follow_signpost(const struct packet *packet, struct flow_ref *ref,
			   struct endpoint_change *client)
{
	struct way *way = way_of(ref->set, ref->slot);
	__u32 place = way ? READ_ONCE(way->backend_id) : 0;
	__u64 protocol = flow_protocol_bits(packet->protocol);

	client->address = ref->flow->vip;
	client->port = ref->flow->vip_port;
	client->wanted = 1;
	if (!flow_unchanged(ref))
		return 0;

	struct flow_set *entries = flow_set_get(place >> 2);

	if (!entries)
		return 0;
	ref->flow = &entries->entry[place & 3];
	ref->word = READ_ONCE(ref->flow->word);
	ref->set = place >> 2;
	ref->slot = place & 3;
	/* or was the place given to another since? */
	return flow_state(ref->word) >= FLOW_LIVE &&
	       (ref->word & (3ULL << FLOW_PROTOCOL_SHIFT | FLOW_SNAT | FLOW_TURNED)) ==
		       (protocol | FLOW_SNAT) &&
	       ref->flow->snat_port == packet->destination_port &&
	       ref->flow->client_port == client->port &&
	       ref->flow->backend_port == packet->source_port &&
	       same_address(&ref->flow->client, &client->address) &&
	       same_address(&ref->flow->backend, &packet->source);
}

/*
 * A packet towards the backend of an SNATed flow, whose signpost must know: that time passes, since
 * replies may be rare; and the flow's state, since no reply may come any more to tell it. Returns 0 if
 * the flow has no signpost any more: another has its place, and perhaps its port.
 */
INLINE int keep_signpost(const struct packet *packet, const struct flow_ref *ref,
			 const struct endpoint_change *source,
			 const struct endpoint_change *destination, __u32 state, __u32 now)
{
	struct packet reply;
	struct flow_ref signpost;
	struct way *way;

	packet_between(&reply, &destination->address, destination->port, &source->address,
		       source->port, packet->protocol);
	if (!flow_lookup(&reply, 0, now, &signpost) || !(signpost.word & FLOW_TURNED))
		return 0;
	way = way_of(signpost.set, signpost.slot);
	if (!way || READ_ONCE(way->backend_id) != flow_place(ref->set, ref->slot))
		return 0;
	flow_mirror(&signpost, state, now);
	return 1;
}
