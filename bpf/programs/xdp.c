// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause)
/*
 * The programs at XDP, of uplinks only: see xdp.h. Compiled once per family, with -DXDP. There is one
 * place for a program on an interface, so IPv4's is attached, and calls IPv6's.
 */
#include "ground/base.h"
#include "ground/layout.h"
#include "ground/reason.h"
#include "ground/maps.h"
#include "programs/declare.h"
#include "ground/event.h"

#include "path/interfaces.h"
#include "path/new_flow.h"

XDP_PROGRAM(xdp_ingress)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return NEXT;
	if (LIKELY(ethernet->h_proto == htons16(ETHERTYPE)))
		return from_client(ctx, HOOK_FROM_OUTSIDE);
	if (FAMILY == 4 && ethernet->h_proto == htons16(ETH_P_IPV6))
		return slow_path(ctx, CALL_IPV6);
	return NEXT;
}

/* Behind tail calls: see enum slow_path */

XDP_CALL(CALLS_OF_OUTSIDE + CALL_NEW_FLOW, xdp_new_flow)
{
	return new_flow(ctx, HOOK_FROM_OUTSIDE);
}

XDP_CALL(CALLS_OF_OUTSIDE + CALL_NEW_SNAT_FLOW, xdp_new_snat)
{
	return new_snat_flow(ctx, HOOK_FROM_OUTSIDE);
}

XDP_CALL(CALLS_OF_OUTSIDE + CALL_TRANSLATE, xdp_first)
{
	return translate_first(ctx, HOOK_FROM_OUTSIDE);
}

XDP_CALL(CALL_DROP, xdp_dropped)
{
	return end_packet(ctx);
}

/* For measurements: what a run costs by itself. */

XDP_PROGRAM(xdp_empty)
{
	return NEXT;
}
