/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * The bytes in the maps. The agent reads this very file (ebpf_lb/datapath/layout) and the loader
 * compares the result with what the compiler made of it, so there is no second description.
 * One field a line, padding written out, nothing that the compiler would have to fill in.
 *
 * `addr` is an address of this build's family: 4 bytes or 16, in network order.
 * Times are ticks: jiffies >> TICK_SHIFT, cut to the field's width and compared by difference.
 */
#pragma once

/* clang-format off */

/*
 * How often what a map holds has come to mean something else, though its size did not change: part of the map's
 * name in the kernel, by which an agent tells whether the map that it finds is one of its own kind.
 */
enum map_meaning {
	MEANING_FLOWS = 1,	    /* bits of a flow's time became COUNTED and OF_XDP */
};

enum frontend_kind {
	FRONTEND_UNSERVED = 0,	    /* a ClusterIP's other ports: REJECT */
	FRONTEND_CLUSTER_IP = 1,
	FRONTEND_NODE_PORT = 2,
	FRONTEND_LOAD_BALANCER = 3,
	FRONTEND_EXTERNAL_IP = 4,
};

/* bits of frontend.flags */
enum frontend_flag {
	FRONTEND_LOCAL = 1,	    /* the traffic policy here is Local */
	FRONTEND_SOURCE_RANGES = 2, /* only for clients in the Service's source ranges */
	FRONTEND_CONSISTENT = 4,    /* consistent hashing, on every node for a minute or longer */
	FRONTEND_YOUNG = 8,	    /* likewise, but not for that long yet */
};

/*
 * Address, port and protocol that we accept on. Port 0 and protocol 0: all others of a ClusterIP.
 * `pad` is FRONTEND_PAD_LOCALHOST where a node port is asked for at a loopback address: no packet has
 * such a key, so that none from the network gets there; only the socket hooks ask with it.
 */
