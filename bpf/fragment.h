/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * Only a datagram's first fragment has ports. It leaves them behind for the others, which then find
 * the flow by themselves; their transport checksum is the first one's business.
 */
#pragma once

#include "maps.h"
#include "packet.h"

INLINE void fragment_key_of(const struct packet *packet, struct fragment_key *key)
{
	key->source = packet->source;
	key->destination = packet->destination;
	key->id = packet->fragment_id;
	key->protocol = packet->protocol;
	__builtin_memset(key->pad, 0, sizeof(key->pad));
}

/* To be called before the packet is rewritten: the others carry the addresses of the wire. */
INLINE void fragment_note(const struct packet *packet)
{
	struct fragment_key key;
	struct fragment value;

	fragment_key_of(packet, &key);
	value.source_port = packet->source_port;
	value.destination_port = packet->destination_port;
	fragment_set(&key, &value);
}

/* Gives a later fragment its ports. Returns 0 if its first one was not seen. */
INLINE int fragment_recall(struct packet *packet)
{
	struct fragment_key key;

	fragment_key_of(packet, &key);

	struct fragment *fragment = fragment_get(&key);

	if (!fragment)
		return 0;
	packet->source_port = fragment->source_port;
	packet->destination_port = fragment->destination_port;
	return 1;
}
