/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * XDP: the programs of an uplink's ingress, run on the bare frame before the kernel makes a socket
 * buffer of it. They take what needs no stack: clients outside whose backend is on another node, and
 * the replies to them, where these leave by the interface they came in by; and they drop what is to
 * be dropped.
 *
 * The rule: a packet is finished here, or it goes on to TC as if it had never been here, with every
 * byte as it was, nothing counted and no state changed that TC would not have changed alike.
 */
#pragma once

#include "packet/rewrite.h"
#include "path/hook.h"

/*
 * Is the transport checksum perhaps just the pseudo-header's sum, to be completed by a device? A
 * virtual one hands over such packets, and nothing but the field says so. (A right checksum may be
 * equal by chance; then the packet takes the longer way.) SCTP's field is zero until then.
 */
INLINE int checksum_may_be_partial(context *ctx, const struct packet *packet)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	void *transport = data + (packet->l4_offset & MAX_L4_OFFSET);
	__u32 length = declared_bytes(data, data_end);

	if (packet->protocol == IPPROTO_SCTP) {
		__be32 *checksum = transport + 8;

		return (void *)(checksum + 1) > data_end || !*checksum;
	}

	__u16 *checksum = transport + checksum_offset(packet->protocol);

	/* no length: more than 16 bits can tell, so offloads are at work */
	if ((void *)(checksum + 1) > data_end || !length)
		return 1;
	length -= packet->l4_offset - LINK_HEADER_BYTES;
	return *checksum == sum_fold16(sum_pseudo_header(packet, length, packet->protocol));
}

/* Is it one that XDP deals with at all? */
INLINE int fits_xdp(context *ctx, const struct packet *packet, int parsed)
{
	return parsed == PARSE_OK &&
	       !(packet->flags &
		 (PACKET_ICMP_ERROR | PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT)) &&
	       !checksum_may_be_partial(ctx, packet);
}

/*
 * Asked before anything is changed for a packet that is to go `where` (see send_by()): will nothing
 * be missing here? At TC, never.
 */
INLINE int finishes_here(context *ctx, const struct packet *packet,
			 const struct endpoint_change *source,
			 const struct endpoint_change *destination, __u32 where)
{
	return !AT_XDP || (where == ctx_interface(ctx) && has_hops(ctx) &&
			   !sctp_change(packet, source, destination));
}
