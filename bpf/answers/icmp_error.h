/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * ICMP errors about translated packets: too big, unreachable, time exceeded. Path-MTU discovery
 * depends on them.
 *
 * An error travels against the packet that it quotes. So it goes where an answer to that packet would
 * go: turn the quotation round, and what comes out is a packet of the flow as any other, which tells
 * how both headers are to be changed. The quoted ends become what their owner knows them as; an outer
 * end is changed with them if it is the same address, and left alone if it is some router's.
 */
#pragma once

#include "path/translate.h"

/* What the quotation is to its error, turned round. Returns 0 if it does not hold ports. */
INLINE int parse_quotation(struct __sk_buff *skb, const struct packet *outer, struct packet *turned)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	__u32 offset = (outer->l4_offset & MAX_L4_OFFSET) + 8;
	__u32 l4;
#if FAMILY == 4
	struct iphdr *ip = data + offset;

	if ((void *)(ip + 1) > data_end || ip->version != 4 || ip->ihl < 5 ||
	    ip->frag_off & htons16(IPV4_OFFSET))
		return 0;
	turned->source.word[0] = ip->daddr;
	turned->destination.word[0] = ip->saddr;
	turned->protocol = ip->protocol;
	l4 = offset + ip->ihl * 4;
#else
	struct ipv6hdr *ip = data + offset;

	if ((void *)(ip + 1) > data_end || ip->version != 6)
		return 0;
	__builtin_memcpy(&turned->source, &ip->daddr, sizeof(addr));
	__builtin_memcpy(&turned->destination, &ip->saddr, sizeof(addr));
	turned->protocol = ip->nexthdr;
	l4 = offset + sizeof(*ip);
#endif
	if (l4 > MAX_L4_OFFSET || !has_ports(turned->protocol))
		return 0;

	__be16 *ports = packet_at(data, l4);

	/* padding is neither quotation nor part of the checksum */
	if ((void *)(ports + 4) > data_end ||
	    l4 + 8 > outer->l4_offset + transport_bytes(data, data_end, outer))
		return 0;
	turned->source_port = ports[1];
	turned->destination_port = ports[0];
	turned->l4_offset = l4;
	turned->flags = 0;
	turned->fragment_id = 0;
	return 1;
}

/*
 * Writes both headers. Checksums: the quoted IP header's sum stays what it was, so of an ICMP (IPv4)
 * checksum only ports matter; ICMPv6's covers all addresses. The quoted transport checksum is left:
 * nobody can verify it.
 */
INLINE int rewrite_error(struct __sk_buff *skb, const struct packet *outer,
			 const struct packet *turned, const struct endpoint_change *source,
			 const struct endpoint_change *destination)
{
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	__u32 icmp = outer->l4_offset & MAX_L4_OFFSET;
	void *quoted = packet_at(data, icmp + 8);
	__be16 *ports = packet_at(data, turned->l4_offset);
	__u16 *check = packet_at(data, icmp + 2);
	const __u32 source_at = IP_SOURCE - LINK_HEADER_BYTES;
	const __u32 destination_at = IP_DESTINATION - LINK_HEADER_BYTES;
	__u64 outer_sum = 0, quoted_sum = 0, port_sum = 0;

	if (data + IP_DESTINATION + sizeof(addr) > data_end ||
	    quoted + destination_at + sizeof(addr) > data_end || (void *)(ports + 2) > data_end ||
	    (void *)(check + 1) > data_end)
		return -1;
	if (source->wanted) {
		if (same_address(&outer->source, &turned->source)) {
			outer_sum = sum_address(outer_sum, &outer->source, &source->address);
			write_address(data + IP_SOURCE, &source->address);
		}
		quoted_sum = sum_address(quoted_sum, &turned->source, &source->address);
		write_address(quoted + destination_at, &source->address);
		port_sum = sum_change(port_sum, turned->source_port, source->port);
		ports[1] = source->port;
	}
	if (destination->wanted) {
		if (same_address(&outer->destination, &turned->destination)) {
			outer_sum =
				sum_address(outer_sum, &outer->destination, &destination->address);
			write_address(data + IP_DESTINATION, &destination->address);
		}
		quoted_sum = sum_address(quoted_sum, &turned->destination, &destination->address);
		write_address(quoted + source_at, &destination->address);
		port_sum = sum_change(port_sum, turned->destination_port, destination->port);
		ports[0] = destination->port;
	}
#if FAMILY == 4
	struct iphdr *ip = data + LINK_HEADER_BYTES;
	struct iphdr *quoted_ip = quoted;

	ip->check = ~sum_fold16((__u64)(__u16)~ip->check + outer_sum);
	quoted_ip->check = ~sum_fold16((__u64)(__u16)~quoted_ip->check + quoted_sum);
#else
	port_sum += sum_fold32(outer_sum);
	port_sum += sum_fold32(quoted_sum);
#endif
	*check = ~sum_fold16((__u64)(__u16) ~*check + port_sum);
	return 0;
}

