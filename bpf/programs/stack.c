// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause)
/*
 * The programs, one function a hook. Compiled once per family; no policy here.
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
#include "sockets/connect_time.h"
#include "connections/end.h"
#include "services/ask.h"
#include "connections/sweep.h"

/* TC, the host's side of a pod's interface */

TC_PROGRAM(pod_ingress)
{
	return ctx_is_of_family(skb) ? from_client(skb, HOOK_FROM_POD) : NEXT;
}

TC_PROGRAM(pod_egress)
{
	return ctx_is_of_family(skb) ? to_client(skb, HOOK_TO_POD) : NEXT;
}

/* TC, uplinks and tunnel devices */

TC_PROGRAM(uplink_ingress)
{
	return ctx_is_of_family(skb) ? from_client(skb, HOOK_FROM_OUTSIDE) : NEXT;
}

TC_PROGRAM(uplink_egress)
{
	return ctx_is_of_family(skb) ? to_client(skb, HOOK_TO_OUTSIDE) : NEXT;
}

/* TC, loopback */

TC_PROGRAM(loopback_egress)
{
	return ctx_is_of_family(skb) ? over_loopback(skb) : NEXT;
}

/* TC, behind tail calls: see enum slow_path */

TC_CALL(CALLS_OF_POD + CALL_NEW_FLOW, pod_new_flow)
{
	return new_flow(skb, HOOK_FROM_POD);
}

TC_CALL(CALLS_OF_POD + CALL_NEW_SNAT_FLOW, pod_new_snat)
{
	return new_snat_flow(skb, HOOK_FROM_POD);
}

TC_CALL(CALLS_OF_POD + CALL_TRANSLATE, pod_first)
{
	return translate_first(skb, HOOK_FROM_POD);
}

TC_CALL(CALLS_OF_POD + CALL_REPLY, pod_reply)
{
	return reply_from_client(skb, HOOK_FROM_POD);
}

TC_CALL(CALLS_OF_POD + CALL_SECOND_SIGNPOST, pod_second)
{
	return second_signpost(skb, HOOK_FROM_POD);
}

TC_CALL(CALLS_OF_POD + CALL_DIRECT, pod_direct)
{
	return goes_directly(skb, HOOK_FROM_POD);
}

TC_CALL(CALL_POD_LEAVES, pod_leaves)
{
	return leaves(skb, HOOK_TO_POD);
}

TC_CALL(CALLS_OF_OUTSIDE + CALL_NEW_FLOW, uplink_new_flow)
{
	return new_flow(skb, HOOK_FROM_OUTSIDE);
}

TC_CALL(CALLS_OF_OUTSIDE + CALL_NEW_SNAT_FLOW, uplink_new_snat)
{
	return new_snat_flow(skb, HOOK_FROM_OUTSIDE);
}

TC_CALL(CALLS_OF_OUTSIDE + CALL_TRANSLATE, uplink_first)
{
	return translate_first(skb, HOOK_FROM_OUTSIDE);
}

TC_CALL(CALLS_OF_OUTSIDE + CALL_REPLY, uplink_reply)
{
	return reply_from_client(skb, HOOK_FROM_OUTSIDE);
}

TC_CALL(CALLS_OF_OUTSIDE + CALL_SECOND_SIGNPOST, uplink_second)
{
	return second_signpost(skb, HOOK_FROM_OUTSIDE);
}

TC_CALL(CALLS_OF_OUTSIDE + CALL_DIRECT, uplink_direct)
{
	return goes_directly(skb, HOOK_FROM_OUTSIDE);
}

TC_CALL(CALL_OUTSIDE_LEAVES, uplink_leaves)
{
	return leaves(skb, HOOK_TO_OUTSIDE);
}

TC_CALL(CALL_FROM_NODE, node_egress)
{
	return from_node(skb);
}

TC_CALL(CALLS_OF_NODE + CALL_NEW_FLOW, node_new_flow)
{
	return new_flow(skb, HOOK_FROM_NODE);
}

TC_CALL(CALLS_OF_NODE + CALL_NEW_SNAT_FLOW, node_new_snat)
{
	return new_snat_flow(skb, HOOK_FROM_NODE);
}

TC_CALL(CALLS_OF_NODE + CALL_TRANSLATE, node_first)
{
	return translate_first(skb, HOOK_FROM_NODE);
}

TC_CALL(CALLS_OF_NODE + CALL_REPLY, node_reply)
{
	return reply_from_client(skb, HOOK_FROM_NODE);
}

TC_CALL(CALL_ICMP_ERROR + HOOK_FROM_POD, pod_in_err)
{
	return translate_error(skb, HOOK_FROM_POD);
}

TC_CALL(CALL_ICMP_ERROR + HOOK_TO_POD, pod_out_err)
{
	return translate_error(skb, HOOK_TO_POD);
}

TC_CALL(CALL_ICMP_ERROR + HOOK_FROM_OUTSIDE, uplink_in_err)
{
	return translate_error(skb, HOOK_FROM_OUTSIDE);
}

TC_CALL(CALL_ICMP_ERROR + HOOK_TO_OUTSIDE, uplink_out_err)
{
	return translate_error(skb, HOOK_TO_OUTSIDE);
}

TC_CALL(CALL_REJECT, answer_refusal)
{
	return reject(skb);
}

TC_CALL(CALL_DROP, dropped)
{
	return end_packet(skb);
}

TC_CALL(CALL_SCTP, sctp_checksum)
{
	return mend_sctp_checksum(skb);
}

TC_CALL(CALL_CHOOSE, choice)
{
	return choose_for_new_flow(skb);
}

/* For the agent, by test runs: what time the data path has, what a run costs by itself, and sweeping. */

TC_PROGRAM(clock)
{
	return TICK();
}

TC_PROGRAM(empty)
{
	return NEXT;
}

TC_PROGRAM(sweep)
{
	return sweep_set(skb->mark != 0);
}

/* cgroup hooks */

#if FAMILY == 4

SOCKET_PROGRAM(INET4_CONNECT, connect4)
{
	return socket_names_peer(ctx, FORM_PLAIN, 1);
}

SOCKET_PROGRAM(UDP4_SENDMSG, sendmsg4)
{
	return socket_names_peer(ctx, FORM_PLAIN, 0);
}

SOCKET_PROGRAM(UDP4_RECVMSG, recvmsg4)
{
	return socket_hears_peer(ctx, FORM_PLAIN);
}

SOCKET_PROGRAM(INET4_GETPEERNAME, getpeername4)
{
	return socket_hears_peer(ctx, FORM_PLAIN);
}

#define FORM_IN_IPV6 FORM_MAPPED
#else
#define FORM_IN_IPV6 FORM_PLAIN
#endif

SOCKET_PROGRAM(INET6_CONNECT, connect6)
{
	return socket_names_peer(ctx, FORM_IN_IPV6, 1);
}

SOCKET_PROGRAM(UDP6_SENDMSG, sendmsg6)
{
	return socket_names_peer(ctx, FORM_IN_IPV6, 0);
}

SOCKET_PROGRAM(UDP6_RECVMSG, recvmsg6)
{
	return socket_hears_peer(ctx, FORM_IN_IPV6);
}

SOCKET_PROGRAM(INET6_GETPEERNAME, getpeername6)
{
	return socket_hears_peer(ctx, FORM_IN_IPV6);
}

TC_PROGRAM(end_flow)
{
	return end_flow_by_request(skb);
}

TC_PROGRAM(what_if)
{
	return answer_question(skb);
}
