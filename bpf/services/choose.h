/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * Choices that do not follow from the packet alone: in turn, and by the number of connections. Only Services
 * that ask for it come here (service.flags).
 */
#pragma once

#include "ground/hash.h"
#include "ground/maps.h"
#include "packet/parse.h"

/* Of so many backends the best one is found; of more, the best of so many in a row. */
#define LEAST_OF 64

/* So often another CPU may be faster; after that, two connections have the same turn. */
#define TURN_ATTEMPTS 8

/* Whose turn it is, as a number that is counted up without end. `takes`: the next one asks for the next. */
INLINE __u64 turn_of(__u32 service_id, int local, int takes)
{
	struct turn *turn = turn_get(service_id);
	__u64 *next;
	__u64 number;

	if (!turn)
		return 0;
	next = local ? &turn->local : &turn->cluster;
	number = READ_ONCE(*next);
#pragma unroll
	for (int i = 0; i < TURN_ATTEMPTS; i++) {
		__u64 seen;

		if (!takes)
			break;
		seen = __sync_val_compare_and_swap(next, number, number + 1);
		if (seen == number)
			break;
		number = seen;
	}
	return forget(number, service_id);
}

/*
 * The backend with the fewest connections for its weight. `start`: the slot with which the search begins; the
 * first of several that are alike is taken, so that must differ from one connection to the next.
 */
INLINE __u32 least_connections(__u32 base, __u32 size, __u32 start)
{
	__u64 fewest = 1ULL << 40, its_weight = 1, found = 0;

	for (__u32 i = 0; i < LEAST_OF; i++) {
		__u32 backend_id;
		__u32 *connections;
		struct backend *backend;

		/* else the compiler puts both limits into one, which the verifier does not know */
		asm volatile("" : "+r"(i));
		if (i >= size)
			break;
		backend_id = slot_get(base + (start + i) % size);
		backend = backend_get(backend_id);
		connections = connections_get(backend_id);
		if (!backend || !connections)
			break;

		__s64 held = (__s32)READ_ONCE(*connections);
		__u64 weight = backend->weight;
		/* below nothing, for a moment: one CPU has counted an end before another the beginning */
		__u64 count = held * (1 ^ below(held, 0));
		__u64 better = below(count * its_weight, fewest * weight);

		fewest = choose(better, count, fewest);
		its_weight = choose(better, weight, its_weight);
		found = choose(better, backend_id, found);
	}
	return found;
}

/* Where decide() has said ACTION_CHOOSE. Returns a backend's number, or 0. */
INLINE __u32 choose_backend(const struct packet *packet, const struct verdict *verdict, int takes)
{
	__u32 base = verdict->base, size = verdict->size;

	if (!size)
		return 0;
	if (verdict->algorithm & SERVICE_ROUND_ROBIN)
		return slot_get(base + turn_of(verdict->service_id, verdict->local, takes) % size);
	return least_connections(base, size,
				 hash_choice(&packet->source, packet->source_port,
					     &packet->destination, packet->destination_port,
					     packet->protocol));
}
