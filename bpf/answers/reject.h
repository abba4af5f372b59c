/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * REJECT: the refused packet becomes its own answer and goes back by the interface it came by.
 * TCP gets a RST (RFC 9293, 3.10.7.1), everything else ICMP port unreachable (RFC 792, RFC 4443).
 * Likewise what the node itself sends and is too big for its way, of which its sender must hear (RFC
 * 1191, RFC 8201); all other packets meet the stack, which says so itself.
 *
 * One bucket for the whole node limits the answers, and not the kernel's limit per destination:
 * a client that is refused must hear so every time.
 */
#pragma once

#include "packet/rewrite.h"
#include "path/hook.h"

#define NS_PER_S 1000000000ULL
#define ANSWER_TTL 64

/* RFC 792 and RFC 4443; the system's headers for these need a C library */
#define ICMP_DEST_UNREACH 3
#define ICMP_PORT_UNREACH 3
#define ICMP_FRAG_NEEDED 4
#define ICMPV6_DEST_UNREACH 1
#define ICMPV6_PORT_UNREACH 4
#define ICMPV6_PKT_TOOBIG 2
#define IPV6_LEAST_MTU 1280

/*
 * The bucket's state is the time at which it will be full again; a second's worth fits in. Taking a
 * token moves that time on by one interval.
 */
/* rule: VE-11 */
INLINE int take_token(void)
{
	struct token_bucket *bucket = reject_bucket_get();
	struct config *config = config_get();

	if (!bucket || !config || !config->reject_per_second)
		return 1;

	__u64 now = bpf_ktime_get_ns();
	__u64 interval = NS_PER_S / config->reject_per_second;
	__u64 seen = READ_ONCE(bucket->state);

#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u64 next = (seen > now ? seen : now) + interval;

		if (next > now + NS_PER_S)
			return 0;

		__u64 before = __sync_val_compare_and_swap(&bucket->state, seen, next);

		if (before == seen)
			return 1;
		seen = before;
	}
	return 0;
}

/*
 * Is the transport checksum still to be completed by the device? The helper leaves the field of such
 * a packet alone when something outside the pseudo-header changes; that tells.
 */
INLINE int checksum_is_partial(struct __sk_buff *skb, __u32 offset)
{
	__u16 before = 0;
	__u16 after = 0;

	if (bpf_skb_load_bytes(skb, offset, &before, sizeof(before)) ||
	    bpf_l4_csum_replace(skb, offset, 0, htons16(1), 2) ||
	    bpf_skb_load_bytes(skb, offset, &after, sizeof(after)))
		return 0;
	if (before == after)
		return 1;
	bpf_skb_store_bytes(skb, offset, &before, sizeof(before), 0);
	return 0;
}

/* Turns the IP header round and gives it a new payload length. */
INLINE void turn_ip_header(void *header, const struct packet *packet, __u32 payload_bytes)
{
#if FAMILY == 4
	struct iphdr *ip = header;
	__u64 change = 0;
	__be16 total = htons16(ip->ihl * 4 + payload_bytes);

	change = sum_change(change, ip->tot_len, total);
	change = sum_change(change, htons16(ip->ttl << 8), htons16(ANSWER_TTL << 8));
	ip->check = ~sum_fold16((__u64)(__u16)~ip->check + change);
	ip->tot_len = total;
	ip->ttl = ANSWER_TTL;
#else
	struct ipv6hdr *ip = header;

	ip->payload_len =
		htons16(packet->l4_offset - LINK_HEADER_BYTES - sizeof(*ip) + payload_bytes);
	ip->hop_limit = ANSWER_TTL;
#endif
	write_address(header + IP_SOURCE - LINK_HEADER_BYTES, &packet->destination);
	write_address(header + IP_DESTINATION - LINK_HEADER_BYTES, &packet->source);
}

