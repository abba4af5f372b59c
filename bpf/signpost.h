/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/* Following the entries that lead a reply to its SNATed flow (flow.h says what they are). */
#pragma once

#include "flow.h"
#include "rewrite.h"

/* A signpost was found: the flow that it stands for, which replaces it in `ref`. */
INLINE int follow_signpost(const struct packet *packet, struct flow_ref *ref,
			   struct endpoint_change *client)
{
	struct packet direct = *packet;

	client->address = ref->flow->vip;
	client->port = ref->flow->vip_port;
	client->wanted = 1;
	if (!flow_unchanged(ref))
		return 0;

	__be16 snat_port = packet->destination_port;
	__u32 first, second;
	__u64 protocol = flow_protocol_bits(packet->protocol);

	direct.destination = client->address;
	direct.destination_port = client->port;
	flow_sets(&direct.destination, direct.destination_port, direct.protocol, &first, &second);
	ref->flow = 0;
#pragma unroll
	for (int choice = 0; choice < 2; choice++) {
		struct flow_set *entries = flow_set_get(choice ? second : first);

		if (!entries)
			return 0;
#pragma unroll
		for (int i = 0; i < 4; i++) {
			struct flow *flow = &entries->entry[i];
			__u64 word = READ_ONCE(flow->word);

			if (!ref->flow && flow_state(word) >= FLOW_LIVE &&
			    (word & (3ULL << FLOW_PROTOCOL_SHIFT | FLOW_SNAT)) ==
				    (protocol | FLOW_SNAT) &&
			    flow->snat_port == snat_port && flow->client_port == client->port &&
			    flow->backend_port == packet->source_port &&
			    same_address(&flow->client, &client->address) &&
			    same_address(&flow->backend, &packet->source)) {
				ref->flow = flow;
				ref->word = word;
				ref->set = choice ? second : first;
				ref->slot = i;
			}
		}
	}
	return ref->flow != 0;
}

/*
 * The client ends an SNATed connection: its signpost must know, since no reply may come any more
 * to tell it, and it would wait for one as long as an open connection may be idle.
 */
INLINE void close_signpost(const struct packet *packet, const struct flow_ref *ref,
			   const struct endpoint_change *source,
			   const struct endpoint_change *destination, __u32 now)
{
	struct packet reply;
	struct flow_ref signpost;

	reply.source = destination->address;
	reply.source_port = destination->port;
	reply.destination = source->address;
	reply.destination_port = source->port;
	reply.protocol = packet->protocol;
	if (flow_lookup(&reply, 0, now, &signpost) && signpost.word & FLOW_TURNED)
		flow_mirror(&signpost, flow_next_state(flow_state(ref->word), packet->flags, 1),
			    now);
}
