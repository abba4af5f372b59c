/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * Changes to a packet's addresses and ports, checksums included.
 *
 * The IP header's checksum is mended here (RFC 1624). So is the transport's where the kernel can be asked
 * (Linux 6.2) whether the field holds a checksum or, for a packet of a local socket, just the sum of the
 * pseudo-header which the device completes. Elsewhere the kernel's helper does it, which knows. Addresses
 * are part of that sum, ports are not. So the helper is told of the addresses; what it made of the field
 * gives away which of the two it was, and the ports are added here where they are due. That is half as
 * dear as two calls. Direct writes come first, since the helper invalidates packet pointers.
 */
#pragma once

#include "ground/context.h"
#include "packet/parse.h"

/* One end of a packet: where it stands, and what shall stand there. */
struct endpoint_change {
	addr address;
	__be16 port;
	__u16 wanted; /* 0: leave this end */
};

/* RFC 1071 sums may be taken over words of any size and folded later. */
INLINE __u64 sum_change(__u64 sum, __u32 old, __u32 new)
{
	return sum + (__u32)~old + new;
}

INLINE __u32 sum_fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return sum;
}

INLINE __u16 sum_fold16(__u64 sum)
{
	__u32 folded = sum_fold32(sum);

	folded = (folded & 0xffff) + (folded >> 16);
	folded = (folded & 0xffff) + (folded >> 16);
	return folded;
}

INLINE __u64 sum_address(__u64 sum, const addr *old, const addr *new)
{
#pragma unroll
	for (int i = 0; i < ADDRESS_WORDS; i++)
		sum = sum_change(sum, old->word[i], new->word[i]);
	return sum;
}

INLINE __u64 sum_pseudo_header(const struct packet *packet, __u32 length, __u8 protocol)
{
	__u64 sum = htons16(length) + htons16(protocol);

#pragma unroll
	for (int i = 0; i < ADDRESS_WORDS; i++)
		sum += (__u64)packet->source.word[i] + packet->destination.word[i];
	return sum;
}

#define IP_SOURCE (LINK_HEADER_BYTES + (FAMILY == 4 ? 12 : 8))
#define IP_DESTINATION (IP_SOURCE + (int)sizeof(addr))

INLINE void write_address(void *where, const addr *address)
{
	__be32 *words = where;

#pragma unroll
	for (int i = 0; i < ADDRESS_WORDS; i++)
		words[i] = address->word[i];
}

/* SCTP's checksum must be mended by this: exclusive-or of the old and new ports. 0: it is right. */
INLINE __u32 sctp_change(const struct packet *packet, const struct endpoint_change *source,
			 const struct endpoint_change *destination)
{
	__u32 change = 0;

	if (LIKELY(packet->protocol != IPPROTO_SCTP) || packet->flags & PACKET_LATER_FRAGMENT)
		return 0;
	if (source->wanted)
		change |= packet->source_port ^ source->port;
	if (destination->wanted)
		change |= (__u32)(packet->destination_port ^ destination->port) << 16;
	return change;
}

/* Ranges of the transport's checksum field. */
INLINE __u32 checksum_offset(__u8 protocol)
{
	return protocol == IPPROTO_TCP ? 16 : 6; /* UDP */
}

/*
 * Mends the transport checksum at `offset` after changes of these sums.
 * Returns 0, or -1 if it is not there or the kernel refuses. UDP: 0 says there is none.
 */
#ifdef XDP

/* rule: CO-25 */
INLINE int mend_checksum(context *ctx, const struct packet *packet, __u32 offset, __u16 addresses,
			 __u16 ports)
{
	__u16 *field = packet_at((void *)(long)ctx->data, offset);
	int udp = packet->protocol == IPPROTO_UDP;
	__u16 after;

	if ((void *)(field + 1) > (void *)(long)ctx->data_end)
		return -1;
	if (udp && !*field)
		return 0;
	/* a whole one: others are not dealt with here, see checksum_may_be_partial() */
	after = ~sum_fold16((__u64)(__u16) ~*field + addresses + ports);
	*field = udp && !after ? 0xffff : after;
	return 0;
}

#else

/* What is in the transport's checksum field of a packet (sk_buff.ip_summed; linux/skbuff.h). */
enum checksum_kind {
	/* 0, 1: the whole, to be verified or verified already */
	CHECKSUM_COMPLETE = 2, /* the whole; and the device has summed up all of the packet */
	CHECKSUM_PARTIAL = 3,  /* the sum of the pseudo-header, which the device completes */
};

/* The kernel's own structure. Costs nothing; a kfunc (loader/image.py). */
static void *(*kernel_context)(void *) = (void *)KERNEL_CONTEXT;

INLINE __u32 checksum_kind(context *ctx)
{
	__u8 *kernel = kernel_context(ctx);

	return READ_ONCE(kernel[IP_SUMMED_BYTE]) >> IP_SUMMED_SHIFT & 3;
}

