/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * What becomes of a new connection: the verdict table of a Service, for every hook the same.
 * decide() reads maps and returns a verdict with its reason. It changes no packet and no map, so
 * that the same source can be asked what it would do; decided() notes what has come true.
 */
#pragma once

#include "ground/hash.h"
#include "ground/maps.h"
#include "packet/parse.h"
#include "services/choose.h"

enum client_kind {
	CLIENT_POD,	  /* a pod of this node */
	CLIENT_NODE,	  /* a process of this node */
	CLIENT_LOCALHOST, /* the same, asking a loopback address */
	CLIENT_REMOTE, /* anyone else, in by an uplink or tunnel: outside, or a pod of another node */
};

/* Instead of a backend's number: it is the one that the packet is for anyway, no Service's. */
#define BACKEND_ITSELF 0xffffffff

/* The number in snat_sources of the node's preferred source, which stands for the node itself. */
#define NODE_SOURCE_ID 1

enum action {
	ACTION_PASS,	  /* not ours: leave it as it is */
	ACTION_TRANSLATE, /* to verdict.address and verdict.port */
	ACTION_REJECT,	  /* answer at once: RST or ICMP port unreachable */
	ACTION_DROP,	  /* no answer */
	ACTION_CHOOSE,	  /* no end: choose from verdict.base and .size, then ask again */
};

/* Who chooses where the choice does not follow from the packet alone (services/choose.h). */
enum chooser {
	CHOOSE_LATER,	/* ACTION_CHOOSE is returned, until it has been done */
	CHOOSE_AT_ONCE, /* at sockets, where connections cannot be counted: in turn */
	CHOOSE_ANY,	/* likewise, but another one than the last: by a hash */
};

/* Those that are not a function of the packet and the set. */
#define SERVICE_REMEMBERS (SERVICE_ROUND_ROBIN | SERVICE_LEAST_CONNECTIONS)
#define SERVICE_CHOOSES (SERVICE_SOURCE_HASH | SERVICE_REMEMBERS)

/* Is this address one of those that we translate from, or masquerade with? No: not a Service's. */
INLINE int may_be_ours(const addr *address)
{
	__u32 bit = hash_filter(address);

	return vip_filter_get(bit >> 6) >> (bit & 63) & 1;
}

INLINE int verdict_is(struct verdict *verdict, __u8 action, __u8 reason)
{
	verdict->action = action;
	verdict->reason = reason;
	return action;
}

INLINE int client_allowed(const struct packet *packet, __u16 service_id)
{
	struct source_range_key key = {};

	key.prefix_length = 32 + sizeof(addr) * 8;
	key.service_id = service_id;
	key.address = packet->source;
	return in_source_ranges(&key);
}

/* The client's remembered backend, if it may still be used by `set` (BACKEND_IN_…_SET). */
/* rule: AF-1, AF-2, AF-6 */
INLINE __u32 affine_backend(const struct packet *packet, __u16 service_id, __u32 timeout, __u8 set,
			    __u32 now, struct verdict *verdict)
{
	struct affinity_key key = {};

	key.client = packet->source;
	key.service_id = service_id;

	struct affinity *affine = affinity_get(&key);

	/* signed: another CPU may have noted a connection a tick later */
	if (!affine || (__s32)(now - READ_ONCE(affine->last_used)) > (__s32)timeout)
		return 0;

	struct backend *backend = backend_get(affine->backend_id);

	if (!backend || backend->service_id != service_id)
		return 0;
	if (backend->flags & set)
		return affine->backend_id;
	/* valid for the cluster, only not on this node: others may rely on it */
	verdict->keep_affinity = backend->flags & BACKEND_IN_CLUSTER_SET ? 1 : 0;
	return 0;
}

/* 127.0.0.0/8 and ::1. */
INLINE int is_loopback(const addr *address)
{
#if FAMILY == 4
	return (address->word[0] & htonl32(0xff000000)) == htonl32(0x7f000000);
#else
	return !address->word[0] && !address->word[1] && !address->word[2] &&
	       address->word[3] == htonl32(1);
#endif
}

