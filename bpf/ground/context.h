/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a program is run on, behind one name: a socket buffer at TC, bare bytes at XDP (-DXDP).
 * Whatever decides or translates is written against this; only what needs the kernel's own buffers
 * (refusals, ICMP errors, SCTP's checksum) says __sk_buff.
 *
 * NEXT: the packet is left to others as it is. At TC to the next classifier and in the end to the
 * stack, so that we live beside other people's filters; at XDP to all of these, ours included.
 */
#pragma once

#include "ground/maps.h"
#include "packet/parse.h"

/*
 * The size of SCTP's pieces where offloads have joined some (GSO_BY_FRAGS): that of each is its own. Such a
 * packet's headers stand alone, and are DATA's; pieces follow as they are to be cut.
 */
#define CUT_AS_IT_CAME 0xffff

#ifdef XDP

#define AT_XDP 1
#define NEXT XDP_PASS
#define DROPPED XDP_DROP

typedef struct xdp_md context;

/* The interface that the packet came in by. */
INLINE __u32 ctx_interface(context *ctx)
{
	return ctx->ingress_ifindex;
}

INLINE int ctx_is_own(context *ctx)
{
	return 0;
}

INLINE __u32 ctx_packets(context *ctx)
{
	return 1;
}

/* Without link header. Frames in pieces show their beginning only; asking for the rest is dear. */
INLINE __u64 ctx_bytes(context *ctx)
{
	__u64 first = ctx->data_end - ctx->data - LINK_HEADER_BYTES;

	if (LIKELY(declared_bytes((void *)(long)ctx->data, (void *)(long)ctx->data_end) <= first))
		return first;
	return bpf_xdp_get_buff_len(ctx) - LINK_HEADER_BYTES;
}

/* Payload of each of the packets that offloads have joined into this one; 0: it is just one. */
INLINE __u32 ctx_segment_bytes(context *ctx)
{
	return 0;
}

/* The first bytes of the frame; by the kernel's hand, since nothing of it need be at hand yet. */
INLINE int ctx_read(context *ctx, void *bytes, __u32 count)
{
	return bpf_xdp_load_bytes(ctx, 0, bytes, count);
}

/* Headers are there from the start. */
INLINE void ctx_pull(context *ctx, __u32 bytes)
{
}

#else

#define AT_XDP 0
#define NEXT TC_ACT_UNSPEC
#define DROPPED TC_ACT_SHOT

typedef struct __sk_buff context;

/* The interface that the packet came in by, or leaves by. */
INLINE __u32 ctx_interface(context *ctx)
{
	return ctx->ifindex;
}

/* Made on this machine: it came in by no interface. */
INLINE int ctx_is_own(context *ctx)
{
	return !ctx->ingress_ifindex;
}

/*
 * Is it a packet of this build's family, and this interface's own? A filter of TC is asked for one protocol
 * only, a program of tcx for all; a frame with a VLAN tag is another interface's.
 */
INLINE int ctx_is_of_family(context *ctx)
{
#if LINK_HEADER_BYTES
	return ctx->protocol == htons16(ETHERTYPE) && !ctx->vlan_present;
#else
	__u8 *version = (void *)(long)ctx->data;

	return (void *)(version + 1) > (void *)(long)ctx->data_end || *version >> 4 == FAMILY;
#endif
}

/* How many packets offloads have joined into this one. */
INLINE __u32 ctx_packets(context *ctx)
{
	return ctx->gso_segs ? ctx->gso_segs : 1;
}

/* Without link header. */
INLINE __u64 ctx_bytes(context *ctx)
{
	return ctx->len - LINK_HEADER_BYTES;
}

INLINE int ctx_read(context *ctx, void *bytes, __u32 count)
{
	return bpf_skb_load_bytes(ctx, 0, bytes, count);
}

/* Payload of each of the packets that offloads have joined into this one; 0: it is just one. */
INLINE __u32 ctx_segment_bytes(context *ctx)
{
	return ctx->gso_size;
}

/*
 * Makes the first `bytes` readable: some drivers deliver headers in a page fragment. What would be pulled
 * out of SCTP's pieces would be missing from them when they are cut.
 */
INLINE void ctx_pull(context *ctx, __u32 bytes)
{
	__u32 linear = ctx->data_end - ctx->data;

	if (UNLIKELY(linear < ctx->len && linear < bytes) &&
	    ctx_segment_bytes(ctx) != CUT_AS_IT_CAME)
		bpf_skb_pull_data(ctx, ctx->len < bytes ? ctx->len : bytes);
}

#endif

/*
 * The note that a packet has been translated completely where it came in, and is on its way out: for the
 * egress programs, which must not do it once more. Whoever reads the note takes it off.
 */
#define TRANSLATED 0x4c42

INLINE void ctx_note_translated(context *ctx)
{
#ifndef XDP
	ctx->tc_index = TRANSLATED;
#endif
}

INLINE int ctx_was_translated(context *ctx)
{
#ifndef XDP
	if (UNLIKELY(ctx->tc_index == TRANSLATED)) {
		ctx->tc_index = 0;
		return 1;
	}
#endif
	return 0;
}

/*
 * What one of our programs leaves to the next about a packet: numbers in notes, which at TC stand in
 * the socket buffer; more than that in `scratch`, of which each CPU has one. It is this packet's until
 * the last tail call has ended: at ingress, at egress and at XDP bottom halves are off for that long, so
 * that no other packet's program runs on this CPU in between.
 */
enum note {
	NOTE_ATTEMPT = 0,     /* CALL_NEW_FLOW and CALL_NEW_SNAT_FLOW: see go_on() */
	NOTE_REASON = 1,      /* CALL_REJECT: why */
	NOTE_SCTP_CHANGE = 1, /* CALL_SCTP: exclusive-or of the old and new first 4 bytes */
	NOTE_SEND = 2,	      /* CALL_SCTP: and then; CALL_REJECT: bits only: see send_by() */
	NOTE_MTU = 3,	      /* CALL_REJECT: of the way that it is too big for, or 0 */
	/* without link header, until the packet is sent: whose MAC address it shall get */
	NOTE_MAC_HIGH = 0,
	NOTE_MAC_LOW = 3,
};

INLINE __u32 ctx_note(context *ctx, enum note which)
{
#ifdef XDP
	struct scratch *scratch = scratch_get();

	return scratch ? scratch->note[which] : 0;
#else
	return ctx->cb[which];
#endif
}

INLINE void ctx_set_note(context *ctx, enum note which, __u32 value)
{
#ifdef XDP
	struct scratch *scratch = scratch_get();

	if (scratch)
		scratch->note[which] = value;
#else
	ctx->cb[which] = value;
#endif
}
