/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * What all programs that see packets share: where they run, whom they call, and what they return.
 * A packet that is not a Service's leaves byte for byte as it came.
 */
#pragma once

#include "ground/event.h"
#include "packet/parse.h"

/* Where a program runs. Always a constant, so that code for other hooks is not even compiled. */
enum hook {
	HOOK_FROM_POD,	   /* ingress of a pod's interface */
	HOOK_TO_POD,	   /* egress of it */
	HOOK_FROM_OUTSIDE, /* ingress of an uplink or tunnel, at XDP and at TC */
	HOOK_TO_OUTSIDE,   /* egress of it */
	HOOK_FROM_NODE,	   /* egress of it or of loopback: what the node's own sockets send */
};

/* Indices in `calls`, of which XDP has its own. The first six exist for each hook at which connections begin. */
enum slow_path {
	CALL_NEW_FLOW = 0,	/* `scratch` has: the packet */
	CALL_NEW_SNAT_FLOW = 1, /* and the verdict */
	CALL_TRANSLATE = 2,	/* and the flow */
	CALL_REPLY = 3,
	CALL_SECOND_SIGNPOST = 4, /* as for CALL_TRANSLATE */
	CALL_DIRECT = 5,
	CALLS_OF_POD = 0,
	CALLS_OF_OUTSIDE = 8,
	CALLS_OF_NODE = 16,
	CALL_FROM_NODE = 22, /* of a known flow, what the node itself sends */
	CALL_DROP = 23,	     /* `scratch` has: why the packet ends, and on its way to whom */
	CALL_IPV6 = 6,	     /* at XDP: this hook's program for IPv6 */
	CALL_CHOOSE = 7,     /* `scratch` has: the packet, the verdict, and whom to call then */
	CALL_REJECT = 24,
	CALL_SCTP = 25,
	CALL_POD_LEAVES = 26,
	CALL_OUTSIDE_LEAVES = 27,
	CALL_ICMP_ERROR = 28, /* and the hook's number */
};

INLINE __u32 calls_of(int hook)
{
	return hook == HOOK_FROM_OUTSIDE ? CALLS_OF_OUTSIDE :
	       hook == HOOK_FROM_NODE	 ? CALLS_OF_NODE :
					   CALLS_OF_POD;
}

/*
 * Where a packet goes when all is done. 0: on to the next classifier. Else out by the interface of
 * this number, with the link header as it is; or with one that the kernel makes; or in by it, as if
 * it had been received there; or in by its peer, in a pod. NEIGHBOUR and INWARDS: nowhere, it is too big for its way; the rest is the MTU.
 */
#define SEND_NEIGHBOUR 0x80000000U
#define SEND_INWARDS 0x40000000U
#define SEND_PEER 0x20000000U
#define SEND_IFINDEX 0x1fffffffU
#define SEND_TOO_BIG (SEND_NEIGHBOUR | SEND_INWARDS)
/* Its ifindex, in every network namespace. */
#define LOOPBACK 1

/* Among what a program may return: no end yet. */
#define GO_ON (-2)

/* Enough for any headers that are followed. */
#define PULL_BYTES 128

INLINE int read_packet(context *ctx, struct packet *packet)
{
	ctx_pull(ctx, PULL_BYTES);

	int result = parse((void *)(long)ctx->data, (void *)(long)ctx->data_end, packet);

	/* ports, and no chunk behind them */
	if (UNLIKELY(result == PARSE_TRUNCATED) && packet->source_port &&
	    ctx_segment_bytes(ctx) == CUT_AS_IT_CAME)
		return PARSE_OK;
	return result;
}

/* The packet ends here. `service_id`: on its way to which Service port; 0 where that is not known. */
/* rule: VE-12 */
INLINE int drop_of(context *ctx, __u32 reason, __u32 service_id)
{
	struct scratch *scratch = scratch_get();

	if (scratch) {
		scratch->end_reason = reason;
		scratch->end_service = service_id;
		call_slow_path(ctx, CALL_DROP);
	}
	count_packet(ctx, reason);
	return DROPPED;
}

INLINE int drop(context *ctx, __u32 reason)
{
	return drop_of(ctx, reason, 0);
}

#if LINK_HEADER_BYTES

INLINE void set_macs(context *ctx, const __u8 *destination, const __u8 *source)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return;
	__builtin_memcpy(ethernet->h_dest, destination, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, source, ETH_ALEN);
}

INLINE int send_by(context *ctx, __u32 where)
{
	if (!where)
		return NEXT;
	if (AT_XDP) /* see finishes_here() */
		return XDP_TX;
	if (HOST_ROUTING && where & SEND_PEER)
		return bpf_redirect_peer(where & SEND_IFINDEX, 0);
	if (HOST_ROUTING && !(where & SEND_INWARDS))
		ctx_note_translated(ctx);
	if (where & SEND_NEIGHBOUR)
		return redirect_neigh(where & SEND_IFINDEX, 0, 0, 0);
	return bpf_redirect(where & SEND_IFINDEX, where & SEND_INWARDS ? BPF_F_INGRESS : 0);
}