/* One stands for all of them. */
INLINE void loopback(addr *address)
{
#if FAMILY == 4
	address->word[0] = htonl32(0x7f000001);
#else
	address->word[0] = address->word[1] = address->word[2] = 0;
	address->word[3] = htonl32(1);
#endif
}

/* The frontend of a packet; the entry for all other ports of a ClusterIP is second choice. */
INLINE struct frontend *frontend_of(const struct packet *packet, int client)
{
	struct frontend_key key = {};

	key.address = packet->destination;
	if (client == CLIENT_LOCALHOST) {
		loopback(&key.address);
		key.pad = FRONTEND_PAD_LOCALHOST;
	}
	if (has_ports(packet->protocol)) {
		key.port = packet->destination_port;
		key.protocol = packet->protocol;

		struct frontend *frontend = frontend_get(&key);

		if (frontend)
			return frontend;
		key.port = 0;
		key.protocol = 0;
	}
	return frontend_get(&key);
}

INLINE int is_pod(const addr *address)
{
	struct network_key key = {};

	key.prefix_length = sizeof(addr) * 8;
	key.address = *address;
	return in_pod_networks(&key);
}

/* A ClusterIP is for the cluster's own: others are masqueraded where we know who is which. */
/* rule: VE-15 */
INLINE int masquerade_for_cluster_ip(const struct packet *packet, int client)
{
	struct config *config = config_get();

	if (!config)
		return 0;
	return config->flags & CONFIG_MASQUERADE_ALL ||
	       (client == CLIENT_REMOTE && config->flags & CONFIG_POD_NETWORKS_KNOWN &&
		!is_pod(&packet->source));
}

/* By a hash of the connection's ends, or of the client's address alone. */
INLINE __u32 hashed_slot(const struct packet *packet, __u32 base, __u32 size, int by_source)
{
	__u32 choice =
		by_source ? hash_source(&packet->source) :
			    hash_choice(&packet->source, packet->source_port, &packet->destination,
					packet->destination_port, packet->protocol);

	return slot_get(base + choice % size);
}

