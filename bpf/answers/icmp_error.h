/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * ICMP errors about translated packets: too big, unreachable, time exceeded. Path-MTU discovery
 * depends on them.
 *
 * An error travels against the packet that it quotes. So it goes where an answer to that packet would
 * go: turn the quotation round, and what comes out is a packet of the flow as any other, which tells
 * how both headers are to be changed. The quoted ends become what their owner knows them as; the outer
 * destination, who sent the quoted packet, is changed with it; so is the outer source, unless it is some
 * router's.
 */
#pragma once

#include "path/translate.h"

/* What is read of a quotation: it, turned round, and where its IP header stands. */
struct quotation {
	struct packet turned;
	__u32 ip_offset;
};

#if FAMILY == 4

INLINE __u32 quotation_offset(struct __sk_buff *skb, const struct packet *outer)
{
	return (outer->l4_offset & MAX_L4_OFFSET) + 8;
}

INLINE int parse_quoted_headers(struct __sk_buff *skb, struct quotation *quotation, __u32 *l4)
{
	void *data_end = (void *)(long)skb->data_end;
	__u32 offset = quotation->ip_offset & MAX_L4_OFFSET;
	struct iphdr *ip = packet_at((void *)(long)skb->data, offset);

	if ((void *)(ip + 1) > data_end || ip->version != 4 || ip->ihl < 5 ||
	    ip->frag_off & htons16(IPV4_OFFSET))
		return 0;
	quotation->turned.source.word[0] = ip->daddr;
	quotation->turned.destination.word[0] = ip->saddr;
	quotation->turned.protocol = ip->protocol;
	*l4 = offset + ip->ihl * 4;
	return 1;
}

#else

/* Type, code and checksum, reserved word, target, destination (RFC 4861, 4.5). */
#define REDIRECT_BYTES 40
#define OPTION_REDIRECTED_HEADER 4

/* A redirect quotes in an option, which may be the first one or stand behind the target's MAC address. */
INLINE __u32 quotation_offset(struct __sk_buff *skb, const struct packet *outer)
{
	__u32 offset = (outer->l4_offset & MAX_L4_OFFSET) + 8;
	__u8 *option;

	if (LIKELY(!(outer->flags & PACKET_REDIRECT)))
		return offset;
	offset += REDIRECT_BYTES - 8;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		option = packet_at((void *)(long)skb->data, offset);
		if ((void *)(option + 2) > (void *)(long)skb->data_end)
			return MAX_L4_OFFSET;
		if (option[0] == OPTION_REDIRECTED_HEADER)
			return offset + 8;
		offset += option[1] * 8;
	}
	return MAX_L4_OFFSET;
}

/* So many extension headers are followed in a quotation. */
#define QUOTED_EXTENSION_HEADERS 3

INLINE int parse_quoted_headers(struct __sk_buff *skb, struct quotation *quotation, __u32 *l4)
{
	void *data_end = (void *)(long)skb->data_end;
	__u32 offset = quotation->ip_offset & MAX_L4_OFFSET;
	struct ipv6hdr *ip = packet_at((void *)(long)skb->data, offset);
	__u8 next;

	if ((void *)(ip + 1) > data_end || ip->version != 6)
		return 0;
	__builtin_memcpy(&quotation->turned.source, &ip->daddr, sizeof(addr));
	__builtin_memcpy(&quotation->turned.destination, &ip->saddr, sizeof(addr));
	next = ip->nexthdr;
	offset += sizeof(*ip);
#pragma unroll
	for (int i = 0; i < QUOTED_EXTENSION_HEADERS; i++) {
		struct extension_header *extension = packet_at((void *)(long)skb->data, offset);

		if (LIKELY(next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING &&
			   next != IPPROTO_DSTOPTS && next != IPPROTO_FRAGMENT))
			break;
		if ((void *)(extension + 1) > data_end)
			return 0;
		/* of later fragments there are no ports */
		if (next == IPPROTO_FRAGMENT && extension->fragment_offset & htons16(0xfff8))
			return 0;
		offset += next == IPPROTO_FRAGMENT ? 8 : (extension->length + 1) * 8;
		next = extension->next;
		if (offset > MAX_L4_OFFSET)
			return 0;
	}
	quotation->turned.protocol = next;
	*l4 = offset;
	return 1;
}

#endif

/* Returns 0 if it does not hold ports. */
INLINE int parse_quotation(struct __sk_buff *skb, const struct packet *outer,
			   struct quotation *quotation)
{
	struct packet *turned = &quotation->turned;
	__u32 l4 = 0;