/* The segment that makes a TCP client give up at once. Returns 0, or -1 where it can't be made. */
INLINE int become_reset(struct __sk_buff *skb, struct packet *packet)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	__u32 l4 = packet->l4_offset & MAX_L4_OFFSET;
	struct tcphdr *tcp = packet_at(data, l4);

	if ((void *)(tcp + 1) > data_end)
		return -1;

	__u32 payload = transport_bytes(data, data_end, packet) - tcp->doff * 4;
	__u32 sequence = __builtin_bswap32(tcp->seq);
	__be32 acknowledged = tcp->ack_seq;
	int has_ack = packet->flags & PACKET_ACK;

	sequence += payload + (packet->flags & PACKET_SYN ? 1 : 0) +
		    (packet->flags & PACKET_FIN ? 1 : 0);
	if (bpf_skb_change_tail(skb, l4 + sizeof(*tcp), 0))
		return -1;

	int partial = checksum_is_partial(skb, l4 + 16);

	data = (void *)(long)skb->data;
	data_end = (void *)(long)skb->data_end;
	tcp = packet_at(data, l4);
	if ((void *)(tcp + 1) > data_end || data + LINK_HEADER_BYTES + IP_DESTINATION > data_end)
		return -1;
	__builtin_memset(tcp, 0, sizeof(*tcp));
	tcp->source = packet->destination_port;
	tcp->dest = packet->source_port;
	tcp->doff = sizeof(*tcp) / 4;
	tcp->rst = 1;
	if (has_ack) {
		tcp->seq = acknowledged;
	} else {
		tcp->ack = 1;
		tcp->ack_seq = htonl32(sequence);
	}

	__u64 sum = sum_pseudo_header(packet, sizeof(*tcp), IPPROTO_TCP);

	if (partial) {
		tcp->check = sum_fold16(sum);
	} else {
		__be32 *words = (void *)tcp;

#pragma unroll
		for (int i = 0; i < 5; i++)
			sum += words[i];
		tcp->check = ~sum_fold16(sum);
	}
	if (data + LINK_HEADER_BYTES + 40 > data_end)
		return -1;
	turn_ip_header(data + LINK_HEADER_BYTES, packet, sizeof(*tcp));
	return 0;
}

/* How much of the refused packet is quoted, IP header included: a multiple of 4. */
#define QUOTE_MAX 96
/* The first two words of an ICMP error without its checksum; `mtu` as NOTE_MTU says. */
INLINE void icmp_words(__u32 mtu, __be32 *words)
{
#if FAMILY == 4
	words[0] = htonl32(ICMP_DEST_UNREACH << 24 | (mtu ? ICMP_FRAG_NEEDED : ICMP_PORT_UNREACH)
							     << 16);
	words[1] = htonl32(mtu);
#else
	words[0] = mtu ? htonl32(ICMPV6_PKT_TOOBIG << 24) :
			 htonl32(ICMPV6_DEST_UNREACH << 24 | ICMPV6_PORT_UNREACH << 16);
	words[1] = mtu ? htonl32(mtu < IPV6_LEAST_MTU ? IPV6_LEAST_MTU : mtu) : 0;
#endif
}

/*
 * Transport bytes in the quotation: ports are enough to find the socket, SCTP wants its tag too; TCP's
 * sequence number is checked, and its checksum may still be completed on the way.
 */
INLINE __u32 quoted_transport(__u8 protocol)
{
	return protocol == IPPROTO_TCP ? sizeof(struct tcphdr) : protocol == IPPROTO_SCTP ? 12 : 8;
}

/*
 * Wraps the head of the packet into an ICMP error: which, `mtu` says, as NOTE_MTU.
 * Returns 0, or -1 where it can't be made.
 */
