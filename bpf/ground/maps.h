/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * Every map, and the only place with the compiler's table syntax: the rest of the sources uses the
 * functions below. Each map says who writes it, who reads it, and what happens when it is full.
 * The loader reads these declarations (ebpf_lb/datapath/layout), creates and pins the maps, and
 * hands them to the compiler by path. One declaration on each line, sizes named in settings.
 */
#pragma once

#include "ground/base.h"
#include "ground/layout.h"
#include "ground/reason.h"

/* clang-format off */

#define HASH_ON_DEMAND 1    /* BPF_F_NO_PREALLOC: memory only for what is in use */
#define ARRAY_MAPPED 0x400  /* BPF_F_MMAPABLE: the agent reads and stores whole words in place */
#define SERVICE_DROPS 8192
#define EVENTS 4096	    /* a power of two */

/* Agent writes, programs read once a new flow. Full: that Service is reported as not programmed. */
BPF_F_TABLE("hash:" PIN "/frontends", struct frontend_key, struct frontend, frontends, FRONTENDS_MAX, HASH_ON_DEMAND);
/* Which addresses may be a frontend's or an SNAT source: one bit a hashed address, set before the
 * frontend is written and never cleared while flows may live. Spares all other packets the look-ups. */
BPF_F_TABLE("array:" PIN "/vip_filter", u32, u64, vip_filter, FILTER_WORDS, ARRAY_MAPPED);
/* The addresses to which something is or was masqueraded: likewise one bit, set by programs. Spares the
 * node's own packets to all others the search for who else uses their ports. */
BPF_F_TABLE("array:" PIN "/masqueraded", u32, u64, masqueraded, FILTER_WORDS, 0);
/* From which addresses and ports replies of flows may come: likewise one bit, set by programs before the
 * flow is. Spares what comes from elsewhere the search for its flow. All bits are set where flows are
 * older than this map. */
BPF_F_TABLE("array:" PIN "/repliers", u32, u64, repliers, FILTER_WORDS, 0);
/* Which addresses and ports may be a frontend's or a backend's: likewise one bit, set by the agent before
 * either is written. Spares all other packets the search for connections that may be taken for a flow. */
BPF_F_TABLE("array:" PIN "/known_ends", u32, u64, known_ends, KNOWN_ENDS_WORDS, ARRAY_MAPPED);
/* Agent writes, programs read once a new flow. Full: reported, the Service is not programmed. */
BPF_F_TABLE("array:" PIN "/services", u32, struct service, services, SERVICES_MAX, ARRAY_MAPPED);
/* Agent gives out contiguous regions; a freed one is given out again a second later at the soonest. */
BPF_F_TABLE("array:" PIN "/slots", u32, u32, slots, SLOTS_MAX, ARRAY_MAPPED);
/* Agent writes, programs read once a new flow. Number 0 is none. */
BPF_F_TABLE("array:" PIN "/backends", u32, struct backend, backends, BACKENDS_MAX, ARRAY_MAPPED);
/* Whose turn it is, by Service port. Programs count, where it is served in turn. */
BPF_F_TABLE("array:" PIN "/turns", u32, struct turn, turns, SERVICES_MAX, 0);
/* How many connections a backend has, by its number. Programs count them, where the Service goes by that;
 * agent clears the number of one that is new. */
BPF_F_TABLE("array:" PIN "/connections", u32, u32, connections, BACKENDS_MAX, 0);
/* What became of connections, by their backend's number. Programs write when one ends, agent and CLI read. */
BPF_F_TABLE("array:" PIN "/outcomes", u32, struct outcome, outcomes, BACKENDS_MAX, ARRAY_MAPPED);
/* The connection table: programs write, agent reads and sweeps. Full: see flow.h. */
BPF_F_TABLE("array:" PIN "/flows", u32, struct flow_set, flows, FLOW_SETS_MAX, ARRAY_MAPPED);
/* When flows of a client's tuple were last seen beyond its own sets, by a hash of it: ticks, 0 never.
 * Programs write and read; see flow.h. */
BPF_F_TABLE("array:" PIN "/overflows", u32, u32, overflows, OVERFLOWS, 0);
/* By which number the SYN-ACK is acknowledged that a flow at this place, or at one of several, has seen
 * last (flow_state.h). Programs write and read; what is overwritten is told by later packets. */
BPF_F_TABLE("array:" PIN "/handshakes", u32, u32, handshakes, HANDSHAKES, 0);
/* The seed of its hash, which is put into the programs: kept for the next build. The loader writes and reads. */
BPF_F_TABLE("array:" PIN "/flow_seed", u32, u64, flow_seed, 1, 0);
/* Beside it, by the same index: how to reach the backend, and which it was. Programs write and read. */
BPF_F_TABLE("array:" PIN "/ways", u32, struct way_set, ways, FLOW_SETS_MAX, 0);
/* Likewise, how to reach the client: of flows that go past the stack (hostRouting); of others, zeroes. One
 * set in all where none does. Programs write and read. */
