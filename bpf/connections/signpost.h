/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/* Following the entries that lead a reply to its flow where the backend sees another source (flow.h). */
#pragma once

#include "connections/flow.h"
#include "packet/rewrite.h"

/* In the word, where a flow has its service_id and its source. */
#define SIGNPOST_PLACE_MASK (0xffffULL << FLOW_SERVICE_SHIFT | 0xffULL << FLOW_SOURCE_SHIFT)

INLINE __u32 signpost_place(__u64 word)
{
	return flow_service_id(word) | flow_source_id(word) << 16;
}

/* Its flow was made after it. */
INLINE void write_signpost(const struct flow_ref *signpost, const struct flow_ref *flow)
{
	__u32 place = flow_place(flow->set, flow->slot);
	__u64 bits = (__u64)(place & 0xffff) << FLOW_SERVICE_SHIFT | (__u64)(place >> 16)
									     << FLOW_SOURCE_SHIFT;
	__u64 word = signpost->word;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u64 next = (word & ~SIGNPOST_PLACE_MASK) | bits;
		__u64 seen = __sync_val_compare_and_swap(&signpost->flow->word, word, next);

		if (seen == word || ((seen ^ word) >> FLOW_GENERATION_SHIFT) & FLOW_GENERATION_MASK)
			return;
		word = seen;
	}
}

/*
 * A signpost was found, by packet's destination as its source: the flow that it stands for, which
 * replaces it in `ref`. Not for HELD ones.
 */
INLINE int follow_signpost(const struct packet *packet, struct flow_ref *ref,
			   struct endpoint_change *client)
{
	struct signpost *signpost = (struct signpost *)ref->flow;
	__u32 place = signpost_place(ref->word);
	__u64 protocol = flow_protocol_bits(packet->protocol);

	client->address = signpost->client;
	client->port = signpost->client_port;
	client->wanted = 1;
	if (!flow_unchanged(ref))
		return 0;

	struct flow_set *entries = flow_set_get(place >> 2 & (FLOW_SETS - 1));

	if (!entries)
		return 0;
	ref->flow = &entries->entry[place & 3];
	ref->word = READ_ONCE(ref->flow->word);
	ref->set = place >> 2 & (FLOW_SETS - 1);
	ref->slot = place & 3;
	/* or was the place given to another since? */
	return flow_state(ref->word) >= FLOW_LIVE &&
	       (ref->word & (FLOW_PROTOCOL_MASK | FLOW_KIND_MASK)) == protocol &&
	       ref->flow->snat_port == packet->destination_port &&
	       ref->flow->client_port == client->port &&
	       ref->flow->backend_port == packet->source_port &&
	       same_address(&ref->flow->client, &client->address) &&
	       same_address(&ref->flow->backend, &packet->source);
}

/* The address that the backend sees: one of this node, or the client's own. 0: it is gone. */
INLINE int seen_address(const struct flow_ref *ref, addr *address)
{
	__u32 id = flow_source_id(ref->word);
	struct snat_source *source;

	*address = ref->flow->client;
	if (!id)
		return 1;
	source = snat_source_get(id);
	if (!source || is_zero(&source->address))
		return 0;
	*address = source->address;
	return 1;
}

/*
 * A packet towards the backend of a flow with another source, of which the signpost for that must know:
 * that time passes, since replies may be rare; and the flow's state, since no reply may come any more to
 * tell it. Returns 0 if the flow has no signpost any more: another has its place, and perhaps its port.
 */
INLINE int keep_signpost(const struct packet *packet, const struct flow_ref *ref, __u32 state,
			 __u32 now)
{
	struct packet reply;
	struct flow_ref signpost;

	if (!seen_address(ref, &reply.destination))
		return 0;
	reply.destination_port = ref->flow->snat_port;
	reply.source = ref->flow->backend;
	reply.source_port = ref->flow->backend_port;
	reply.protocol = packet->protocol;
	if (!flow_lookup(&reply, FLOW_ANSWERS, now, &signpost) || !(signpost.word & FLOW_SIGNPOST))
		return 0;
	if (signpost_place(signpost.word) != flow_place(ref->set, ref->slot))
		return 0;
	flow_mirror(&signpost, state, now);
	return 1;
}
