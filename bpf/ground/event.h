/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * Telling whoever listens (`ebpf-lb monitor`) what happens: drops, refusals, new connections.
 *
 * Events stand in a mapped array and overwrite the oldest. So nobody waits for a reader, there may be
 * several, and one that is too slow sees by the numbers how many it has missed. Listening is a wish that
 * its owner renews: one that was killed is forgotten after seconds. While nobody listens, a drop costs a
 * look at one word more, and an established packet nothing.
 */
#pragma once

#include "ground/count.h"

INLINE int listens(const __u32 *until)
{
	__u32 last = READ_ONCE(*until);

	return last && (__s32)(last - TICK()) > 0;
}

/* A place for the next event, with what all events have; 0 where there is none. */
INLINE struct event *event_begin(struct listening *listening, __u32 reason, __u32 service_id,
				 __u64 *number)
{
	*number = __sync_fetch_and_add(&listening->told, 1);

	struct event *event = event_get(*number & (EVENTS - 1));

	if (!event)
		return 0;
	WRITE_ONCE(event->number, 0);
	event->time_ns = bpf_ktime_get_ns();
	__builtin_memset(&event->frontend, 0, sizeof(event->frontend));
	__builtin_memset(&event->backend, 0, sizeof(event->backend));
	event->frontend_port = 0;
	event->backend_port = 0;
	event->service_id = service_id;
	event->reason = reason;
	event->protocol = 0;
	event->ifindex = 0;
	event->packet_bytes = 0;
	event->kept_bytes = 0;
	event->link_header = 0;
	event->place = EVENT_AT_SOCKET;
	return event;
}

/* It is whole; not if another, a whole round later, has begun to write there. */
INLINE void event_end(struct event *event, __u64 number)
{
	__sync_val_compare_and_swap(&event->number, 0, number + 1);
}

/* The packet's beginning, as it is now. */
INLINE void event_packet(context *ctx, struct event *event)
{
	__u64 bytes = ctx_bytes(ctx) + LINK_HEADER_BYTES;
	long failed;

	event->place = AT_XDP ? EVENT_AT_XDP : EVENT_AT_TC;
	event->ifindex = ctx_interface(ctx);
	event->packet_bytes = bytes;
	event->link_header = LINK_HEADER_BYTES;
	if (!bytes)
		return;
	if (bytes > EVENT_PACKET_BYTES)
		bytes = EVENT_PACKET_BYTES;
	/* Linux 6.1's verifier learns no least value from a comparison with 0, but sees that 1 is added */
	bytes = within(bytes - 1, EVENT_PACKET_BYTES - 1) + 1;
#ifdef XDP
	failed = bpf_xdp_load_bytes(ctx, 0, event->packet, bytes);
#else
	failed = bpf_skb_load_bytes(ctx, 0, event->packet, bytes);
#endif
	if (!failed)
		event->kept_bytes = bytes;
}

/* A packet is dropped, refused, or left alone for a reason. */
INLINE void tell_drop(context *ctx, __u32 reason, __u32 service_id)
{
	struct listening *listening = listening_get();
	__u64 number;

	if (!listening || !listens(&listening->drops_until))
		return;

	struct event *event = event_begin(listening, reason, service_id, &number);

	if (!event)
		return;
	event_packet(ctx, event);
	event_end(event, number);
}

/* A new connection to a Service has come to be. */
INLINE void tell_new(context *ctx, const struct verdict *verdict)
{
	struct listening *listening = listening_get();
	__u64 number;

	if (!verdict->service_id || !listening || !listens(&listening->new_until))
		return;

	struct event *event = event_begin(listening, REASON_NEW, verdict->service_id, &number);

	if (!event)
		return;
	event->backend = verdict->address;
	event->backend_port = verdict->port;
	event_packet(ctx, event);
	event_end(event, number);
}

/* A process of the node asked for `packet`'s destination. `backend`: 0 where it was refused. */
INLINE void tell_socket(__u32 reason, const struct packet *packet, const struct verdict *backend,
			__u32 service_id)
{
	struct listening *listening = listening_get();
	__u64 number;

	if (!listening || !listens(backend ? &listening->new_until : &listening->drops_until))
		return;

	struct event *event = event_begin(listening, reason, service_id, &number);

	if (!event)
		return;
	event->frontend = packet->destination;
	event->frontend_port = packet->destination_port;
	event->protocol = packet->protocol;
	if (backend) {
		event->backend = backend->address;
		event->backend_port = backend->port;
	}
	event_end(event, number);
}

INLINE void count_service_drop(__u32 reason, __u32 service_id, __u32 packets)
{
	struct service_drop_key key = {};
	__u64 first = packets;
	__u64 *counted;

	key.service_id = service_id;
	key.reason = reason;
	counted = service_drop_get(&key);
	if (counted)
		*counted += packets;
	else
		service_drop_set(&key, &first);
}

/* The packet ends here, dropped or refused: counted by reason and Service, and told. */
INLINE void count_end(context *ctx, __u32 reason, __u32 service_id)
{
	count_packet(ctx, reason);
	count_service_drop(reason, service_id, ctx_packets(ctx));
	tell_drop(ctx, reason, service_id);
}

/* What a packet that is dropped comes to, behind CALL_DROP: there are many places where packets end. */
INLINE int end_packet(context *ctx)
{
	struct scratch *scratch = scratch_get();

	if (scratch)
		count_end(ctx, scratch->end_reason, scratch->end_service);
	return DROPPED;
}