BPF_F_TABLE("array:" PIN "/ways_back", u32, struct way_set, ways_back, WAYS_BACK_MAX, 0);
/* The sweep's: the agent runs it and reads the result. One entry. */
BPF_F_TABLE("array:" PIN "/census", u32, struct census, census, 1, 0);
/* Programs count by enum flow_event. */
BPF_F_TABLE("percpu_array:" PIN "/flow_events", u32, u64, flow_events, 16, 0);
/* Programs write and read; agent sweeps. Full: the client longest unheard of is forgotten. */
BPF_F_TABLE("lru_hash:" PIN "/affinity", struct affinity_key, struct affinity, affinity, AFFINITY_MAX, 0);
/* Programs write and read. Full: the oldest datagram's later fragments are dropped. */
BPF_F_TABLE("lru_hash:" PIN "/fragments", struct fragment_key, struct fragment, fragments, FRAGMENTS_MAX, 0);
/* Programs count: the next identification of translated datagrams, by a hash of where they go. */
BPF_F_TABLE("array:" PIN "/fragment_ids", u32, u64, fragment_ids, FRAGMENT_IDS, 0);
/* cgroup programs write and read; agent looks for sockets whose backend left. Full: the socket longest
 * unheard of sees the backend's address, not the VIP. */
BPF_F_TABLE("lru_hash:" PIN "/sockets", struct socket_key, struct socket_peer, sockets, SOCKETS_MAX, 0);
/* Agent writes, programs read. Sources allowed to a Service's LB addresses. Full: reported. */
BPF_F_TABLE("lpm_trie:" PIN "/source_ranges", struct source_range_key, u8, source_ranges, SOURCE_RANGES_MAX, HASH_ON_DEMAND);
/* Agent writes, programs read. The cluster's pods: whoever is in here is a client inside. */
BPF_F_TABLE("lpm_trie:" PIN "/pod_networks", struct network_key, u8, pod_networks, NETWORKS_MAX, HASH_ON_DEMAND);
/* Agent writes, programs read: the cluster's ServiceCIDRs. One entry; what does not fit is reported. */
BPF_F_TABLE("array:" PIN "/service_networks", u32, struct service_networks, service_networks, 1, 0);
/* Agent writes for each interface we attach to; programs read. */
BPF_F_TABLE("hash:" PIN "/interfaces", u32, struct interface, interfaces, INTERFACES_MAX, HASH_ON_DEMAND);
/* Agent writes, programs read: what masquerading uses as source. */
BPF_F_TABLE("array:" PIN "/snat_sources", u32, struct snat_source, snat_sources, 256, 0);
/* Agent writes (before a frontend, gone after it), only people read. */
BPF_F_TABLE("hash:" PIN "/names", u32, struct service_name, names, SERVICES_MAX, HASH_ON_DEMAND);
/* Programs count by reason (reason.h). */
BPF_F_TABLE("percpu_array:" PIN "/counters", u32, struct counter, counters, REASONS_MAX, 0);
/* Programs count by Service. */
BPF_F_TABLE("percpu_array:" PIN "/service_counters", u32, struct service_counter, service_counters, SERVICES_MAX, 0);
/* Programs count by Service and reason what they drop or refuse; agent takes out Services that are gone.
 * Full: counted by reason only. */
BPF_F_TABLE("percpu_hash:" PIN "/service_drops", struct service_drop_key, u64, service_drops, SERVICE_DROPS, HASH_ON_DEMAND);
/* Whoever listens renews its wish every second; programs read it, and count what they have told. */
BPF_F_TABLE("array:" PIN "/listening", u32, struct listening, listening, 1, ARRAY_MAPPED);
/* What happened last, by number: programs write in turn while somebody listens, the oldest is overwritten. */
BPF_F_TABLE("array:" PIN "/events", u32, struct event, events, EVENTS, ARRAY_MAPPED);
/* Agent writes. One entry. */
BPF_F_TABLE("array:" PIN "/config", u32, struct config, config, 1, 0);
/* Agent writes once: the CRC32c of a message lengthened by 2^index zero bytes. */
BPF_F_TABLE("array:" PIN "/crc32c_shifts", u32, struct crc32c_shift, crc32c_shifts, 16, 0);
/* Programs take a token for each REJECT's answer. One bucket for the whole node. */
BPF_F_TABLE("array:" PIN_NODE "/reject_bucket", u32, struct token_bucket, reject_bucket, 1, 0);
/* Programs' scratch (context.h): what they leave each other about one packet. One entry. */
BPF_F_TABLE("percpu_array:" PIN "/scratch", u32, struct scratch, scratch, 1, 0);
/* Programs write and read: the tick at which a flow last used loopback. */
BPF_F_TABLE("array:" PIN "/loopback_used", u32, u32, loopback_used, 1, 0);
/* Likewise, at which a connection past the Services last needed another port. */
BPF_F_TABLE("array:" PIN "/direct_moved", u32, u32, direct_moved, 1, 0);
/* The slow paths of one unit's programs (enum slow_path); XDP programs have an array of their own. */
BPF_F_TABLE("prog:" PIN_CALLS "/calls", u32, u32, calls, 32, 0);
/* clang-format on */

