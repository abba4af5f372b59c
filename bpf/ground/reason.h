/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * Why a packet was passed, rewritten, rejected or dropped. The number is the counter's index and
 * the event's; the agent reads names and sentences from here: NAME = number, then the sentence and
 * what its reader can do about it, where it is nothing that he wants.
 * Numbers are never given to another reason: dashboards and old programs know them.
 */
#pragma once

/* From which number on reasons say what became of the packet. */
enum reason_class {
	REASONS_FORWARD = 1, /* translated and on its way */
	REASONS_REJECT = 16, /* answered by a refusal */
	REASONS_DROP = 32,   /* gone; where the sentence says so its sender is told */
	REASONS_PASS = 64,   /* left to others as it is */
};

/* One reason a line. */
/* clang-format off */
enum reason {
	REASON_NONE = 0,		  /* not a Service's packet: passed untouched, not counted */
	/* translated */
	REASON_NEW = 1,			  /* a new flow: backend chosen; its first packet counts below as well */
	REASON_ESTABLISHED = 2,		  /* packet of a known flow, towards the backend */
	REASON_REPLY = 3,		  /* reply of a known flow, source restored */
	REASON_SOCKET = 4,		  /* translated at the socket: connect or sendmsg */
	REASON_ICMP_ERROR = 5,		  /* ICMP error about a packet of a known flow, headers restored */
	REASON_XDP = 6,			  /* of these, sent on by XDP, without the stack; counted above as well */
	REASON_MASQUERADED = 7,		  /* of these, an address of this node stood for the client's; counted above as well */
	/* rejected */
	REASON_NO_ENDPOINTS = 16,	  /* the Service has no usable endpoint: refused
		 * Remedy: `ebpf-lb services NAME` tells which endpoints there are and why none is usable: look
		 * at the pods' readiness and the Service's selector */
	REASON_UNSERVED_PORT = 17,	  /* a port of a ClusterIP that no Service serves: refused
		 * Remedy: ask one of the ports that the Service has (`ebpf-lb services NAME`), or add this one
		 * to it */
	/* dropped */
	REASON_NO_LOCAL_ENDPOINTS = 32,	  /* traffic policy Local, and no endpoint on this node
		 * Remedy: send to a node that has a pod of the Service (the balancer's health check tells
		 * which), or set the traffic policy to Cluster */
	REASON_SOURCE_RANGE = 33,	  /* client outside loadBalancerSourceRanges
		 * Remedy: add the client's address to the Service's loadBalancerSourceRanges, or find out who
		 * masquerades the client before it gets here */
	REASON_REJECT_LIMIT = 34,	  /* would be refused, but the limit of answers is reached
		 * Remedy: raise rejectPerSecond, or stop whoever asks so often for what is refused (`ebpf-lb
		 * monitor --drops`) */
	REASON_FLOW_TABLE_FULL = 35,	  /* no room for a new flow
		 * Remedy: raise dataPath.flows; `ebpf-lb flows --sort age` shows what fills the table */
	REASON_SNAT_PORTS = 36,		  /* no source port left for masquerading
		 * Remedy: spread the clients over more nodes, or the Service over more endpoints: each node
		 * has 64,512 ports towards one endpoint */
	REASON_LATER_FRAGMENT = 37,	  /* a later fragment, and its first one was not seen
		 * Remedy: send datagrams that fit into the path's MTU, or raise dataPath.fragments where first
		 * fragments are forgotten too early */
	REASON_NO_BACKEND = 38,		  /* the maps contradict each other: slot without backend
		 * Remedy: restart the agent on this node, and report it: this must not happen */
	REASON_UNANSWERABLE = 39,	  /* would be refused, but cannot be answered (multicast, ICMP error)
		 * Remedy: none is needed: such packets have no right to an answer */
	REASON_NO_SNAT_SOURCE = 40,	  /* must be masqueraded, but no address of this node is known for the way
		 * Remedy: give the interface by which the packet leaves, or the node, an address of that
		 * family */
	REASON_REWRITE_FAILED = 41,	  /* the kernel refused a change to the packet
		 * Remedy: report it with the kernel's version: this must not happen */
	REASON_SLOW_PATH = 42,		  /* a program of the slow path could not be called
		 * Remedy: restart the agent on this node: `ebpf-lb status` says which programs are missing */
	REASON_CONTENTION = 43,		  /* other processors kept changing the same flow's entries
		 * Remedy: none is needed if it is rare: the client sends again; report it if it goes on */
	REASON_NO_ROUTE = 44,		  /* the node has no route to the backend, or back to the client
		 * Remedy: give the node a route to the endpoint (`ip route get ADDRESS`): the pods' network is
		 * not set up whole */
	REASON_HOP_LIMIT = 45,		  /* hop limit reached on the way through this node: the sender is told
		 * Remedy: none is needed for traceroute; else look for a loop between routers */
	REASON_TOO_BIG = 46,		  /* too big for the way out and not to be fragmented: the sender is told
		 * Remedy: none is needed if clients obey path-MTU discovery; else let their ICMP errors
		 * through, or lower the clients' MTU */
	REASON_NO_SERVICE = 47,		  /* an address of a ServiceCIDR that no Service has
		 * Remedy: ask an address that a Service has: this one has been deleted, or never was */
	REASON_SCTP_FRAGMENT = 48,	  /* a fragment of SCTP whose ports must change: its checksum covers all the others
		 * Remedy: lower the SCTP stack's path MTU, so that it does not fragment */
	REASON_REDIRECT = 49,		  /* an ICMP redirect about a translated packet: it would lead past the translation
		 * Remedy: none is needed: packets go on by the way they had */
	/* passed with a reason */
	REASON_TRUNCATED = 64,		  /* a header runs past the packet's end
		 * Remedy: none is needed: the stack judges such packets */
	REASON_HEADER_CHAIN = 65,	  /* more IPv6 extension headers than are followed
		 * Remedy: send fewer extension headers */
};
/* clang-format on */

#define REASONS_MAX 128
