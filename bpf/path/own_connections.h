/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * The node's own connections share its addresses with what is masqueraded. A port that a socket holds
 * is not used for masquerading. A socket that takes one in use later, towards the very same backend,
 * is noticed when it speaks: it is masqueraded itself, by its own address from another port, so that
 * both live. All that is done only where somebody's packets go to this backend masqueraded at all.
 */
#pragma once

#include "ground/context.h"
#include "connections/flow.h"
#include "packet/parse.h"
#include "path/hook.h"

/* Does a socket of the node hold this connection? Listening ones do not count. */
/* rule: CO-28 */
INLINE int node_socket_exists(context *ctx, __u8 protocol, const addr *local, __be16 local_port,
			      const addr *remote, __be16 remote_port)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;
	int found;

#if FAMILY == 4
	tuple.ipv4.saddr = remote->word[0];
	tuple.ipv4.daddr = local->word[0];
	tuple.ipv4.sport = remote_port;
	tuple.ipv4.dport = local_port;
#define TUPLE_BYTES sizeof(tuple.ipv4)
#else
	__builtin_memcpy(tuple.ipv6.saddr, remote, sizeof(addr));
	__builtin_memcpy(tuple.ipv6.daddr, local, sizeof(addr));
	tuple.ipv6.sport = remote_port;
	tuple.ipv6.dport = local_port;
#define TUPLE_BYTES sizeof(tuple.ipv6)
#endif
	if (protocol == IPPROTO_TCP)
		socket = bpf_sk_lookup_tcp(ctx, &tuple, TUPLE_BYTES, BPF_F_CURRENT_NETNS, 0);
	else if (protocol == IPPROTO_UDP)
		socket = bpf_sk_lookup_udp(ctx, &tuple, TUPLE_BYTES, BPF_F_CURRENT_NETNS, 0);
	else
		return 0;
	if (!socket)
		return 0;
	found = protocol == IPPROTO_UDP || socket->state != BPF_TCP_LISTEN;
	bpf_sk_release(socket);
	return found;
}

/* Something is masqueraded towards this address from now on. */
INLINE void note_masqueraded(const addr *backend)
{
	__u32 index = hash_filter(backend);
	__u64 bit = 1ULL << (index & 63);
	__u64 *word = masqueraded_get(index >> 6);

	if (!word)
		return;

	__u64 bits = READ_ONCE(*word);

#pragma unroll
	for (int i = 0; i < 4; i++) {
		if (bits & bit)
			return;

		__u64 seen = __sync_val_compare_and_swap(word, bits, bits | bit);

		if (seen == bits)
			return;
		bits = seen;
	}
}

/* May something be masqueraded towards where the node's own packet goes? */
INLINE int may_collide(context *ctx, const struct packet *packet)
{
	__u32 index = hash_filter(&packet->destination);
	__u64 *word = ctx_is_own(ctx) ? masqueraded_get(index >> 6) : 0;

	return word && READ_ONCE(*word) >> (index & 63) & 1;
}

/* Does the node open a connection of its own here with ports that are in use for masquerading? */
INLINE int collides(context *ctx, const struct packet *packet, __u32 now)
{
	struct packet reply;
	struct flow_ref ref;

	if (!may_collide(ctx, packet) ||
	    !(packet->protocol == IPPROTO_UDP || packet->flags & PACKET_SYN))
		return 0;
	turn_round(packet, &reply);
	if (!flow_lookup(&reply, 0, now, &ref) || !(ref.word & FLOW_TURNED))
		return 0;

	struct way *way = way_of(ref.set, ref.slot);

	/* what a socket of the node has sent to a VIP comes by here once more when it is translated */
	return way && !(way->ifindex & SEND_INWARDS) &&
	       node_socket_exists(ctx, packet->protocol, &packet->source, packet->source_port,
				  &packet->destination, packet->destination_port);
}
