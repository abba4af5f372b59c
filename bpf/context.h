/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a program is run on, behind one name. Whatever decides or translates is written against this;
 * only what needs the kernel's own buffers (refusals, ICMP errors, SCTP's checksum) says __sk_buff.
 */
#pragma once

#include "base.h"

typedef struct __sk_buff context;

/* The interface that the packet came in by, or leaves by. */
INLINE __u32 ctx_interface(context *ctx)
{
	return ctx->ifindex;
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

/* What one of our programs leaves to the next about a packet. */
enum note {
	NOTE_ATTEMPT = 0,     /* how often CALL_NEW_FLOW was tried for this packet */
	NOTE_REASON = 1,      /* CALL_REJECT: why */
	NOTE_SCTP_CHANGE = 1, /* CALL_SCTP: exclusive-or of the old and new first 4 bytes */
	NOTE_SEND = 2,	      /* CALL_SCTP: and then; CALL_REJECT: bits only: see send_by() */
};

INLINE __u32 ctx_note(context *ctx, enum note which)
{
	return ctx->cb[which];
}

INLINE void ctx_set_note(context *ctx, enum note which, __u32 value)
{
	ctx->cb[which] = value;
}