/*
 * Where the kernel can be asked what is in the field, and no sum of the device has to be kept, the
 * field is mended here: the helper is more than half of what an established packet costs.
 *
 * For a full checksum, the helper takes the change of addresses away from the field, for a partial
 * one it adds it: which it did cannot be mistaken unless that change is zero, and then both are
 * tried by a second call.
 *
 * It also mends the checksum that a device computed over all of a received packet, and must know for
 * that whether the IP header has one of its own, which makes up for the addresses. Kernels before 6.16
 * do not know the flag and refuse; without it they get that checksum wrong in IPv6, notice when the
 * packet is received, and compute it themselves.
 */
#define CHECKSUM_IN_IPV6 (FAMILY == 6 ? 1ULL << 7 : 0) /* BPF_F_IPV6 */

INLINE int mend_checksum(context *ctx, const struct packet *packet, __u32 offset, __u16 addresses,
			 __u16 ports)
{
	void *data = (void *)(long)ctx->data;
	__u16 *field = packet_at(data, offset);
	__u64 flags = packet->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__u16 before, after;

	if ((void *)(field + 1) > (void *)(long)ctx->data_end)
		return -1;
	before = *field;
	if (IP_SUMMED_BYTE) {
		__u32 kind = checksum_kind(ctx);

		if (LIKELY(kind != CHECKSUM_COMPLETE)) {
			if (flags && !before)
				return 0;
			after = kind == CHECKSUM_PARTIAL ?
					sum_fold16((__u64)before + addresses) :
					~sum_fold16((__u64)(__u16)~before + addresses + ports);
			*field = flags && !after ? 0xffff : after;
			return 0;
		}
	}
	if (bpf_l4_csum_replace(ctx, offset, 0, addresses,
				flags | BPF_F_PSEUDO_HDR | CHECKSUM_IN_IPV6) &&
	    (FAMILY == 4 ||
	     bpf_l4_csum_replace(ctx, offset, 0, addresses, flags | BPF_F_PSEUDO_HDR)))
		return -1;
	if (!ports)
		return 0;
	if (flags && !before) {
		bpf_csum_update(ctx, ports);
		return 0;
	}
	if (UNLIKELY(addresses == 0 || addresses == 0xffff))
		return bpf_l4_csum_replace(ctx, offset, 0, ports, flags) ? -1 : 0;
	data = (void *)(long)ctx->data;
	field = packet_at(data, offset);
	if ((void *)(field + 1) > (void *)(long)ctx->data_end)
		return -1;
	after = *field;
	/* added: partial, and done. All ones is zero here, the difference to what was expected. */
	if (sum_fold16((__u64)before + addresses + (__u16)~after) == 0xffff)
		return 0;
	after = ~sum_fold16((__u64)(__u16)~after + ports);
	*field = flags && !after ? 0xffff : after;
	return 0;
}

#endif

/*
 * Gives the packet new ends. Later fragments have no ports and no transport checksum. SCTP: the
 * ports are written, its CRC32c is left to the caller (sctp.h).
 * Returns 0, or -1 if the packet is too short for what it says it is or the kernel refuses.
 */
INLINE int rewrite(context *ctx, struct packet *packet, const struct endpoint_change *source,
		   const struct endpoint_change *destination)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	__u32 l4 = packet->l4_offset & MAX_L4_OFFSET;
	int ports = !(packet->flags & PACKET_LATER_FRAGMENT) && has_ports(packet->protocol);
	__u64 address_sum = 0;
	__u64 port_sum = 0;

	if (data + IP_DESTINATION + sizeof(addr) > data_end)
		return -1;
	if (source->wanted) {
		address_sum = sum_address(address_sum, &packet->source, &source->address);
		write_address(data + IP_SOURCE, &source->address);
	}
	if (destination->wanted) {
		address_sum = sum_address(address_sum, &packet->destination, &destination->address);
		write_address(data + IP_DESTINATION, &destination->address);
	}
#if FAMILY == 4
	struct iphdr *ip = data + LINK_HEADER_BYTES;

	ip->check = ~sum_fold16((__u64)(__u16)~ip->check + address_sum);
#endif
	if (ports) {
		__be16 *port = packet_at(data, l4);

		if ((void *)(port + 2) > data_end)
			return -1;
		if (source->wanted && source->port != packet->source_port) {
			port_sum = sum_change(port_sum, packet->source_port, source->port);
			port[0] = source->port;
		}
		if (destination->wanted && destination->port != packet->destination_port) {
			port_sum =
				sum_change(port_sum, packet->destination_port, destination->port);
			port[1] = destination->port;
		}
	}
	if (!ports || packet->protocol == IPPROTO_SCTP)
		return 0;

	return mend_checksum(ctx, packet, l4 + checksum_offset(packet->protocol),
			     sum_fold16(address_sum), sum_fold16(port_sum));
}
