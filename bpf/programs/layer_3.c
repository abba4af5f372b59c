// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause)
/*
 * The programs of uplinks and tunnels whose packets have no link header (WireGuard, IP-in-IP, tun):
 * those of other uplinks, compiled once more per family, with -DLINK_HEADER_BYTES=0.
 */
#include "ground/base.h"
#include "ground/layout.h"
#include "ground/reason.h"
#include "ground/maps.h"
#include "programs/declare.h"
#include "ground/event.h"

#include "path/interfaces.h"
#include "answers/icmp_error.h"
#include "path/new_flow.h"
#include "answers/reject.h"
#include "packet/sctp.h"

TC_PROGRAM(l3_ingress)
{
	return ctx_is_of_family(skb) ? from_client(skb, HOOK_FROM_OUTSIDE) : NEXT;
}

TC_PROGRAM(l3_egress)
{
	return ctx_is_of_family(skb) ? to_client(skb, HOOK_TO_OUTSIDE) : NEXT;
}

/* Behind tail calls: see enum slow_path */

TC_CALL(CALLS_OF_OUTSIDE + CALL_NEW_FLOW, l3_new_flow)
{
	return new_flow(skb, HOOK_FROM_OUTSIDE);
}

TC_CALL(CALLS_OF_OUTSIDE + CALL_NEW_SNAT_FLOW, l3_new_snat)
{
	return new_snat_flow(skb, HOOK_FROM_OUTSIDE);
}

TC_CALL(CALLS_OF_OUTSIDE + CALL_TRANSLATE, l3_first)
{
	return translate_first(skb, HOOK_FROM_OUTSIDE);
}

TC_CALL(CALLS_OF_OUTSIDE + CALL_REPLY, l3_reply)
{
	return reply_from_client(skb, HOOK_FROM_OUTSIDE);
}

TC_CALL(CALLS_OF_OUTSIDE + CALL_SECOND_SIGNPOST, l3_second)
{
	return second_signpost(skb, HOOK_FROM_OUTSIDE);
}

TC_CALL(CALLS_OF_OUTSIDE + CALL_DIRECT, l3_direct)
{
	return goes_directly(skb, HOOK_FROM_OUTSIDE);
}

TC_CALL(CALL_OUTSIDE_LEAVES, l3_leaves)
{
	return leaves(skb, HOOK_TO_OUTSIDE);
}

TC_CALL(CALL_FROM_NODE, l3_node)
{
	return from_node(skb);
}

TC_CALL(CALLS_OF_NODE + CALL_NEW_FLOW, l3_node_flow)
{
	return new_flow(skb, HOOK_FROM_NODE);
}

TC_CALL(CALLS_OF_NODE + CALL_NEW_SNAT_FLOW, l3_node_snat)
{
	return new_snat_flow(skb, HOOK_FROM_NODE);
}

TC_CALL(CALLS_OF_NODE + CALL_TRANSLATE, l3_node_first)
{
	return translate_first(skb, HOOK_FROM_NODE);
}

TC_CALL(CALLS_OF_NODE + CALL_REPLY, l3_node_reply)
{
	return reply_from_client(skb, HOOK_FROM_NODE);
}

TC_CALL(CALL_ICMP_ERROR + HOOK_FROM_OUTSIDE, l3_in_err)
{
	return translate_error(skb, HOOK_FROM_OUTSIDE);
}

TC_CALL(CALL_ICMP_ERROR + HOOK_TO_OUTSIDE, l3_out_err)
{
	return translate_error(skb, HOOK_TO_OUTSIDE);
}

TC_CALL(CALL_REJECT, l3_refusal)
{
	return reject(skb);
}

TC_CALL(CALL_CHOOSE, l3_choice)
{
	return choose_for_new_flow(skb);
}

TC_CALL(CALL_DROP, l3_dropped)
{
	return end_packet(skb);
}

TC_CALL(CALL_SCTP, l3_sctp)
{
	return mend_sctp_checksum(skb);
}