/* `chosen`: what has been chosen since ACTION_CHOOSE was returned; 0 before. */
INLINE int decide(const struct packet *packet, int client, __u32 now, enum chooser chooser,
		  __u32 chosen, struct verdict *verdict)
{
	struct frontend *frontend = frontend_of(packet, client);

	if (!frontend)
		return verdict_is(verdict, ACTION_PASS, REASON_NONE);
	verdict->service_id = 0;
	/* rule: VE-7 */
	if (frontend->kind == FRONTEND_UNSERVED)
		/* an ICMP error about something of ours is not a connection */
		return packet->flags & PACKET_ICMP_ERROR ?
			       verdict_is(verdict, ACTION_PASS, REASON_NONE) :
			       verdict_is(verdict, ACTION_REJECT, REASON_UNSERVED_PORT);

	__u16 service_id = frontend->service_id;
	__u8 kind = frontend->kind;
	int local = frontend->flags & FRONTEND_LOCAL;

	verdict->service_id = service_id;
	verdict->keep_affinity = 0;
	verdict->masquerade = 0;
	/* rule: VE-9 */
	if ((frontend->flags & FRONTEND_SOURCE_RANGES) && !client_allowed(packet, service_id))
		return verdict_is(verdict, ACTION_DROP, REASON_SOURCE_RANGE);

	struct service *service = service_get(service_id);

	/* rule: VE-1 */
	if (!service || !(service->flags & SERVICE_HAS_ANY))
		return verdict_is(verdict, ACTION_REJECT, REASON_NO_ENDPOINTS);

	/*
	 * eTP Local: whoever is on this node takes the short way to any endpoint. A pod of another
	 * node that asks this one by its address asks from outside: sent on to a third node without
	 * masquerading, as the policy wants it, it would get its answer past us, from a stranger.
	 */
	/* rule: VE-4, VE-5, VE-17 */
	if (kind != FRONTEND_CLUSTER_IP && client != CLIENT_REMOTE)
		local = 0;

	__u64 region = local ? READ_ONCE(service->local) : READ_ONCE(service->cluster);
	__u32 base = (__u32)region;
	__u32 size = region >> 32;

	/* rule: VE-2, VE-6 */
	if (size == 0)
		return local ? verdict_is(verdict, ACTION_DROP, REASON_NO_LOCAL_ENDPOINTS) :
			       verdict_is(verdict, ACTION_REJECT, REASON_NO_ENDPOINTS);

	__u32 backend_id = 0;
	__u8 flags = service->flags;

	/* where a connection is not counted, its packets are translated, and then it is */
	if (chooser != CHOOSE_LATER && client == CLIENT_NODE && flags & SERVICE_LEAST_CONNECTIONS)
		return verdict_is(verdict, ACTION_PASS, REASON_NONE);
	/* a turn is TC's to take, where the flow surely comes to be; and counting is left to it, too */
	if (AT_XDP && flags & SERVICE_REMEMBERS)
		return verdict_is(verdict, ACTION_CHOOSE, REASON_NONE);
	/* rule: AF-5 */
	verdict->affinity_timeout = service->affinity_timeout;
	if (verdict->affinity_timeout)
		backend_id = affine_backend(packet, service_id, verdict->affinity_timeout,
					    local ? BACKEND_IN_LOCAL_SET : BACKEND_IN_CLUSTER_SET,
					    now, verdict);
	if (!backend_id && chooser != CHOOSE_ANY && UNLIKELY(flags & SERVICE_CHOOSES)) {
		if (flags & SERVICE_SOURCE_HASH) {
			backend_id = hashed_slot(packet, base, size, 1);
		} else if (chooser == CHOOSE_AT_ONCE) {
			backend_id = slot_get(base + turn_of(service_id, local, 1) % size);
		} else if (chosen) {
			backend_id = chosen;
		} else {
			verdict->algorithm = flags;
			verdict->local = local != 0;
			verdict->base = base;
			verdict->size = size;
			return verdict_is(verdict, ACTION_CHOOSE, REASON_NONE);
		}
	} else if (!backend_id) {
		backend_id = hashed_slot(packet, base, size, 0);
	}

	struct backend *backend = backend_id ? backend_get(backend_id) : 0;

	if (!backend)
		return verdict_is(verdict, ACTION_DROP, REASON_NO_BACKEND);
	verdict->backend_id = backend_id;
	verdict->backend_flags = backend->flags;
	verdict->address = backend->address;
	verdict->port = backend->port;
	/* Hairpin: a pod answers its own address without us, so it must see another one. */
	/* rule: VE-14 */
	if (client == CLIENT_POD && same_address(&verdict->address, &packet->source))
		verdict->masquerade = 1;
	/* The node's own processes have its address already. */
	if (kind == FRONTEND_CLUSTER_IP && client != CLIENT_NODE &&
	    masquerade_for_cluster_ip(packet, client))
		verdict->masquerade = 1;
	/*
	 * In by an uplink and out to another node: the reply would bypass this one, which alone can
	 * restore its source. (To a backend here, the client's address is kept: replies cross us anyway.)
	 */
	/* rule: VE-3, VE-13, VE-16 */
	if (client == CLIENT_REMOTE && !(verdict->backend_flags & BACKEND_ON_NODE))
		verdict->masquerade = 1;
	return verdict_is(verdict, ACTION_TRANSLATE, REASON_NEW);
}

/* A new connection has come to be as decided: the client keeps to its backend from now on. */
/* rule: AF-3, AF-4 */
INLINE void decided(const struct packet *packet, const struct verdict *verdict, __u32 now)
{
	struct affinity_key key = {};
	struct affinity value = {};

	if (!verdict->affinity_timeout || verdict->keep_affinity)
		return;
	key.client = packet->source;
	key.service_id = verdict->service_id;

	struct affinity *affine = affinity_get(&key);

	if (affine && affine->backend_id == verdict->backend_id) {
		/* in place: an update of an LRU map costs many times as much */
		WRITE_ONCE(affine->last_used, now);
		return;
	}
	value.backend_id = verdict->backend_id;
	value.last_used = now;
	affinity_set(&key, &value);
}