	quotation->ip_offset = quotation_offset(skb, outer) & MAX_L4_OFFSET;
	if (!parse_quoted_headers(skb, quotation, &l4) || l4 > MAX_L4_OFFSET ||
	    !has_ports(turned->protocol))
		return 0;

	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
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
			 const struct quotation *quotation, const struct endpoint_change *source,
			 const struct endpoint_change *destination)
{
	const struct packet *turned = &quotation->turned;
	void *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	__u32 icmp = outer->l4_offset & MAX_L4_OFFSET;
	void *quoted = packet_at(data, quotation->ip_offset);
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
		outer_sum = sum_address(outer_sum, &outer->destination, &destination->address);
		write_address(data + IP_DESTINATION, &destination->address);
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

/* Who receives it, where the stack does not deliver it. */
enum error_hearer {
	ERROR_NOBODYS,	  /* of no flow, or nothing becomes of it here */
	ERROR_FORWARDED,  /* who is not on this node, or hears it from the stack */
	ERROR_PAST_STACK, /* who is not on this node, and whose packets the stack does not see */
	ERROR_TO_NODE,	  /* the node's own socket, by a signpost */
	ERROR_FROM_NODE,  /* a backend, and the node itself has sent it */
};

/* A masqueraded flow to which a packet belongs that leaves for its backend; not one of the node's own. */
INLINE int leaves_masqueraded(const struct packet *packet, __u32 now, struct flow_ref *ref)
{
	struct packet reply;
	struct endpoint_change client;

	if (!flow_lookup(packet, FLOW_LEAVES, now, ref))
		return 0;
	if (ref->word & FLOW_SIGNPOST) {
		if (ref->word & (SIGNPOST_HELD | SIGNPOST_OF_NODE))
			return 0;
		turn_round(packet, &reply);
		if (!follow_signpost(&reply, ref, &client) ||
		    !same_address(&ref->flow->client, &packet->source))
			return 0;
	}
	return !(ref->word & FLOW_KIND_MASK) && flow_source_id(ref->word);
}

/*
 * Are packets that name their VIP translated at this hook? Where they leave, only the node's own; what a
 * client's error looks like there belongs to the flow as it left the stack.
 */
INLINE int asks_here(const struct packet *turned, int hook)
{
	return is_entry(hook) || (hook == HOOK_TO_OUTSIDE && (may_be_ours(&turned->source) ||
							      may_be_ours(&turned->destination)));
}

/*
 * What becomes of the quotation, turned round, by the flow that it belongs to: as of a packet of that
 * flow at this hook. `found`: the entry by which it was found.
 */
INLINE int error_changes(const struct packet *turned, int hook, __u32 now, struct flow_ref *ref,
			 struct flow_ref *found, struct endpoint_change *source,
			 struct endpoint_change *destination)
{
	int ported, past = 0;

	/* about a reply to the client: towards the backend */
	if (asks_here(turned, hook) && flow_lookup(turned, FLOW_ASKS, now, ref)) {
		int from_node = hook == HOOK_TO_OUTSIDE;

		if (ref->word & FLOW_KIND_MASK)
			return ERROR_NOBODYS;
		past = hook == HOOK_FROM_OUTSIDE && flow_of_xdp(ref->word);
		destination->address = ref->flow->backend;
		destination->port = ref->flow->backend_port;
		destination->wanted = 1;
		if (!source_on_entry(ref, from_node || past, source))
			return ERROR_NOBODYS;
		if (past)
			return ERROR_PAST_STACK;
		return from_node && flow_source_id(ref->word) ? ERROR_FROM_NODE : ERROR_FORWARDED;
	}
	/* the same where it leaves */
	if (!is_entry(hook) && leaves_masqueraded(turned, now, ref)) {
		source->port = ref->flow->snat_port;
		source->wanted = 1;
		return seen_address(ref, &source->address) ? ERROR_FORWARDED : ERROR_NOBODYS;
	}
	/* about a packet to the backend: towards the client */
	if (!flow_lookup(turned, FLOW_ANSWERS, now, ref))
		return ERROR_NOBODYS;
	*found = *ref;
	if (!(found->word & FLOW_SIGNPOST)) {
		if (found->word & FLOW_PASS || is_entry(hook))
			return ERROR_NOBODYS;
	} else {
		if (found->word & SIGNPOST_HELD || !follow_signpost(turned, ref, destination))
			return ERROR_NOBODYS;
		if (!(found->word & SIGNPOST_OF_NODE) && is_entry(hook)) {
			ported = (ref->word & FLOW_PORTED) != 0;
			/* of the two that a PORTED flow may have, only one is the node's */
			if (!flow_source_id(ref->word) ||
			    (ported && same_address(&ref->flow->client, &turned->destination)))
				return ERROR_NOBODYS;
			if (ported)
				destination->port = ref->flow->snat_port;
			past = hook == HOOK_FROM_OUTSIDE && flow_of_xdp(ref->word);
			if (!past)
				return ERROR_FORWARDED;
		}
	}
	source->address = ref->flow->vip;
	source->port = ref->flow->vip_port;
	source->wanted = 1;
	if (past)
		return ERROR_PAST_STACK;
	return found->word & FLOW_SIGNPOST && found->word & SIGNPOST_OF_NODE &&
			       flow_source_id(ref->word) && hook != HOOK_TO_POD ?
		       ERROR_TO_NODE :
		       ERROR_FORWARDED;
}

/*
 * Where an error goes that the stack does not forward, with its link header; SEND_TOO_BIG: nowhere. Or to a
 * process of the node's own.
 */
INLINE __u32 way_of_error(struct __sk_buff *skb, const struct packet *outer, const addr *hearer,
			  int hearer_is_of_node)
{
	struct way way = {};
	__u32 size = datagram_bytes(skb, outer);
	int route = find_way(skb, &outer->source, hearer, outer->protocol, ctx_interface(skb),
			     &size, &way);

	if (route == ROUTE_TOO_BIG)
		return SEND_TOO_BIG;
	if (route == ROUTE_NONE) /* to another process of its own; or from nobody's address */
		return hearer_is_of_node ? take_loopback(skb) : 0;
	if (route == ROUTE_UNKNOWN || route == ROUTE_LAYER_3)
		return way.ifindex | SEND_NEIGHBOUR;
	set_macs(skb, way.destination_mac, way.source_mac);
	return way.ifindex;
}

/* rule: CO-20 */
INLINE int translate_error(struct __sk_buff *skb, int hook)
{
	struct packet outer;
	struct quotation quotation = {};
	struct flow_ref ref;
	struct flow_ref found = {};
	struct endpoint_change source = {};
	struct endpoint_change destination = {};
	__u32 where = 0;
	__u32 now = TICK();
	int hearer;

	if (read_packet(skb, &outer) != PARSE_OTHER || !(outer.flags & PACKET_ICMP_ERROR))
		return NEXT;
	forget_kind(&outer, now);
	/* told to somebody else than who sent the quoted packet, it is none (as to netfilter) */
	if (!parse_quotation(skb, &outer, &quotation) ||
	    !same_address(&outer.destination, &quotation.turned.destination))
		return NEXT;
	forget_kind(&quotation.turned, now);
	hearer = error_changes(&quotation.turned, hook, now, &ref, &found, &source, &destination);
	if (hearer == ERROR_NOBODYS || !flow_unchanged(&ref))
		return NEXT;
	/* which of them apply depends on how it was found */
	source.wanted = forget(source.wanted, now);
	destination.wanted = forget(destination.wanted, now);
	/* rule: CO-21 */
	/* it names a way to the backend, and its hearer would take it for one to the VIP */
	if (outer.flags & PACKET_REDIRECT)
		return drop(skb, REASON_REDIRECT);
	if (hearer == ERROR_TO_NODE) {
		where = way_back(skb, &found, &outer, &source.address, &destination.address, 1);
		/* a router's error is accepted where it comes in */
		if (!same_address(&outer.source, &quotation.turned.source) ||
		    is_there(skb, where, hook))
			where = 0;
		else
			take_way_back(skb, &found, where);
	} else if (hearer == ERROR_FROM_NODE || hearer == ERROR_PAST_STACK) {
		/* it has been on its way to the VIP, or is to be sent on as its flow's packets are */
		where = way_of_error(skb, &outer, &destination.address, hearer == ERROR_FROM_NODE);
		if (where >= SEND_TOO_BIG)
			return drop(skb, REASON_TOO_BIG);
		if (!where) /* the stack has no way either, and knows what to do about it */
			return NEXT;
		if (hearer == ERROR_PAST_STACK) {
			if (!pass_hop(skb)) /* of an error there is none (RFC 1122, 3.2.2) */
				return drop(skb, REASON_HOP_LIMIT);
			ctx_note_translated(skb);
		}
	}
	count_packet(skb, REASON_ICMP_ERROR);
	if (rewrite_error(skb, &outer, &quotation, &source, &destination))
		return drop(skb, REASON_REWRITE_FAILED);
	return send_by(skb, where);
}