#else

/*
 * A packet without link header gets one when all else is done, if it goes elsewhere: the kernel takes
 * it for no other device without, and takes it off again where it does not belong. Outwards it need
 * not be right, the kernel makes another. Who is to receive it by an interface is noted until then.
 */
INLINE void set_macs(context *ctx, const __u8 *destination, const __u8 *source)
{
	const __u16 *half = (const void *)destination;

	ctx_set_note(ctx, NOTE_MAC_HIGH, half[0]);
	ctx_set_note(ctx, NOTE_MAC_LOW, half[1] | (__u32)half[2] << 16);
}

INLINE int send_by(context *ctx, __u32 where)
{
	__u16 header[ETH_HLEN / 2] = {};
	__u32 low = ctx_note(ctx, NOTE_MAC_LOW);

	if (!where)
		return NEXT;
	if (bpf_skb_change_head(ctx, ETH_HLEN, 0))
		return drop(ctx, REASON_REWRITE_FAILED);
	if (!(where & SEND_INWARDS)) {
		if (HOST_ROUTING)
			ctx_note_translated(ctx);
		return redirect_neigh(where & SEND_IFINDEX, 0, 0, 0);
	}
	header[0] = ctx_note(ctx, NOTE_MAC_HIGH);
	header[1] = low;
	header[2] = low >> 16;
	header[6] = htons16(ETHERTYPE);
	if (bpf_skb_store_bytes(ctx, 0, header, sizeof(header), 0))
		return drop(ctx, REASON_REWRITE_FAILED);
	return bpf_redirect(where & SEND_IFINDEX, BPF_F_INGRESS);
}

#endif

INLINE int slow_path(context *ctx, __u32 index)
{
	call_slow_path(ctx, index);
	if (AT_XDP)
		return NEXT;
	return drop(ctx, REASON_SLOW_PATH);
}

/*
 * A packet for which no flow was found, or one that is over: its first attempt to get one. Whoever calls
 * has looked for it, or knows that there is none.
 */
INLINE void try_new_flow(context *ctx, const struct packet *packet, int hook)
{
	struct scratch *scratch = scratch_get();

	if (!scratch)
		return;
	scratch->packet = *packet;
	ctx_set_note(ctx, NOTE_ATTEMPT, 0);
	call_slow_path(ctx, CALL_NEW_FLOW + calls_of(hook));
}

/* For a packet whose tuple is known: whether it goes on or begins anew is for CALL_NEW_FLOW to see. */
INLINE int call_known_flow(context *ctx, const struct packet *packet, int hook)
{
	struct scratch *scratch = scratch_get();

	if (!scratch)
		return NEXT;
	scratch->packet = *packet;
	ctx_set_note(ctx, NOTE_ATTEMPT, 1);
	return slow_path(ctx, CALL_NEW_FLOW + calls_of(hook));
}

INLINE int call_new_flow(context *ctx, const struct packet *packet, int hook)
{
	try_new_flow(ctx, packet, hook);
	/* called once too often: what had been created for this packet was gone again each time */
	return AT_XDP ? NEXT : drop(ctx, REASON_CONTENTION);
}

/* The packet is not sent on but answered. `mtu`: as in NOTE_MTU. `service_id`: as in drop_of(). */
INLINE int refuse(context *ctx, __u32 reason, __u32 mtu, int hook, __u32 service_id)
{
	struct scratch *scratch = scratch_get();

	if (AT_XDP)
		return NEXT; /* TC will decide the same */
	if (scratch)
		scratch->end_service = service_id;
	ctx_set_note(ctx, NOTE_REASON, reason);
	ctx_set_note(ctx, NOTE_MTU, mtu);
	/* the node's own socket hears it as if it had come in from there */
	ctx_set_note(ctx, NOTE_SEND, hook == HOOK_FROM_NODE ? SEND_INWARDS : 0);
	return slow_path(ctx, CALL_REJECT);
}

/* A packet that could not be read to the end. Passed: it may be somebody else's business. */
INLINE int unreadable(context *ctx, int parsed)
{
	if (!AT_XDP) /* else TC will see it again */
		count_packet(ctx,
			     parsed == PARSE_TRUNCATED ? REASON_TRUNCATED : REASON_HEADER_CHAIN);
	return NEXT;
}

#if LINK_HEADER_BYTES
INLINE void swap_macs(context *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	__u8 mac[ETH_ALEN];

	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return;
	__builtin_memcpy(mac, ethernet->h_source, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, ethernet->h_dest, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, mac, ETH_ALEN);
}
#else
INLINE void swap_macs(context *ctx)
{
}
#endif
