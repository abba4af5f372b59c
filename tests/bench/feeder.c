// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause)
/*
 * A test run hands one and the same packet to a program over and over, translated already from the
 * second time on. So this program stands before the one that is measured: it writes the next flow's
 * addresses and ports, a hop limit and the node's MAC address into the packet and then calls it. Called before
 * an empty program, it costs the same, and the difference is what the measured program costs.
 */

#define FIRST_PORT 1024
#define PORTS 16384 /* of each client */

struct feed {
	u32 next;     /* the flow to come */
	u32 flows;    /* then it begins anew */
	u32 services; /* over which flows are spread */
	u32 turned;   /* 1: the client is the packet's destination */
	u32 program;  /* index in programs */
	u32 client[4]; /* of flow 0; last word in the machine's order, to be counted up */
	u32 peer[4];   /* what the client talks to: of Service 0, likewise */
	u16 port;      /* the peer's, as on the wire */
	u16 at_12;     /* bytes 12 and 13 of the transport header: what answers change of TCP's */
};

BPF_TABLE("array", u32, struct feed, feeds, 1);
BPF_TABLE("prog", u32, u32, programs, 16);

#ifdef XDP
#define CONTEXT xdp_md
#else
#define CONTEXT __sk_buff
#endif

int feeder(struct CONTEXT *ctx)
{
	u32 zero = 0;
	struct feed *feed = feeds.lookup(&zero);
	u8 *data = (void *)(long)ctx->data;
	u8 *end = (void *)(long)ctx->data_end;

	if (!feed || data + TRANSPORT + 18 > end)
		return 2;

	u32 flow = feed->next;
	u32 service = (flow * 2654435761U >> 8) % feed->services;
	u32 client = __builtin_bswap32(feed->client[3] + flow / PORTS);
	u32 peer = __builtin_bswap32(feed->peer[3] + service);
	u16 port = __builtin_bswap16(FIRST_PORT + flow % PORTS);
	u32 *first = (void *)data + SOURCE;
	u32 *second = first + ADDRESS_WORDS;
	u16 *ports = (void *)data + TRANSPORT;

	feed->next = flow + 1 == feed->flows ? 0 : flow + 1;
#pragma unroll
	for (int i = 0; i < ADDRESS_WORDS - 1; i++) {
		first[i] = feed->turned ? feed->peer[i] : feed->client[i];
		second[i] = feed->turned ? feed->client[i] : feed->peer[i];
	}
	first[ADDRESS_WORDS - 1] = feed->turned ? peer : client;
	second[ADDRESS_WORDS - 1] = feed->turned ? client : peer;
	ports[0] = feed->turned ? feed->port : port;
	ports[1] = feed->turned ? port : feed->port;
	ports[6] = feed->at_12;
	ports[8] = 0x5a5a; /* TCP's checksum, which would end up where XDP takes it for a partial one */
	data[HOP_LIMIT] = 64;
	((u16 *)data)[0] = MAC_0; /* as on the wire */
	((u16 *)data)[1] = MAC_1;
	((u16 *)data)[2] = MAC_2;
	programs.call(ctx, feed->program);
	return 2;
}