/* rule: CO-20 */
INLINE int translate_error(struct __sk_buff *skb, int hook)
{
	struct packet outer;
	struct packet turned;
	struct flow_ref ref;
	struct flow_ref signpost = {};
	struct endpoint_change source = {};
	struct endpoint_change destination = {};
	struct way way = {};
	__u32 where = 0;
	__u32 now = TICK();
	int directly = 0;
	int inwards = 0;

	if (read_packet(skb, &outer) != PARSE_OTHER || !(outer.flags & PACKET_ICMP_ERROR) ||
	    !parse_quotation(skb, &outer, &turned))
		return NEXT;
	if (hook != HOOK_TO_POD && flow_lookup(&turned, 1, now, &ref)) {
		destination.address = ref.flow->backend;
		destination.port = ref.flow->backend_port;
		destination.wanted = 1;
		if (ref.word & FLOW_SNAT && !snat_change(&ref, &source))
			return drop(skb, REASON_NO_SNAT_SOURCE);
		directly = flow_source_id(ref.word) != 0;
	} else if (flow_lookup(&turned, 0, now, &ref)) {
		int sign = (ref.word & FLOW_TURNED) != 0;
		struct way *kept = way_of(ref.set, ref.slot);

		signpost = ref;
		if (sign && !follow_signpost(&turned, &ref, &destination))
			return NEXT;
		if (!answers_node(ref.word, hook))
			return NEXT;
		source.address = ref.flow->vip;
		source.port = ref.flow->vip_port;
		source.wanted = 1;
		directly = hook != HOOK_TO_POD && sign && flow_source_id(ref.word);
		inwards = directly && kept && kept->ifindex & SEND_INWARDS;
	} else {
		return NEXT;
	}
	if (!flow_unchanged(&ref))
		return NEXT;
	if (inwards) {
		where = way_back(skb, &signpost, &outer, &source.address, &destination.address, 1);
		/* a router's word is taken where it comes in */
		if (!same_address(&outer.source, &turned.source) || is_there(skb, where, hook))
			where = 0;
		else
			take_way_back(skb, &signpost, where);
	} else if (directly) {
		__u32 size = datagram_bytes(skb, &outer);
		int route = find_way(skb, &outer.source, &destination.address, outer.protocol,
				     ctx_interface(skb), &size, &way);

		if (hook != HOOK_TO_OUTSIDE && route == ROUTE_NONE)
			return drop(skb, REASON_NO_ROUTE);
		if (route == ROUTE_TOO_BIG)
			return drop(skb, REASON_TOO_BIG);
		if (!pass_hop(skb))
			return drop(skb, REASON_HOP_LIMIT);
		where = way.ifindex;
		if (route == ROUTE_NONE)
			where = take_loopback(skb); /* from one process of the node's to another */
		else if (route == ROUTE_UNKNOWN || route == ROUTE_LAYER_3)
			where |= SEND_NEIGHBOUR;
		else
			set_macs(skb, way.destination_mac, way.source_mac);
	}
	count_packet(skb, REASON_ICMP_ERROR);
	if (rewrite_error(skb, &outer, &turned, &source, &destination))
		return drop(skb, REASON_REWRITE_FAILED);
	return send_by(skb, where);
}
