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

#include "ground/event.h"
#include "services/decide.h"

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

INLINE void socket_key_for(struct socket_key *key, __u64 cookie, __u8 entry, const addr *address,
			   __be16 port)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->cookie = cookie;
	key->entry = entry;
	key->address = *address;
	key->port = port;
}

/*
 * Notes by which frontend the socket asks the verdict's backend, so that it hears the answers from
 * there. Returns 0, and notes nothing, if it still waits for the backend's answers to another one:
 * to which of both an answer belongs could not be told.
 */
INLINE int notes_frontend(__u64 cookie, const struct packet *packet, const struct verdict *verdict,
			  __u32 now, int in_any_case)
{
	struct socket_key key;
	struct socket_peer new = {};
	struct socket_peer *peer;

	socket_key_for(&key, cookie, SOCKET_HEARS, &verdict->address, verdict->port);
	peer = socket_peer_get(&key);
	if (peer && peer->port == packet->destination_port &&
	    same_address(&peer->address, &packet->destination)) {
		/* in place: an update of an LRU map costs many times as much */
		WRITE_ONCE(peer->service_id, verdict->service_id);
		WRITE_ONCE(peer->last_used, now);
		return 1;
	}
	if (peer && !in_any_case && now - peer->last_used <= TIMEOUT_UDP)
		return 0;
	new.address = packet->destination;
	new.port = packet->destination_port;
	new.service_id = verdict->service_id;
	new.backend_id = verdict->backend_id;
	new.last_used = now;
	socket_peer_set(&key, &new);
	return 1;
}

/* An unconnected socket's datagrams to one frontend go to one backend, as long as that serves. */
INLINE void notes_backend(__u64 cookie, const struct packet *packet, const struct verdict *verdict,
			  __u32 now)
{
	struct socket_key key;
	struct socket_peer new = {};

	socket_key_for(&key, cookie, SOCKET_ASKS, &packet->destination, packet->destination_port);
	new.address = verdict->address;
	new.port = verdict->port;
	new.service_id = verdict->service_id;
	new.backend_id = verdict->backend_id;
	new.last_used = now;
	socket_peer_set(&key, &new);
}

INLINE int keeps_to_backend(__u64 cookie, const struct packet *packet, __u32 now,
			    struct verdict *verdict)
{
	struct socket_key key;
	struct socket_peer *peer;
	struct backend *backend;

	socket_key_for(&key, cookie, SOCKET_ASKS, &packet->destination, packet->destination_port);
	peer = socket_peer_get(&key);
	if (!peer || now - peer->last_used > TIMEOUT_UDP)
		return 0;
	backend = backend_get(peer->backend_id);
	if (!backend || !(backend->flags & (BACKEND_IN_CLUSTER_SET | BACKEND_IN_LOCAL_SET)) ||
	    backend->service_id != peer->service_id || backend->port != peer->port ||
	    !same_address(&backend->address, &peer->address))
		return 0;
	verdict->address = peer->address;
	verdict->port = peer->port;
	verdict->service_id = peer->service_id;
	verdict->backend_id = peer->backend_id;
	WRITE_ONCE(peer->last_used, now);
	return notes_frontend(cookie, packet, verdict, now, 0);
}

/* So often another backend is looked for where the socket waits for answers of the first one. */
#define OTHER_BACKENDS 3

/* A verdict's action; ACTION_PASS also where packets must be translated instead. */
INLINE int decide_for_socket(__u64 cookie, struct packet *packet, int client, __u32 now,
			     int connecting, struct verdict *verdict)
{
	int action = decide(packet, client, now, CHOOSE_AT_ONCE, 0, verdict);

	if (action != ACTION_TRANSLATE)
		return action;
	if (notes_frontend(cookie, packet, verdict, now, connecting))
		return ACTION_TRANSLATE;
#pragma unroll
	for (int i = 1; i <= OTHER_BACKENDS; i++) {
		packet->source_port ^= cookie >> 7 * i;
		packet->source_port++;
		action = decide(packet, client, now, CHOOSE_ANY, 0, verdict);
		if (action != ACTION_TRANSLATE)
			return action;
		if (notes_frontend(cookie, packet, verdict, now, 0))
			return ACTION_TRANSLATE;
	}
	/* its packets are translated where they leave, from a port that tells the answers apart */
	return ACTION_PASS;
}

/*
 * A process of the node that listens on that very loopback address and port goes first: it was there
 * for others of the node before there were node ports, or is another way to the same Service.
 */
/* rule: KI-15 */
INLINE int somebody_listens(struct bpf_sock_addr *ctx, const struct packet *packet)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;
	int found;

#if FAMILY == 4
	tuple.ipv4.saddr = packet->destination.word[0];
	tuple.ipv4.daddr = packet->destination.word[0];
	tuple.ipv4.dport = packet->destination_port;
