/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * Uplinks and tunnels. Ingress: outside clients to one of our addresses are translated, with SNAT
 * where the backend is on another node, and replies to what was SNATed are sent back to the client.
 * Egress: the source of replies from backends here is restored; and what the node's own sockets send
 * to a frontend past the cgroup hooks (raw sockets, kernel clients, no cgroup v2) is translated.
 */
#pragma once

#include "translate.h"

INLINE int from_outside(struct __sk_buff *skb)
{
	struct packet packet;
	struct flow_ref ref;
	int parsed = read_packet(skb, &packet);

	if (UNLIKELY(parsed == PARSE_TRUNCATED || parsed == PARSE_HEADER_CHAIN))
		return unreadable(skb, parsed);
	if (!may_be_ours(&packet.destination))
		return TC_NEXT;
	skb->cb[CB_ATTEMPT] = 0;
	if (UNLIKELY(packet.flags & PACKET_ICMP_ERROR))
		return slow_path(skb, CALL_ICMP_ERROR + HOOK_FROM_OUTSIDE);
	if (UNLIKELY(parsed == PARSE_OTHER))
		return slow_path(skb, CALL_NEW_FLOW + CALLS_OF_OUTSIDE);
	if (UNLIKELY(packet.flags & PACKET_LATER_FRAGMENT) && !fragment_recall(&packet))
		return slow_path(skb, CALL_NEW_FLOW + CALLS_OF_OUTSIDE);

	__u32 now = TICK();

	if (LIKELY(flow_lookup(&packet, 1, now, &ref) && !flow_reused(ref.word, packet.flags)))
		return translate_to_backend(skb, &packet, &ref, now, HOOK_FROM_OUTSIDE);
	return slow_path(skb, CALL_REPLY + CALLS_OF_OUTSIDE);
}

/* To an address of ours, but not towards a backend: back from one, to what was SNATed or the node. */
INLINE int reply_from_outside(struct __sk_buff *skb)
{
	struct packet packet;
	struct flow_ref ref;
	__u32 now = TICK();

	if (read_packet(skb, &packet) != PARSE_OK)
		return TC_NEXT;
	if (UNLIKELY(packet.flags & PACKET_LATER_FRAGMENT) && !fragment_recall(&packet))
		return TC_NEXT;
	if (!flow_lookup(&packet, 0, now, &ref))
		return slow_path(skb, CALL_NEW_FLOW + CALLS_OF_OUTSIDE);
	return translate_reply(skb, &packet, &ref, now, HOOK_FROM_OUTSIDE);
}

INLINE int to_outside(struct __sk_buff *skb)
{
	struct packet packet;
	struct flow_ref ref;
	int parsed = read_packet(skb, &packet);

	if (UNLIKELY(parsed == PARSE_TRUNCATED || parsed == PARSE_HEADER_CHAIN))
		return TC_NEXT;
	if (UNLIKELY(packet.flags & PACKET_ICMP_ERROR))
		return slow_path(skb, CALL_ICMP_ERROR + HOOK_TO_OUTSIDE);
	if (UNLIKELY(may_be_ours(&packet.destination))) {
		skb->cb[CB_ATTEMPT] = 0;
		return slow_path(skb, CALL_ESTABLISHED + CALLS_OF_NODE);
	}
	if (UNLIKELY(parsed == PARSE_OTHER))
		return TC_NEXT;
	if (UNLIKELY(packet.flags & PACKET_LATER_FRAGMENT) && !fragment_recall(&packet))
		return TC_NEXT;

	__u32 now = TICK();

	if (flow_lookup(&packet, 0, now, &ref))
		return translate_reply(skb, &packet, &ref, now, HOOK_TO_OUTSIDE);
	return TC_NEXT;
}

/* What the node itself sends to a frontend, untranslated by the socket. */
INLINE int from_node(struct __sk_buff *skb)
{
	struct packet packet;
	struct flow_ref ref;
	__u32 now = TICK();
	int parsed = read_packet(skb, &packet);

	if (parsed == PARSE_OK &&
	    (!(packet.flags & PACKET_LATER_FRAGMENT) || fragment_recall(&packet)) &&
	    flow_lookup(&packet, 1, now, &ref) && !flow_reused(ref.word, packet.flags))
		return translate_to_backend(skb, &packet, &ref, now, HOOK_TO_OUTSIDE);
	return slow_path(skb, CALL_NEW_FLOW + CALLS_OF_NODE);
}
