/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * The node's own connections share its addresses with what is masqueraded. A port that a socket
 * holds is not used for masquerading; a socket that takes one in use later keeps its answers.
 */
#pragma once

#include "context.h"
#include "packet.h"

/* Does a socket of the node hold this connection? Listening ones do not count. */
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