#define LISTENER_BYTES sizeof(tuple.ipv4)
#else
	__builtin_memcpy(tuple.ipv6.saddr, &packet->destination, sizeof(addr));
	__builtin_memcpy(tuple.ipv6.daddr, &packet->destination, sizeof(addr));
	tuple.ipv6.dport = packet->destination_port;
#define LISTENER_BYTES sizeof(tuple.ipv6)
#endif
	if (packet->protocol == IPPROTO_TCP)
		socket = bpf_sk_lookup_tcp(ctx, &tuple, LISTENER_BYTES, BPF_F_CURRENT_NETNS, 0);
	else if (packet->protocol == IPPROTO_UDP)
		socket = bpf_sk_lookup_udp(ctx, &tuple, LISTENER_BYTES, BPF_F_CURRENT_NETNS, 0);
	else
		return 0;
	if (!socket)
		return 0;
		/* not one that listens on all addresses */
#if FAMILY == 4
	found = socket->src_ip4 == packet->destination.word[0];
#else
	found = socket->src_ip6[3] == packet->destination.word[3];
#endif
	bpf_sk_release(socket);
	return found;
}

#ifndef SOL_SOCKET
#define SOL_SOCKET 1
#define SO_REUSEADDR 2
#define SO_REUSEPORT 15
#endif

/* rule: CO-5 */
/*
 * Has the socket a port that another may have too? That one may connect to the backend itself, and the kernel
 * has no two connections with the same ends: it would refuse the second of them. So this one's packets are
 * translated where they leave, from another port if need be.
 */
INLINE int shares_its_port(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *socket = ctx->sk;
	int address = 0, port = 0;

	if (!socket || !socket->src_port)
		return 0;
	bpf_getsockopt(ctx, SOL_SOCKET, SO_REUSEADDR, &address, sizeof(address));
	bpf_getsockopt(ctx, SOL_SOCKET, SO_REUSEPORT, &port, sizeof(port));
	return address || port;
}

INLINE int socket_names_peer(struct bpf_sock_addr *ctx, int form, int connecting)
{
	struct packet packet = {};
	struct verdict verdict;
	struct snat_source *source;
	int client = CLIENT_NODE;
	__u64 cookie;
	__u32 now;
	addr asked;

	if (!read_peer(ctx, form, &packet.destination))
		return SOCKET_ALLOW;
	asked = packet.destination;
	/* rule: KI-14 */
	if (is_loopback(&asked)) {
		client = CLIENT_LOCALHOST;
		loopback(&asked);
	}
	if (!may_be_ours(&asked) || !of_node(ctx))
		return SOCKET_ALLOW;
	cookie = socket_cookie(ctx);
	packet.destination_port = ctx->user_port;
	packet.protocol = ctx->protocol;
	if (client == CLIENT_LOCALHOST && somebody_listens(ctx, &packet))
		return SOCKET_ALLOW;
	if (connecting && client == CLIENT_NODE && packet.protocol == IPPROTO_TCP &&
	    shares_its_port(ctx))
		return SOCKET_ALLOW;
	now = TICK();
	if (!connecting && keeps_to_backend(cookie, &packet, now, &verdict))
		goto known;
	source = snat_source_get(NODE_SOURCE_ID);
	if (source)
		packet.source = source->address;
	/* No port is bound yet; the cookie spreads sockets over backends. */
	packet.source_port = cookie ^ cookie >> 16;
	switch (decide_for_socket(cookie, &packet, client, now, connecting, &verdict)) {
	case ACTION_TRANSLATE:
		break;
	case ACTION_REJECT:
		count_reason(verdict.reason, 1, 0);
		count_service_drop(verdict.reason, verdict.service_id, 1);
		tell_socket(verdict.reason, &packet, 0, verdict.service_id);
		bpf_set_retval(-ECONNREFUSED);
		return SOCKET_REFUSE;
	default:
		return SOCKET_ALLOW;
	}
	decided(&packet, &verdict, now);
	tell_socket(REASON_SOCKET, &packet, &verdict, verdict.service_id);
	if (!connecting)
		notes_backend(cookie, &packet, &verdict, now);
known:
	write_peer(ctx, form, &verdict.address, verdict.port);
	count_reason(REASON_SOCKET, 1, 0);
	count_service(verdict.service_id, connecting, 0, 0);
	return SOCKET_ALLOW;
}

/* The address that a socket is about to be told: a backend's becomes the frontend's again. */
INLINE int socket_hears_peer(struct bpf_sock_addr *ctx, int form)
{
	struct socket_key key;
	struct socket_peer *peer;
	addr backend;

	if (!read_peer(ctx, form, &backend))
		return SOCKET_ALLOW;
	socket_key_for(&key, socket_cookie(ctx), SOCKET_HEARS, &backend, ctx->user_port);
	peer = socket_peer_get(&key);
	if (peer)
		write_peer(ctx, form, &peer->address, peer->port);
	return SOCKET_ALLOW;
}