INLINE int become_error(struct __sk_buff *skb, struct packet *packet, __u32 mtu)
{
	__u32 l4 = packet->l4_offset & MAX_L4_OFFSET;
	__u32 quote = l4 - LINK_HEADER_BYTES + quoted_transport(packet->protocol);
	__u32 checksum = l4 + checksum_offset(packet->protocol);
	const __u32 header = FAMILY == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	const __u32 added = header + 8;
	int partial = (packet->protocol == IPPROTO_UDP || packet->protocol == IPPROTO_TCP) &&
		      checksum_is_partial(skb, checksum);
	__u16 pseudo_sum = 0;

	if (partial && bpf_skb_load_bytes(skb, checksum, &pseudo_sum, sizeof(pseudo_sum)))
		return -1;
	if (quote > QUOTE_MAX || bpf_skb_change_tail(skb, LINK_HEADER_BYTES + quote, 0))
		return -1;
	/* between link header, where there is one, and IP header */
	if (bpf_skb_adjust_room(skb, added, BPF_ADJ_ROOM_MAC, 0))
		return -1;

	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	void *ip_start = data + LINK_HEADER_BYTES;
	__be32 *icmp = ip_start + header;
	__be32 *words = (void *)icmp + 8;
	/* A device that completes the quoted header makes all of it sum up to the complement of this. */
	__u64 sum = partial ? (__u16)~pseudo_sum : 0;
	/* that far they are summed up here */
	__u64 summed = forget(partial ? l4 - LINK_HEADER_BYTES : QUOTE_MAX, skb->ifindex);

	if ((void *)(words + 1) > data_end)
		return -1;
#pragma unroll
	for (__u32 i = 0; i < QUOTE_MAX / 4; i++) {
		if ((void *)(words + i + 1) > data_end || i * 4 >= quote)
			break;
		sum += words[i] * below(i * 4, summed);
	}
#if FAMILY == 4
	struct iphdr *ip = ip_start;

	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = 5;
	ip->tot_len = htons16(added + quote);
	ip->frag_off = htons16(0x4000);
	ip->ttl = ANSWER_TTL;
	ip->protocol = IPPROTO_ICMP;
	write_address(&ip->saddr, &packet->destination);
	write_address(&ip->daddr, &packet->source);

	__u64 ip_sum = 0;
	__be32 *ip_words = ip_start;

#pragma unroll
	for (int i = 0; i < 5; i++)
		ip_sum += ip_words[i];
	ip->check = ~sum_fold16(ip_sum);
#else
	struct ipv6hdr *ip = ip_start;

	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 6;
	ip->payload_len = htons16(8 + quote);
	ip->nexthdr = IPPROTO_ICMPV6;
	ip->hop_limit = ANSWER_TTL;
	write_address(&ip->saddr, &packet->destination);
	write_address(&ip->daddr, &packet->source);
	sum += sum_pseudo_header(packet, 8 + quote, IPPROTO_ICMPV6);
#endif
	icmp_words(mtu, icmp);
	icmp[0] |= (__u32)(__u16)~sum_fold16(sum + icmp[0] + icmp[1]) << 16;
	return 0;
}

/* Nobody answers errors, groups of receivers or the nameless (RFC 1122, 3.2.2; RFC 4443, 2.4). */
INLINE int answerable(const struct packet *packet)
{
	if (packet->flags & (PACKET_ICMP_ERROR | PACKET_LATER_FRAGMENT))
		return 0;
	if (packet->protocol == IPPROTO_TCP && (packet->flags & PACKET_RST))
		return 0;
#if FAMILY == 4
	__u32 first = packet->source.word[0] & 0xff; /* in network order: the first byte */

	return packet->source.word[0] && first < 224;
#else
	return (packet->source.word[0] & 0xff) != 0xff &&
	       (packet->source.word[0] | packet->source.word[1] | packet->source.word[2] |
		packet->source.word[3]);
#endif
}

/* rule: VE-10 */
INLINE int reject(struct __sk_buff *skb)
{
	struct packet packet;
	__u32 reason = ctx_note(skb, NOTE_REASON);
	__u32 inwards = ctx_note(skb, NOTE_SEND);
	__u32 mtu = ctx_note(skb, NOTE_MTU);
	struct scratch *scratch = scratch_get();
	__u32 service_id = scratch ? scratch->end_service : 0;
	int parsed = read_packet(skb, &packet);
	int failed;

	if (parsed == PARSE_TRUNCATED || parsed == PARSE_HEADER_CHAIN)
		return unreadable(skb, parsed);
	if (!answerable(&packet))
		return drop_of(skb, REASON_UNANSWERABLE, service_id);
	forget_kind(&packet, skb->ifindex);
	if (!mtu && !take_token())
		return drop_of(skb, REASON_REJECT_LIMIT, service_id);
	count_end(skb, reason, service_id);
	if (packet.protocol == IPPROTO_TCP && !(packet.flags & PACKET_FIRST_FRAGMENT) && !mtu)
		failed = become_reset(skb, &packet);
	else
		failed = become_error(skb, &packet, mtu);
	if (failed)
		return drop(skb, REASON_REWRITE_FAILED);
	swap_macs(skb);
	return send_by(skb, skb->ifindex | inwards);
}
