// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause)
/*
 * The programs of uplinks and tunnels whose packets have no link header (WireGuard, IP-in-IP, tun):
 * those of other uplinks, compiled once more per family, with -DLINK_HEADER_BYTES=0.
 */
#include "ground/base.h"
#include "ground/layout.h"
#include "ground/reason.h"
#include "ground/maps.h"
#include "ground/event.h"

#include "path/interfaces.h"
#include "answers/icmp_error.h"
#include "path/new_flow.h"
#include "answers/reject.h"
#include "packet/sctp.h"

int l3_ingress(struct __sk_buff *skb)
{
	return ctx_is_of_family(skb) ? from_client(skb, HOOK_FROM_OUTSIDE) : NEXT;
}

int l3_egress(struct __sk_buff *skb)
{
	return ctx_is_of_family(skb) ? to_client(skb, HOOK_TO_OUTSIDE) : NEXT;
}

/* Behind tail calls: see enum slow_path */

int l3_new_flow(struct __sk_buff *skb)
{
	return new_flow(skb, HOOK_FROM_OUTSIDE);
}

int l3_new_snat(struct __sk_buff *skb)
{
	return new_snat_flow(skb, HOOK_FROM_OUTSIDE);
}

int l3_first(struct __sk_buff *skb)
{
	return translate_first(skb, HOOK_FROM_OUTSIDE);
}

int l3_reply(struct __sk_buff *skb)
{
	return reply_from_client(skb, HOOK_FROM_OUTSIDE);
}

int l3_second(struct __sk_buff *skb)
{
	return second_signpost(skb, HOOK_FROM_OUTSIDE);
}

int l3_direct(struct __sk_buff *skb)
{
	return goes_directly(skb, HOOK_FROM_OUTSIDE);
}

int l3_leaves(struct __sk_buff *skb)
{
	return leaves(skb, HOOK_TO_OUTSIDE);
}

int l3_node(struct __sk_buff *skb)
{
	return from_node(skb);
}

int l3_node_flow(struct __sk_buff *skb)
{
	return new_flow(skb, HOOK_FROM_NODE);
}

int l3_node_snat(struct __sk_buff *skb)
{
	return new_snat_flow(skb, HOOK_FROM_NODE);
}

int l3_node_first(struct __sk_buff *skb)
{
	return translate_first(skb, HOOK_FROM_NODE);
}

int l3_node_reply(struct __sk_buff *skb)
{
	return reply_from_client(skb, HOOK_FROM_NODE);
}

int l3_in_err(struct __sk_buff *skb)
{
	return translate_error(skb, HOOK_FROM_OUTSIDE);
}

int l3_out_err(struct __sk_buff *skb)
{
	return translate_error(skb, HOOK_TO_OUTSIDE);
}

int l3_refusal(struct __sk_buff *skb)
{
	return reject(skb);
}

int l3_dropped(struct __sk_buff *skb)
{
	return end_packet(skb);
}

int l3_sctp(struct __sk_buff *skb)
{
	return mend_sctp_checksum(skb);
}