/* One accessor a map. Keys are complete, padding included. */

INLINE struct frontend *frontend_get(struct frontend_key *key)
{
	return frontends.lookup(key);
}

INLINE struct service *service_get(__u32 id)
{
	return services.lookup(&id);
}

INLINE struct backend *backend_get(__u32 id)
{
	return backends.lookup(&id);
}

INLINE __u32 slot_get(__u32 index)
{
	__u32 *backend_id = slots.lookup(&index);

	return backend_id ? *backend_id : 0;
}

INLINE struct turn *turn_get(__u32 service_id)
{
	return turns.lookup(&service_id);
}

INLINE struct outcome *outcome_get(__u32 backend_id)
{
	return outcomes.lookup(&backend_id);
}

INLINE __u32 *connections_get(__u32 backend_id)
{
	return connections.lookup(&backend_id);
}

INLINE __u64 vip_filter_get(__u32 index)
{
	__u64 *bits = vip_filter.lookup(&index);

	return bits ? *bits : 0;
}

INLINE __u64 *masqueraded_get(__u32 index)
{
	return masqueraded.lookup(&index);
}

INLINE __u64 *repliers_get(__u32 index)
{
	return repliers.lookup(&index);
}

INLINE __u64 known_ends_get(__u32 index)
{
	__u64 *bits = known_ends.lookup(&index);

	return bits ? *bits : 0;
}

INLINE struct flow_set *flow_set_get(__u32 index)
{
	return flows.lookup(&index);
}

INLINE __u32 *overflow_get(__u32 index)
{
	return overflows.lookup(&index);
}

INLINE __u32 *handshake_get(__u32 index)
{
	return handshakes.lookup(&index);
}

INLINE struct way_set *way_set_get(__u32 index)
{
	return ways.lookup(&index);
}

INLINE struct way_set *way_back_set_get(__u32 index)
{
	return ways_back.lookup(&index);
}

INLINE struct census *census_get(void)
{
	__u32 index = 0;

	return census.lookup(&index);
}

INLINE __u64 *flow_event_get(__u32 event)
{
	return flow_events.lookup(&event);
}

INLINE struct affinity *affinity_get(struct affinity_key *key)
{
	return affinity.lookup(key);
}

INLINE void affinity_set(struct affinity_key *key, struct affinity *value)
{
	affinity.update(key, value);
}

INLINE struct fragment *fragment_get(struct fragment_key *key)
{
	return fragments.lookup(key);
}

INLINE void fragment_set(struct fragment_key *key, struct fragment *value)
{
	fragments.update(key, value);
}

INLINE __u64 *fragment_ids_get(__u32 index)
{
	return fragment_ids.lookup(&index);
}

INLINE struct socket_peer *socket_peer_get(struct socket_key *key)
{
	return sockets.lookup(key);
}

INLINE void socket_peer_set(struct socket_key *key, struct socket_peer *value)
{
	sockets.update(key, value);
}

INLINE int in_source_ranges(struct source_range_key *key)
{
	return source_ranges.lookup(key) != 0;
}

INLINE struct service_networks *service_networks_get(void)
{
	__u32 index = 0;

	return service_networks.lookup(&index);
}

INLINE int in_pod_networks(struct network_key *key)
{
	return pod_networks.lookup(key) != 0;
}

INLINE struct interface *interface_get(__u32 ifindex)
{
	return interfaces.lookup(&ifindex);
}

INLINE struct snat_source *snat_source_get(__u32 id)
{
	return snat_sources.lookup(&id);
}

INLINE struct counter *counter_get(__u32 reason)
{
	return counters.lookup(&reason);
}

INLINE struct service_counter *service_counter_get(__u32 service_id)
{
	return service_counters.lookup(&service_id);
}

INLINE __u64 *service_drop_get(struct service_drop_key *key)
{
	return service_drops.lookup(key);
}

INLINE void service_drop_set(struct service_drop_key *key, __u64 *packets)
{
	service_drops.insert(key, packets);
}

INLINE struct listening *listening_get(void)
{
	__u32 index = 0;

	return listening.lookup(&index);
}

INLINE struct event *event_get(__u32 index)
{
	return events.lookup(&index);
}

INLINE struct config *config_get(void)
{
	__u32 index = 0;

	return config.lookup(&index);
}

INLINE struct crc32c_shift *crc32c_shift_get(__u32 index)
{
	return crc32c_shifts.lookup(&index);
}

INLINE struct token_bucket *reject_bucket_get(void)
{
	__u32 index = 0;

	return reject_bucket.lookup(&index);
}

INLINE struct scratch *scratch_get(void)
{
	__u32 index = 0;

	return scratch.lookup(&index);
}

INLINE __u32 *loopback_used_get(void)
{
	__u32 index = 0;

	return loopback_used.lookup(&index);
}

INLINE __u32 *direct_moved_get(void)
{
	__u32 index = 0;

	return direct_moved.lookup(&index);
}

INLINE void call_slow_path(void *ctx, __u32 index)
{
	calls.call(ctx, index);
}
