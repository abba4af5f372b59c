/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * Why a packet was passed, rewritten, rejected or dropped. The number is the counter's index and
 * the event's; the agent reads names and sentences from here: NAME = number, then the sentence.
 * Numbers are never given to another reason: dashboards and old programs know them.
 */
#pragma once

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
	/* rejected */
	REASON_NO_ENDPOINTS = 16,	  /* the Service has no usable endpoint: refused */
	REASON_UNSERVED_PORT = 17,	  /* a port of a ClusterIP that no Service serves: refused */
	/* dropped */
	REASON_NO_LOCAL_ENDPOINTS = 32,	  /* traffic policy Local, and no endpoint on this node */
	REASON_SOURCE_RANGE = 33,	  /* client outside loadBalancerSourceRanges */
	REASON_REJECT_LIMIT = 34,	  /* would be refused, but the limit of answers is reached */
	REASON_FLOW_TABLE_FULL = 35,	  /* no room for a new flow */
	REASON_SNAT_PORTS = 36,		  /* no source port left for masquerading */
	REASON_LATER_FRAGMENT = 37,	  /* a later fragment, and its first one was not seen */
	REASON_NO_BACKEND = 38,		  /* the maps contradict each other: slot without backend */
	REASON_UNANSWERABLE = 39,	  /* would be refused, but cannot be answered (multicast, ICMP error) */
	REASON_NO_SNAT_SOURCE = 40,	  /* must be masqueraded, but no address of this node is known for the way */
	REASON_REWRITE_FAILED = 41,	  /* the kernel refused a change to the packet */
	REASON_SLOW_PATH = 42,		  /* a program of the slow path could not be called */
	REASON_CONTENTION = 43,		  /* other processors kept changing the same flow's entries */
	REASON_NO_ROUTE = 44,		  /* the node has no route to the backend, or back to the client */
	REASON_HOP_LIMIT = 45,		  /* hop limit reached on the way through this node: the sender is told */
	REASON_TOO_BIG = 46,		  /* too big for the way out and not to be fragmented: the sender is told */
	REASON_NO_SERVICE = 47,		  /* an address of a ServiceCIDR that no Service has */
	REASON_SCTP_FRAGMENT = 48,	  /* a fragment of SCTP whose ports must change: its checksum covers all the others */
	/* passed with a reason */
	REASON_TRUNCATED = 64,		  /* a header runs past the packet's end */
	REASON_HEADER_CHAIN = 65,	  /* more IPv6 extension headers than are followed */
};
/* clang-format on */

#define REASONS_MAX 128
