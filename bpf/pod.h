/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * The host's side of a pod's interface. Ingress: what the pod sends; to one of our addresses it is
 * translated to a backend. Egress: what the pod receives; the source of replies is restored.
 */
#pragma once

#include "translate.h"

INLINE int from_pod(struct __sk_buff *skb)
{
	struct packet packet;
	struct flow_ref ref;
	int parsed = read_packet(skb, &packet);

	if (UNLIKELY(parsed == PARSE_TRUNCATED || parsed == PARSE_HEADER_CHAIN))
		return unreadable(skb, parsed);
	if (!may_be_ours(&packet.destination))
		return TC_NEXT;
	if (UNLIKELY(packet.flags & PACKET_ICMP_ERROR))
		return slow_path(skb, CALL_ICMP_ERROR + HOOK_FROM_POD);
	skb->cb[CB_ATTEMPT] = 0;
	if (UNLIKELY(parsed == PARSE_OTHER))
		return slow_path(skb, CALL_NEW_FLOW);
	if (UNLIKELY(packet.flags & PACKET_LATER_FRAGMENT) && !fragment_recall(&packet))
		return slow_path(skb, CALL_NEW_FLOW);

	__u32 now = TICK();

	if (LIKELY(flow_lookup(&packet, 1, now, &ref) && !flow_reused(ref.word, packet.flags)))
		return translate_to_backend(skb, &packet, &ref, now, HOOK_FROM_POD);
	return slow_path(skb, CALL_NEW_FLOW);
}

/* To an address of the node that the pod took for its client: the pod was its own backend. */
INLINE int reply_from_pod(struct __sk_buff *skb)
{
	struct packet packet;
	struct flow_ref ref;
	__u32 now = TICK();

	if (read_packet(skb, &packet) != PARSE_OK || !flow_lookup(&packet, 0, now, &ref))
		return TC_NEXT;
	return translate_reply(skb, &packet, &ref, now, HOOK_FROM_POD);
}

INLINE int to_pod(struct __sk_buff *skb)
{
	struct packet packet;
	struct flow_ref ref;
	int parsed = read_packet(skb, &packet);

	if (UNLIKELY(packet.flags & PACKET_ICMP_ERROR) && parsed == PARSE_OTHER)
		return slow_path(skb, CALL_ICMP_ERROR + HOOK_TO_POD);
	if (UNLIKELY(parsed != PARSE_OK))
		return TC_NEXT;
	/* not ours, or its first fragment was not seen: it cannot be told, and the pod would know it */
	if (UNLIKELY(packet.flags & PACKET_LATER_FRAGMENT) && !fragment_recall(&packet))
		return TC_NEXT;

	__u32 now = TICK();

	if (!flow_lookup(&packet, 0, now, &ref))
		return TC_NEXT;
	return translate_reply(skb, &packet, &ref, now, HOOK_TO_POD);
}
