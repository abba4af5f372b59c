// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause)
/*
 * The programs, one function a hook. Compiled once per family; no policy here.
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
#include "sockets/connect_time.h"
#include "connections/end.h"
#include "services/ask.h"
#include "connections/sweep.h"

/* TC, the host's side of a pod's interface */

int pod_ingress(struct __sk_buff *skb)
{
	return ctx_is_of_family(skb) ? from_client(skb, HOOK_FROM_POD) : NEXT;
}

int pod_egress(struct __sk_buff *skb)
{
	return ctx_is_of_family(skb) ? to_client(skb, HOOK_TO_POD) : NEXT;
}

/* TC, uplinks and tunnel devices */

int uplink_ingress(struct __sk_buff *skb)
{
	return ctx_is_of_family(skb) ? from_client(skb, HOOK_FROM_OUTSIDE) : NEXT;
}

int uplink_egress(struct __sk_buff *skb)
{
	return ctx_is_of_family(skb) ? to_client(skb, HOOK_TO_OUTSIDE) : NEXT;
}

/* TC, loopback */

int loopback_egress(struct __sk_buff *skb)
{
	return ctx_is_of_family(skb) ? over_loopback(skb) : NEXT;
}

/* TC, behind tail calls: see enum slow_path */

int pod_new_flow(struct __sk_buff *skb)
{
	return new_flow(skb, HOOK_FROM_POD);
}

int pod_new_snat(struct __sk_buff *skb)
{
	return new_snat_flow(skb, HOOK_FROM_POD);
}

int pod_first(struct __sk_buff *skb)
{
	return translate_first(skb, HOOK_FROM_POD);
}

int pod_reply(struct __sk_buff *skb)
{
	return reply_from_client(skb, HOOK_FROM_POD);
}

int pod_second(struct __sk_buff *skb)
{
	return second_signpost(skb, HOOK_FROM_POD);
}

int pod_direct(struct __sk_buff *skb)
{
	return goes_directly(skb, HOOK_FROM_POD);
}

int pod_leaves(struct __sk_buff *skb)
{
	return leaves(skb, HOOK_TO_POD);
}

int uplink_new_flow(struct __sk_buff *skb)
{
	return new_flow(skb, HOOK_FROM_OUTSIDE);
}

int uplink_new_snat(struct __sk_buff *skb)
{
	return new_snat_flow(skb, HOOK_FROM_OUTSIDE);
}

int uplink_first(struct __sk_buff *skb)
{
	return translate_first(skb, HOOK_FROM_OUTSIDE);
}

int uplink_reply(struct __sk_buff *skb)
{
	return reply_from_client(skb, HOOK_FROM_OUTSIDE);
}

int uplink_second(struct __sk_buff *skb)
{
	return second_signpost(skb, HOOK_FROM_OUTSIDE);
}

int uplink_direct(struct __sk_buff *skb)
{
	return goes_directly(skb, HOOK_FROM_OUTSIDE);
}

int uplink_leaves(struct __sk_buff *skb)
{
	return leaves(skb, HOOK_TO_OUTSIDE);
}

int node_egress(struct __sk_buff *skb)
{
	return from_node(skb);
}

int node_new_flow(struct __sk_buff *skb)
{
	return new_flow(skb, HOOK_FROM_NODE);
}

int node_new_snat(struct __sk_buff *skb)
{
	return new_snat_flow(skb, HOOK_FROM_NODE);
}

int node_first(struct __sk_buff *skb)
{
	return translate_first(skb, HOOK_FROM_NODE);
}

int node_reply(struct __sk_buff *skb)
{
	return reply_from_client(skb, HOOK_FROM_NODE);
}

int pod_in_err(struct __sk_buff *skb)
{
	return translate_error(skb, HOOK_FROM_POD);
}

int pod_out_err(struct __sk_buff *skb)
{
	return translate_error(skb, HOOK_TO_POD);
}

int uplink_in_err(struct __sk_buff *skb)
{
	return translate_error(skb, HOOK_FROM_OUTSIDE);
}

int uplink_out_err(struct __sk_buff *skb)
{
	return translate_error(skb, HOOK_TO_OUTSIDE);
}

int answer_refusal(struct __sk_buff *skb)
{
	return reject(skb);
}

int dropped(struct __sk_buff *skb)
{
	return end_packet(skb);
}

int sctp_checksum(struct __sk_buff *skb)
{
	return mend_sctp_checksum(skb);
}

/* For the agent, by test runs: what time the data path has, what a run costs by itself, and sweeping. */

int clock(struct __sk_buff *skb)
{
	return TICK();
}

int empty(struct __sk_buff *skb)
{
	return NEXT;
}

int sweep(struct __sk_buff *skb)
{
	return sweep_set();
}

/* cgroup hooks */

#if FAMILY == 4

int connect4(struct bpf_sock_addr *ctx)
{
	return socket_names_peer(ctx, FORM_PLAIN, 1);
}

int sendmsg4(struct bpf_sock_addr *ctx)
{
	return socket_names_peer(ctx, FORM_PLAIN, 0);
}

int recvmsg4(struct bpf_sock_addr *ctx)
{
	return socket_hears_peer(ctx, FORM_PLAIN);
}

int getpeername4(struct bpf_sock_addr *ctx)
{
	return socket_hears_peer(ctx, FORM_PLAIN);
}

#define FORM_IN_IPV6 FORM_MAPPED
#else
#define FORM_IN_IPV6 FORM_PLAIN
#endif

int connect6(struct bpf_sock_addr *ctx)
{
	return socket_names_peer(ctx, FORM_IN_IPV6, 1);
}

int sendmsg6(struct bpf_sock_addr *ctx)
{
	return socket_names_peer(ctx, FORM_IN_IPV6, 0);
}

int recvmsg6(struct bpf_sock_addr *ctx)
{
	return socket_hears_peer(ctx, FORM_IN_IPV6);
}

int getpeername6(struct bpf_sock_addr *ctx)
{
	return socket_hears_peer(ctx, FORM_IN_IPV6);
}

int end_flow(struct __sk_buff *skb)
{
	return end_flow_by_request(skb);
}

int what_if(struct __sk_buff *skb)
{
	return answer_question(skb);
}
