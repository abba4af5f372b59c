/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/* Whether a flow is still what a new connection would be: asked when there is an occasion, not for every packet. */
#pragma once

#include "connections/signpost.h"
#include "services/decide.h"

/*
 * Does the flow's backend still take new connections, and is who was asked still the same Service's?
 * And has the node still the address that the backend sees?
 */
/* rule: CO-15, CO-16, CO-18 */
INLINE int flow_serves(const struct flow_ref *ref, __u8 protocol)
{
	struct way *way = way_of(ref->set, ref->slot);
	struct backend *backend = way ? backend_get(way->backend_id) : 0;
	struct frontend_key key = {};
	struct frontend *frontend;
	addr seen;

	int same = 0;

	if (!seen_address(ref, &seen))
		return 0;
	if (way && way->backend_id == BACKEND_ITSELF)
		return 1;
	if (backend)
		same = backend->flags & (BACKEND_IN_CLUSTER_SET | BACKEND_IN_LOCAL_SET) &&
		       backend->service_id == flow_service_id(ref->word) &&
		       backend->port == ref->flow->backend_port &&
		       same_address(&backend->address, &ref->flow->backend);
	if (!forget(same, ref->word))
		return 0;
	key.address = ref->flow->vip;
	key.port = ref->flow->vip_port;
	key.protocol = protocol;
	frontend = frontend_get(&key);
	return frontend && frontend->service_id == flow_service_id(ref->word);
}

/*
 * Does a client's packet on the tuple that a flow has begin another one? A SYN does where the flow is
 * over. Where its end was only said by one side, or it has not been confirmed yet, the SYN may be a
 * copy, or forged: then it goes to the backend that the tuple had, as long as that serves. A flow
 * that goes on keeps its tuple.
 */
/* rule: CO-9, CO-11, CO-12 */
INLINE int flow_reused(const struct flow_ref *ref, const struct packet *packet)
{
	if (packet->protocol == IPPROTO_UDP)
		return !(ref->word & FLOW_KIND_MASK) && !flow_serves(ref, packet->protocol);
	if (LIKELY(flow_goes_on(ref, packet)))
		return 0;
	/* left to the stack, and whether there is such a connection nobody has said but this client */
	if (ref->word & FLOW_KIND_MASK)
		return flow_over(ref->word) || flow_state(ref->word) == FLOW_NEW;
	return forget(flow_over(ref->word) || !flow_serves(ref, packet->protocol), ref->word);
}
