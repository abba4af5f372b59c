/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * The node's own processes: translation when they name an address, not packet by packet.
 *
 * connect and unconnected sendmsg replace a frontend by a backend; recvmsg and getpeername give the
 * frontend back. Told from pods by the network namespace: hooks on the node's cgroup see them all.
 * REJECT is ECONNREFUSED at once; DROP leaves the address, so that the packets meet their fate.
 *
 * An IPv6 socket may name an IPv4 address (::ffff:a.b.c.d): the IPv4 build has programs for the IPv6
 * hooks that see to those and to nothing else.
 */
#pragma once

#include "count.h"
#include "decide.h"

#define SOCKET_ALLOW 1
#define SOCKET_REFUSE 0

/* In network order: the third word of ::ffff:0:0/96. */
#define MAPPED_PREFIX htonl32(0xffff)

/* How an address of this build stands in the hook's context. */
enum form {
	FORM_PLAIN,
	FORM_MAPPED,
};

/* Returns 0 if the context's address is not of this family. */
INLINE int read_peer(struct bpf_sock_addr *ctx, int form, addr *address)
{
#if FAMILY == 4
	if (form == FORM_PLAIN) {
		address->word[0] = ctx->user_ip4;
		return 1;
	}
	if (ctx->user_ip6[0] || ctx->user_ip6[1] || ctx->user_ip6[2] != MAPPED_PREFIX)
		return 0;
	address->word[0] = ctx->user_ip6[3];
#else
	address->word[0] = ctx->user_ip6[0];
	address->word[1] = ctx->user_ip6[1];
	address->word[2] = ctx->user_ip6[2];
	address->word[3] = ctx->user_ip6[3];
	if (!address->word[0] && !address->word[1] && address->word[2] == MAPPED_PREFIX)
		return 0;
#endif
	return 1;
}

INLINE void write_peer(struct bpf_sock_addr *ctx, int form, const addr *address, __be16 port)
{
#if FAMILY == 4
	if (form == FORM_PLAIN)
		ctx->user_ip4 = address->word[0];
	else
		ctx->user_ip6[3] = address->word[0];
#else
	ctx->user_ip6[0] = address->word[0];
	ctx->user_ip6[1] = address->word[1];
	ctx->user_ip6[2] = address->word[2];
	ctx->user_ip6[3] = address->word[3];
#endif
	ctx->user_port = port;
}

INLINE int of_node(struct bpf_sock_addr *ctx)
{
	struct config *config = config_get();

	return config && bpf_get_netns_cookie(ctx) == config->node_netns_cookie;
}

INLINE void remember_peer(__u64 cookie, const struct packet *packet, const struct verdict *verdict)
{
	struct socket_key key = {};
	struct socket_peer peer = {};

	key.cookie = cookie;
	key.backend = verdict->address;
	key.backend_port = verdict->port;
	peer.vip = packet->destination;
	peer.vip_port = packet->destination_port;
	peer.service_id = verdict->service_id;
	socket_peer_set(&key, &peer);
}

INLINE int socket_names_peer(struct bpf_sock_addr *ctx, int form, int connecting)
{
	struct packet packet = {};
	struct verdict verdict;
	struct snat_source *source;
	__u64 cookie;
	__u32 now;

	if (!read_peer(ctx, form, &packet.destination) || !may_be_ours(&packet.destination) ||
	    !of_node(ctx))
		return SOCKET_ALLOW;
	cookie = socket_cookie(ctx);
	source = snat_source_get(NODE_SOURCE_ID);
	if (source)
		packet.source = source->address;
	/* No port is bound yet; the cookie keeps a socket's datagrams with one backend. */
	packet.source_port = cookie ^ cookie >> 16;
	packet.destination_port = ctx->user_port;
	packet.protocol = ctx->protocol;
	now = TICK();
	switch (decide(&packet, CLIENT_NODE, now, &verdict)) {
	case ACTION_TRANSLATE:
		break;
	case ACTION_REJECT:
		count_reason(verdict.reason, 1, 0);
		bpf_set_retval(-ECONNREFUSED);
		return SOCKET_REFUSE;
	default:
		return SOCKET_ALLOW;
	}
	remember_peer(cookie, &packet, &verdict);
	write_peer(ctx, form, &verdict.address, verdict.port);
	decided(&packet, &verdict, now);
	count_reason(REASON_SOCKET, 1, 0);
	count_service(verdict.service_id, connecting, 0, 0);
	return SOCKET_ALLOW;
}

/* The address that a socket is about to be told: a backend's becomes the frontend's again. */
INLINE int socket_hears_peer(struct bpf_sock_addr *ctx, int form)
{
	struct socket_key key = {};
	struct socket_peer *peer;

	if (!read_peer(ctx, form, &key.backend))
		return SOCKET_ALLOW;
	key.cookie = socket_cookie(ctx);
	key.backend_port = ctx->user_port;
	peer = socket_peer_get(&key);
	if (peer)
		write_peer(ctx, form, &peer->vip, peer->vip_port);
	return SOCKET_ALLOW;
}
