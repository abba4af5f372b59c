/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * Addresses of a ServiceCIDR that no Service has: for a Service that is gone or still to come. They
 * are dropped where packets leave the node, since routers would send them back, again and again.
 *
 * Only there, as kube-proxy drops them only after translation: by then whoever serves an address (us,
 * or another proxy, for Services that are labelled so) has translated it.
 */
#pragma once

#include "path/hook.h"

#define SERVICE_NETWORKS (sizeof(struct service_networks) / sizeof(struct service_network))

/* Ends, as a rule, at the first word of the first one: all that leaves the node is asked. */
INLINE int in_service_network(const addr *address, const struct service_networks *networks)
{
#pragma unroll
	for (int i = 0; i < (int)SERVICE_NETWORKS; i++) {
		const struct service_network *network = &networks->entry[i];
		__u32 differs = 0;

		if (!network->mask.word[0])
			return 0;
		if ((address->word[0] ^ network->prefix.word[0]) & network->mask.word[0])
			continue;
#pragma unroll
		for (int word = 1; word < ADDRESS_WORDS; word++)
			differs |= (address->word[word] ^ network->prefix.word[word]) &
				   network->mask.word[word];
		if (!differs)
			return 1;
	}
	return 0;
}

/* rule: VE-8 */
INLINE int next_but_for_services(context *ctx, const struct packet *packet)
{
	struct service_networks *networks = service_networks_get();

	if (networks && UNLIKELY(in_service_network(&packet->destination, networks)))
		return drop(ctx, REASON_NO_SERVICE);
	return NEXT;
}
