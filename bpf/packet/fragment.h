/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * Only a datagram's first fragment has ports. It leaves them behind for the others, which then find
 * the flow by themselves; their transport checksum is the first one's business.
 *
 * Whoever puts fragments together knows them by addresses, protocol and identification. Two clients
 * that are masqueraded towards one backend would be mixed up where they chose the same identification.
 * So with another source a datagram gets another identification, too.
 */
#pragma once

#include "ground/hash.h"
#include "ground/maps.h"
#include "packet/parse.h"
#include "packet/rewrite.h"

INLINE int is_fragment(const struct packet *packet)
{
	return packet->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT);
}

INLINE void fragment_key_of(const struct packet *packet, struct fragment_key *key)
{
	key->source = packet->source;
	key->destination = packet->destination;
	key->id = packet->fragment_id;
	key->protocol = packet->protocol;
	__builtin_memset(key->pad, 0, sizeof(key->pad));
}

/*
 * One that no datagram to this destination has had for long: they are counted. IPv4 has 16 bits for
 * it, in the first half as it stands in memory.
 */
/* rule: CO-24 */
INLINE __be32 fresh_id(const addr *destination)
{
	__u64 *next = fragment_ids_get(hash_filter(destination) % FRAGMENT_IDS);
	__u64 number = next ? READ_ONCE(*next) : 0;

#pragma unroll
	for (int i = 0; i < 4 && next; i++) {
		__u64 seen = __sync_val_compare_and_swap(next, number, number + 1);

		if (seen == number)
			break;
		number = seen;
	}
	return FAMILY == 4 ? htons16(number) : htonl32(number);
}

/* To be called before the packet is rewritten: the others carry the addresses of the wire. */
INLINE void fragment_note(const struct packet *packet, __be32 new_id, int by_stack, __u32 now)
{
	struct fragment_key key;
	struct fragment value = {};

	fragment_key_of(packet, &key);
	value.source_port = packet->source_port;
	value.destination_port = packet->destination_port;
	value.new_id = new_id;
	value.noted = now;
	value.by_stack = by_stack;
	fragment_set(&key, &value);
}

/* What the first fragment has left for this one; an older datagram's counts no more. */
INLINE struct fragment *fragment_of(const struct packet *packet, __u32 now)
{
	struct fragment_key key;
	struct fragment *fragment;

	fragment_key_of(packet, &key);
	fragment = fragment_get(&key);
	return fragment && now - READ_ONCE(fragment->noted) <= TIMEOUT_FRAGMENT ? fragment : 0;
}

/* Is it a later fragment of a datagram whose first one went through the stack? */
INLINE int follows_by_stack(const struct packet *packet, __u32 now)
{
	struct fragment *first;

	if (LIKELY(!(packet->flags & PACKET_LATER_FRAGMENT)))
		return 0;
	first = fragment_of(packet, now);
	return !first || first->by_stack;
}

/* Gives a later fragment its ports. Returns 0 if its first one was not seen. */
/* rule: CO-23 */
INLINE int fragment_recall(struct packet *packet, __u32 now)
{
	struct fragment *fragment = fragment_of(packet, now);

	if (!fragment)
		return 0;
	packet->source_port = fragment->source_port;
	packet->destination_port = fragment->destination_port;
	return 1;
}

/* Returns 0, and changes nothing, where it is not found. */
INLINE int write_fragment_id(context *ctx, const struct packet *packet, __be32 id)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
#if FAMILY == 4
	struct iphdr *ip = data + LINK_HEADER_BYTES;

	if ((void *)(ip + 1) > data_end)
		return 0;
	ip->check = ~sum_fold16(sum_change((__u16)~ip->check, ip->id, (__u16)id));
	ip->id = id;
#else
	/* the last of the headers, unless destination options follow, which nobody sends */
	struct extension_header *last = packet_at(data, packet->l4_offset - 8);

	if ((void *)(last + 1) > data_end || last->fragment_id != packet->fragment_id)
		return 0;
	if (packet->flags & PACKET_FIRST_FRAGMENT &&
	    (last->fragment_offset & htons16(0xfff9)) != htons16(1))
		return 0;
	last->fragment_id = id;
#endif
	return 1;
}

/*
 * A datagram of the node's own, sent by loopback, is too big for the way that it really takes. It may be
 * fragmented, whatever it says: DF was set for the MTU of loopback, about which the kernel learns nothing
 * else for IPv4. With DF the identification may be missing yet. Returns 0 where it cannot be.
 */
INLINE int let_be_fragmented(context *ctx, const struct packet *packet)
{
#if FAMILY == 4
	struct iphdr *ip = (void *)(long)ctx->data + LINK_HEADER_BYTES;

	if (packet->protocol == IPPROTO_TCP || is_fragment(packet) ||
	    (void *)(ip + 1) > (void *)(long)ctx->data_end)
		return 0;

	__be16 free = ip->frag_off & ~htons16(IPV4_DONT_FRAGMENT);

	ip->check = ~sum_fold16(sum_change((__u16)~ip->check, ip->frag_off, free));
	ip->frag_off = free;
	write_fragment_id(ctx, packet, fresh_id(&packet->destination));
	return 1;
#else
	return 0; /* of its own packets, the kernel hears what the way takes */
#endif
}

/*
 * Before a fragment of a known flow is rewritten: the first one leaves behind what the others need,
 * and where they go on from another source, `destination` knows them by an identification of their own.
 * `by_stack`: it goes through the stack.
 */
INLINE void prepare_fragment(context *ctx, const struct packet *packet, int other_source,
			     const addr *destination, int by_stack, __u32 now)
{
	struct fragment *fragment;

	if (packet->flags & PACKET_FIRST_FRAGMENT) {
		__be32 id = other_source ? fresh_id(destination) : packet->fragment_id;

		/* the others must have the same, whatever it is */
		fragment_note(packet, write_fragment_id(ctx, packet, id) ? id : packet->fragment_id,
			      by_stack, now);
		return;
	}
	fragment = fragment_of(packet, now);
	if (fragment && fragment->new_id != packet->fragment_id)
		write_fragment_id(ctx, packet, fragment->new_id);
}
