// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause)
/*
 * The least that a Service takes at TC: two look-ups at most, a rewrite, a redirect. No counters, no
 * times, no ICMP, no fragments, no IP options, nothing checked that a well-meaning client does not
 * do. What it takes is what this way of doing it costs at all; what ours takes beyond that is the price of
 * the law.
 *
 * SOURCE: where the addresses are in a frame; TRANSPORT: where the ports are.
 */

struct address {
	u32 word[ADDRESS_WORDS];
};

struct tuple {
	struct address source;
	struct address destination;
	u16 ports[2]; /* as on the wire */
	u32 protocol;
};

/* What is put in an address' place, and the interface that leads there. */
struct end {
	struct address address;
	u16 port;
	u16 unused;
	u32 ifindex;
};

BPF_TABLE("lru_hash", struct tuple, struct end, flows, FLOWS);
BPF_TABLE("hash", struct tuple, struct end, services, 16384); /* source and its port are 0 */

struct view {
	struct tuple tuple;
	u32 opens;
};

static inline __attribute__((always_inline)) int look(struct __sk_buff *skb, struct view *view)
{
	u8 *data = (void *)(long)skb->data;
	u8 *end = (void *)(long)skb->data_end;
	struct address *ends = (void *)data + SOURCE;
	u16 *ports = (void *)data + TRANSPORT;

	if (data + TRANSPORT + 14 > end || skb->protocol != ETHERTYPE)
		return 0;
	view->tuple.source = ends[0];
	view->tuple.destination = ends[1];
	view->tuple.ports[0] = ports[0];
	view->tuple.ports[1] = ports[1];
	view->tuple.protocol = data[PROTOCOL];
	view->opens = view->tuple.protocol == 6 && data[TRANSPORT + 13] & 2;
	return view->tuple.protocol == 6 || view->tuple.protocol == 17;
}

/* which: 0 the source, 1 the destination. */
static inline __attribute__((always_inline)) int rewrite(struct __sk_buff *skb, struct view *view,
							 struct end *to, int which)
{
	u32 tcp = view->tuple.protocol == 6;
	u32 at = TRANSPORT + (tcp ? 16 : 6);
	u64 udp = tcp ? 0 : BPF_F_MARK_MANGLED_0;
	struct address before = which ? view->tuple.destination : view->tuple.source;
	struct address after = to->address;
	u16 port = to->port;
	u64 change =
		bpf_csum_diff((void *)&before, sizeof(before), (void *)&after, sizeof(after), 0);

	bpf_skb_store_bytes(skb, SOURCE + which * sizeof(after), &after, sizeof(after), 0);
	if (ADDRESS_WORDS == 1)
		bpf_l3_csum_replace(skb, 24, 0, change, 0);
	bpf_l4_csum_replace(skb, at, 0, change, BPF_F_PSEUDO_HDR | udp);
	if (port != view->tuple.ports[which]) {
		bpf_l4_csum_replace(skb, at, view->tuple.ports[which], port, udp | 2);
		bpf_skb_store_bytes(skb, TRANSPORT + 2 * which, &port, 2, 0);
	}
	return bpf_redirect_peer(to->ifindex, 0);
}

int stripped_client(struct __sk_buff *skb)
{
	struct view view = {};
	struct end *to;

	if (!look(skb, &view))
		return 0;
	to = flows.lookup(&view.tuple);
	if (!to || view.opens) {
		struct tuple asked = {};
		struct tuple answered = {};
		struct end back = {};

		asked.destination = view.tuple.destination;
		asked.ports[1] = view.tuple.ports[1];
		asked.protocol = view.tuple.protocol;
		to = services.lookup(&asked);
		if (!to)
			return 0;
		answered.source = to->address;
		answered.destination = view.tuple.source;
		answered.ports[0] = to->port;
		answered.ports[1] = view.tuple.ports[0];
		answered.protocol = view.tuple.protocol;
		back.address = view.tuple.destination;
		back.port = view.tuple.ports[1];
		back.ifindex = skb->ingress_ifindex;
		flows.update(&view.tuple, to);
		flows.update(&answered, &back);
	}
	return rewrite(skb, &view, to, 1);
}

int stripped_pod(struct __sk_buff *skb)
{
	struct view view = {};
	struct end *to;

	if (!look(skb, &view))
		return 0;
	to = flows.lookup(&view.tuple);
	return to ? rewrite(skb, &view, to, 0) : 0;
}
