/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * Addresses of a ServiceCIDR that no Service has: for a Service that is gone or still to come. They
 * are dropped where packets leave the node, since routers would send them back, again and again.
 *
 * Only there, as kube-proxy drops them only after translation: by then whoever serves an address (us,
 * or another proxy, for Services that are labelled so) has translated it.
 */
#pragma once

#include "tc.h"

INLINE int in_service_network(const addr *address, const struct service_network *network)
{
	__u32 differs = 0;

#pragma unroll
	for (int i = 0; i < ADDRESS_WORDS; i++)
		differs |= (address->word[i] ^ network->prefix.word[i]) & network->mask.word[i];
	return !differs & !!network->mask.word[0];
}

#define SERVICE_NETWORKS (sizeof(struct service_networks) / sizeof(struct service_network))

INLINE int next_but_for_services(context *ctx, const struct packet *packet)
{
	struct service_networks *networks = service_networks_get();
	int found = 0;

	if (!networks)
		return NEXT;
#pragma unroll
	for (int i = 0; i < (int)SERVICE_NETWORKS; i++)
		found |= in_service_network(&packet->destination, &networks->entry[i]);
	return UNLIKELY(found) ? drop(ctx, REASON_NO_SERVICE) : NEXT;
}
