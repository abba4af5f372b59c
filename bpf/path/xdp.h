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
#include "path/way.h"
#include "services/decide.h"

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

/* Everybody on a hub hears a frame, and some cards hand all of them over. */
INLINE int frame_is_for_us(context *ctx)
{
	struct interface *interface = interface_get(ctx_interface(ctx));
	__u8 destination[ETH_ALEN];

	return interface && !ctx_read(ctx, destination, sizeof(destination)) &&
	       same_mac(destination, interface->mac);
}

/*
 * May its flow be one of XDP's, to this port of a backend? What is only TC's to finish begins there, and stays
 * in the stack.
 */
INLINE int begins_here(context *ctx, const struct packet *packet, __be16 port)
{
	return frame_is_for_us(ctx) && has_hops(ctx) &&
	       (packet->protocol != IPPROTO_SCTP || port == packet->destination_port);
}

/* rule: CO-22 */
/* Would the stack take a packet from there? It is not asked any more (RFC 1812, 5.3.7; RFC 3704). */
INLINE int source_fits_xdp(context *ctx, const struct packet *packet)
{
	__u32 size = ANY_SIZE;
	struct way back = {};
	__u32 first = packet->source.word[0];
	addr here = packet->destination;
#if FAMILY == 4
	__u8 network = first; /* in network order: the first byte */

	if (network == 0 || network == 127 || network >= 224)
		return 0;
#else
	if ((first & 0xff) == 0xff || (first & htonl32(0xffc00000)) == htonl32(0xfe800000) ||
	    !(first | packet->source.word[1]))
		return 0;
#endif
	if (may_be_ours(&packet->source))
		return 0;
	return find_way(ctx, &here, &packet->source, packet->protocol, ctx_interface(ctx), &size,
			&back) != ROUTE_NONE &&
	       (back.ifindex & SEND_IFINDEX) == ctx_interface(ctx);
}

/*
 * Asked before anything is changed for a packet that is to go `where` (see send_by()), as kept beside
 * `ref`: will nothing be missing here? At TC, never. It leaves from the MAC address that it came to.
 */
INLINE int finishes_here(context *ctx, const struct flow_ref *ref, const struct packet *packet,
			 const struct endpoint_change *source,
			 const struct endpoint_change *destination, __u32 where)
{
	struct way *way = AT_XDP && where == ctx_interface(ctx) ? way_of(ref->set, ref->slot) : 0;
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	return way && (void *)(ethernet + 1) <= (void *)(long)ctx->data_end &&
	       same_mac(ethernet->h_dest, way->source_mac) && has_hops(ctx) &&
	       !sctp_change(packet, source, destination);
}