struct frontend_key {
	addr address;
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

#define FRONTEND_PAD_LOCALHOST 1

struct frontend {
	__u16 service_id;
	__u8 kind;
	__u8 flags;
};

/*
 * bits of service.flags. All but the first say how a new connection's backend is chosen. At most one of them is
 * set; if none is: by a hash of the connection's ends.
 */
enum service_flag {
	SERVICE_HAS_ANY = 1,	/* some endpoint anywhere is usable; else REJECT */
	SERVICE_MAGLEV = 2,	/* by that hash and a table of consistent hashing */
	SERVICE_SOURCE_HASH = 4, /* by such a table and the client's address alone */
	SERVICE_ROUND_ROBIN = 8, /* in turn */
	SERVICE_LEAST_CONNECTIONS = 16, /* the one with the fewest connections for its weight */
};

/*
 * A Service port. A region of `slots` is (size << 32 | base) in one word, which the agent stores and
 * programs load in one piece: base and size always belong together.
 */
struct service {
	__u64 cluster;
	__u64 local;
	__u32 affinity_timeout; /* ticks; 0 without affinity */
	__u8 flags;
	__u8 pad[3];
};

/* bits of backend.flags */
enum backend_flag {
	BACKEND_IN_CLUSTER_SET = 1, /* new connections by policy Cluster may choose it */
	BACKEND_IN_LOCAL_SET = 2,   /* likewise by policy Local */
	BACKEND_ON_NODE = 4,	    /* runs on this node */
	BACKEND_COUNTED = 8,	    /* its connections are counted: see counted.h */
};

/* Belongs to one Service port, so that affinity can tell whether it is still in that one's set. */
struct backend {
	addr address;
	__be16 port;
	__u16 service_id;
	__u8 flags;
	__u8 weight; /* of one that is COUNTED: its share; else 0 */
	__u8 pad[2];
};

/* What became of a backend's connections that have ended. Whose they are stands here too: a backend that
 * gets the number of another begins anew. See outcome.h. */
struct outcome {
	addr address;
	__be16 port;
	__u16 service_id;
	__u32 counts[4]; /* by enum outcome_kind */
};

enum outcome_kind {
	OUTCOME_ANSWERED = 0,
	OUTCOME_REFUSED = 1, /* given up by an end before both had shown that they talk */
	OUTCOME_UNANSWERED = 2,
	OUTCOME_KINDS = 4,
};

/* Whose turn it is in the sets of a Service port: each is counted up by programs, and never back. */
struct turn {
	__u64 cluster;
	__u64 local;
};

/* Session affinity of a client: the backend of its last new connection, and when that was. */
struct affinity_key {
	addr client;
	__u16 service_id;
	__u16 pad;
};

struct affinity {
	__u32 backend_id;
	__u32 last_used; /* ticks */
};

/* The protocol in a flow's word. */
enum flow_protocol {
	FLOW_TCP = 1,
	FLOW_UDP = 2,
	FLOW_SCTP = 3,
};

/*
 * The connection table's entry. `word` says everything that changes and is the entry's lock:
 * see flow.h, which also has its bit fields. IPv4: 32 bytes; IPv6: 64.
 */
struct flow {
	__u64 word;
	addr client;
	addr vip;
	addr backend;
	__be16 client_port;
	__be16 vip_port;
	__be16 backend_port;
	__be16 snat_port; /* the client's port as the backend sees it, where that is another source */
#if FAMILY == 4
	__u32 pad;
#endif
};

/* The same bytes where the entry is a signpost: see flow.h. */
struct signpost {
	__u64 word;
	addr source; /* whom the backend sees as its client */
	addr client; /* who that is */
	addr backend;
	__be16 source_port;
	__be16 client_port;
	__be16 backend_port;
	__be16 pad;
#if FAMILY == 4
	__u32 pad2;
#endif
};

struct flow_set {
	struct flow entry[4];
};

/* What is not needed for every packet of a flow; same index as its entry. See way.h. */
struct way {
	__u32 backend_id; /* 0 beside a signpost */
	__u32 ifindex;	  /* and how: see send_by(). 0: not known */
	__u8 destination_mac[6];
	__u8 source_mac[6];
};

struct way_set {
	struct way entry[4];
};

/*
 * How far the sweep of the connection table has come, and what it finds: see sweep.h. Entries by their
 * state; signposts 16 further on.
 */
struct census {
	__u32 next_set;
	__u32 passes;	    /* over the whole table, so far */
	__u32 counting[32]; /* in this pass */
	__u32 counted[32];  /* in the last complete one */
};

/* What happens to flows without being any packet's fate. Numbers are never given to another. */
enum flow_event {
	FLOW_EVENT_EVICTED_NEW = 0,	/* a flow that was never confirmed gave its place to a new one */
	FLOW_EVENT_EVICTED_CLOSING = 1, /* one that was closing did */
	FLOW_EVENT_OVERFLOW = 2,	/* a flow found no room beside its client's others: see flow.h */
	FLOW_EVENT_SNAT_RETRY = 3,	/* a source port for masquerading was taken: another was tried */
	FLOW_EVENT_EXPIRED = 4,		/* the sweep took out a flow that had been idle for too long */
	FLOW_EVENT_EVICTED_RESET = 5,	/* one that had been reset gave its place to a new one */
	FLOW_EVENT_STALE = 6,		/* UDP: its backend or its frontend left the Service */
};

/*
 * Addresses of this node that may become a translated packet's source; number 0 is none. All zeroes:
 * the node lost the address, and no other one gets its number while a flow may have it.
 */
struct snat_source {
	addr address;
};

/* A new connection, of which somebody wants to know what would become: see ask.h. */
struct question {
	addr source;
	addr destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 client; /* enum client_kind */
	__u8 pad[2];
};

/* Which flow is to end, and its word as it was read: see end.h. */
struct flow_end {
	__u64 word;
	__u32 set;
	__u32 slot;
};

/* bits of interface.flags */
enum interface_flag {
	INTERFACE_PEER = 1,	/* a pod's: what is sent by it may be handed to its peer in the pod */
};

/* What we must know of an interface before sending by it. */
struct interface {
	__u32 bridge;	    /* its bridge's ifindex; 0: none */
	__u8 source_id;	    /* the entry in snat_sources for packets that leave here; 0: none */
	__u8 flags;	    /* enum interface_flag */
	__u8 mac[6]; /* of frames that are for this node; zeroes: not known */
};

/* Later fragments carry no ports: the first one leaves them here. */
struct fragment_key {
	addr source;
	addr destination;
	__be32 id;
	__u8 protocol;
	__u8 pad[3];
};

struct fragment {
	__be16 source_port;
	__be16 destination_port;
	__be32 new_id; /* the datagram's own, where its source is translated */
	__u32 noted;   /* ticks: another datagram may have the same identification later */
	__u32 by_stack; /* they go through the stack, which may put them together: all of them, or none */
};

/* What an entry of `sockets` says about a socket of the node's own. */
enum socket_entry {
	SOCKET_HEARS = 0,	/* key: a backend; value: the frontend by which it is asked */
	SOCKET_ASKS = 1,	/* key: a frontend; value: the backend that gets its datagrams */
};

struct socket_key {
	__u64 cookie;
	addr address;
	__be16 port;
	__u8 entry;
	__u8 pad;
#if FAMILY == 6
	__u32 pad2;
#endif
};

struct socket_peer {
	addr address;
	__be16 port;
	__u16 service_id;
	__u32 backend_id;
	__u32 last_used; /* ticks */
};

struct source_range_key {
	__u32 prefix_length; /* of service_id and address together: 32 + the range's */
	__u32 service_id;
	addr address;
};

struct network_key {
	__u32 prefix_length;
	addr address;
};

/* Addresses that only Services have: one is of it if (address & mask) == prefix. Mask 0: no entry. */
struct service_network {
	addr prefix;
	addr mask;
};

/* Looked through up to the first one that is empty, for every packet that leaves by an uplink. */
struct service_networks {
	struct service_network entry[4];
};

struct service_name {
	char text[200]; /* namespace/name:port, NUL-terminated */
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

struct service_counter {
	__u64 connections;
	__u64 packets; /* of both directions */
	__u64 bytes;   /* likewise, of whole IP packets */
};

/* Packets that were dropped or refused, by reason and Service; service_id 0: not known, or none's. */
struct service_drop_key {
	__u16 service_id;
	__u8 reason;
	__u8 pad;
};

/* Who wants to hear of what happens, and how much has been told so far: see event.h. One entry. */
struct listening {
	__u64 told;	   /* events, since the map was made */
	__u32 drops_until; /* ticks; 0: nobody wants to hear of what is dropped, refused or left alone */
	__u32 new_until;   /* likewise, of new connections */
};

/* Where something happened. */
enum event_place {
	EVENT_AT_TC = 0,
	EVENT_AT_XDP = 1,
	EVENT_AT_SOCKET = 2,	/* a process of the node named an address: there is no packet */
};

/* The beginning of a packet, enough for any headers that are followed. */
#define EVENT_PACKET_BYTES 128

struct event {
	__u64 number;	     /* its place in the order of all, from 1 on; 0 while it is written */
	__u64 time_ns;	     /* since boot, as bpf_ktime_get_ns() has it */
	addr frontend;	     /* at sockets: what was asked; packets say it themselves */
	addr backend;	     /* of a new connection: whom it leads to */
	__be16 frontend_port;
	__be16 backend_port;
	__u16 service_id;    /* 0: not known, or none's */
	__u8 reason;
	__u8 protocol;	     /* at sockets */
	__u32 ifindex;	     /* 0 at sockets */
	__u32 packet_bytes;  /* of the whole packet, link header included */
	__u16 kept_bytes;    /* of its beginning, in `packet` */
	__u8 link_header;    /* of these are the link header's */
	__u8 place;
	__u8 packet[EVENT_PACKET_BYTES];
	__u32 pad;
};

/* bits of config.flags */
enum config_flag {
	CONFIG_MASQUERADE_ALL = 1,     /* every connection to a ClusterIP is masqueraded */
	CONFIG_POD_NETWORKS_KNOWN = 2, /* pod_networks is complete: an address in none of them is not a pod's */
};

/* Settings that change without a new build. One entry. */
struct config {
	__u64 node_netns_cookie; /* sockets of this network namespace are the node's own */
	__u32 flags;
	__u32 reject_per_second; /* bucket of REJECT's answers; 0: no limit */
};

/* One column a bit: what a set bit of a CRC32c becomes after 2^index zero bytes. */
struct crc32c_shift {
	__u32 column[32];
};

/* What a program has read of a packet: see packet/parse.h. A tuple is always as on the wire at this hook. */
struct packet {
	addr source;
	addr destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 flags;
	__u16 l4_offset; /* from the first byte of the link header */
	__be32 fragment_id;
};

/* The verdict on a new connection: see decide.h. */
struct verdict {
	addr address;
	__be16 port;
	__u16 service_id;
	__u32 backend_id;
	__u32 affinity_timeout; /* ticks; 0: none */
	__u8 action;
	__u8 reason;
	__u8 backend_flags;
	__u8 masquerade;    /* the backend must see an address of this node */
	__u8 keep_affinity; /* a choice by policy Local, which must not replace the cluster's */
	__u8 algorithm;	    /* ACTION_CHOOSE: how, as in service.flags; */
	__u8 local;	    /* in which set; */
	__u8 pad;
	__u32 base;	    /* and which slots that are */
	__u32 size;
};

/*
 * What programs leave each other about one packet, from one tail call to the next; nothing in it
 * outlives the packet. See context.h.
 */
struct scratch {
	__u64 seen[8];	     /* flow_create(): the words of a flow's home when it was looked through */
	__u64 flow_word;     /* the flow that was found or made, as in struct flow_ref */
	__u32 flow_set;
	__u32 flow_slot;
	__u32 note[4];	     /* XDP's, see enum note */
	struct packet packet;
	struct verdict verdict;
	struct way way;	     /* towards the backend, as far as it is known */
	struct way way_back; /* and to the client, where the flow goes past the stack */
	__u32 end_reason;    /* drop_of(): why the packet ends */
	__u32 end_service;   /* and on its way to which Service port; 0: not known, or none's */
	__u32 chosen;	     /* CHOSEN: the backend that CALL_CHOOSE found */
	__u32 asked_by;	     /* CALL_CHOOSE: whom to call next */
#if FAMILY == 4
	__u32 pad;
#endif
};

struct token_bucket {
	__u64 state; /* see reject.h */
};
