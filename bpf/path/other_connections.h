/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * Connections of others, which may be taken for one of ours.
 *
 * Others translate addresses on this node as well (the CNI masquerades pods, hostPorts), and the node's
 * own sockets use its addresses. All of that passes the egress of an interface, where it is known from
 * its first packet on:
 *
 *   from the node to a backend   A HELD signpost: nothing is masqueraded with this tuple, and its answers
 *                                are left alone. Where a masqueraded flow has the tuple already, the
 *                                newcomer leaves from another port.
 *   from a frontend's port       A PASS entry: the answers are not a client's.
 *
 * Past the Service, a client's connection to a backend is a PASS entry as well, so that one by the
 * Service from the same port gets another port, and the other way round.
 *
 * All this is asked only for what goes to, or comes from, an address and port that the agent has noted in
 * `known_ends`.
 */
#pragma once

#include "ground/context.h"
#include "connections/flow_create.h"
#include "packet/fragment.h"
#include "path/hook.h"
#include "services/decide.h"

/* in NOTE_ATTEMPT, beside the number of calls: the client's own port cannot be kept */
#define ANOTHER_PORT 0x10000
/* and the stack must not see it either (FLOW_PORTED) */
#define PORTED_ON_ENTRY 0x20000
/* The backend has been chosen: see CALL_CHOOSE. */
#define CHOSEN 0x40000

/* May there be a frontend or a backend at this address and port? */
INLINE int is_known_end(const addr *address, __be16 port)
{
	__u32 bit = hash_end(address, port);

	return known_ends_get(bit >> 6) >> (bit & 63) & 1;
}

/* Does the packet open a connection? Of UDP each does that belongs to none. */
INLINE int opens(const struct packet *packet)
{
	return packet->protocol == IPPROTO_UDP || packet->flags & PACKET_SYN;
}

/* rule: CO-28 */
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

/* Something is masqueraded towards this address from now on. */
INLINE void note_masqueraded(const addr *backend)
{
	__u32 index = hash_filter(backend);
	__u64 bit = 1ULL << (index & 63);
	__u64 *word = masqueraded_get(index >> 6);

	if (word && UNLIKELY(!(READ_ONCE(*word) & bit)))
		__sync_fetch_and_or(word, bit);
}

/* May something be masqueraded towards this address? */
INLINE int may_be_masqueraded_to(const addr *address)
{
	__u32 index = hash_filter(address);
	__u64 *word = masqueraded_get(index >> 6);

	return word && READ_ONCE(*word) >> (index & 63) & 1;
}

/*
 * Does the packet leave from an address of the node, in a connection that must be known? Not each that
 * has an address of ours is from the node; the filter errs, and Services' addresses are in it as well.
 */
INLINE int may_be_taken_for_ours(const struct packet *packet)
{
	return has_ports(packet->protocol) && may_be_ours(&packet->source) &&
	       (is_known_end(&packet->destination, packet->destination_port) ||
		(packet->protocol == IPPROTO_UDP &&
		 is_known_end(&packet->source, packet->source_port)));
}

/* Is this exactly what some Service is asked by? */
INLINE struct frontend *exact_frontend(const addr *address, __be16 port, __u8 protocol)
{
	struct frontend_key key = {};

	key.address = *address;
	key.port = port;
	key.protocol = protocol;
	return frontend_get(&key);
}

/* rule: CO-6 */
/*
 * Is the source itself what a Service is asked by? Then it is an answer, or forged: nobody opens a
 * connection from there, and two Services would answer each other for ever.
 */
INLINE struct frontend *comes_from_frontend(const struct packet *packet)
{
	return may_be_ours(&packet->source) && has_ports(packet->protocol) ?
		       exact_frontend(&packet->source, packet->source_port, packet->protocol) :
		       0;
}

/* Likewise, where it comes in (`from_node` 0), or leaves. The node's own sockets may have nodePorts. */
INLINE int may_not_open(const struct packet *packet, int from_node)
{
	struct frontend *source = comes_from_frontend(packet);

	return source && !(from_node && source->kind == FRONTEND_NODE_PORT);
}

/* An entry without translation: `kind` is FLOW_PASS, or FLOW_SIGNPOST | SIGNPOST_HELD. */
INLINE int create_untranslated(const struct packet *packet, const addr *backend,
			       __be16 backend_port, __u64 kind, __u32 now, struct flow_ref *ref)
{
	struct new_flow new;

	new.packet = packet;
	new.backend = backend;
	new.backend_port = backend_port;
	new.snat_port = 0;
	new.bits = kind;
	new.takes_over = 0;
	new.way = 0;
	new.way_back = 0;
	new.spared = NO_PLACE;
	return flow_create(&new, FLOW_AT_HOME, now, ref);
}

/*
 * A packet from an address of the node, in a connection that is not ours: known from now on, so that
 * nothing is masqueraded with its tuple, and its answers open no connection.
 */
/* rule: CO-3, CO-4 */
INLINE void note_own(const struct packet *packet, __u32 now)
{
	__u64 kind = FLOW_SIGNPOST | SIGNPOST_HELD;
	struct packet tuple = *packet;
	struct flow_ref ref;

	if (!is_known_end(&packet->destination, packet->destination_port)) {
		if (packet->protocol != IPPROTO_UDP || !comes_from_frontend(packet))
			return;
		turn_round(packet, &tuple);
		kind = FLOW_PASS;
		if (flow_lookup(&tuple, FLOW_ASKS, now, &ref)) {
			if ((ref.word & FLOW_KIND_MASK) == FLOW_PASS) {
				flow_touch(&ref, 0, 0, now);
				return;
			}
			/* an answer came before its question was seen here, and was taken for a client's */
			flow_close(&ref);
		}
	}
	/* made in one place: the verifier goes through all of that once */
	kind = forget(kind, now);
	create_untranslated(&tuple, &tuple.destination, tuple.destination_port, kind, now, &ref);
}

/* A connection that is not a Service's must have another port, to where it goes anyway. */
INLINE void decide_other_port(const struct packet *packet, struct verdict *verdict)
{
	verdict->address = packet->destination;
	verdict->port = packet->destination_port;
	verdict->service_id = 0;
	verdict->backend_id = BACKEND_ITSELF;
	verdict->affinity_timeout = 0;
	verdict->masquerade = 0;
	verdict->keep_affinity = 0;
	verdict->backend_flags = 0;
}

/* Connections past their Service that needed another port: rare, and only then are all looked up. */
INLINE int direct_in_use(__u32 now)
{
	__u32 *used = direct_moved_get();
	__u32 last = used ? READ_ONCE(*used) : 0;

	return last && now - last <= TIMEOUT_LONGEST;
}

INLINE void use_direct(__u32 now)
{
	__u32 *used = direct_moved_get();

	if (used && READ_ONCE(*used) != now)
		WRITE_ONCE(*used, now);
}

/* A packet to no address of ours: may it go to a backend past the Service, in a way that matters? */
INLINE int may_go_direct(const struct packet *packet)
{
	if (!has_ports(packet->protocol) || is_fragment(packet))
		return 0;
	return (opens(packet) || UNLIKELY(direct_in_use(TICK()))) &&
	       is_known_end(&packet->destination, packet->destination_port);
}
