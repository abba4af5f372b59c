/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/* Hashes: which set of the connection table, which slot of a Service, which bit of the filter. */
#pragma once

#include "ground/base.h"

/* The finisher of MurmurHash3, which lets every input bit reach every output bit. */
INLINE __u64 mix64(__u64 x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ULL;
	x ^= x >> 33;
	return x;
}

INLINE __u64 hash_tuple(const addr *address, __be16 port, __u8 protocol, __u64 seed)
{
	__u64 tail = (__u64)port << 8 | protocol;

#if FAMILY == 4
	return mix64(((__u64)address->word[0] << 32 | tail) ^ seed);
#else
	__u64 high = (__u64)address->word[1] << 32 | address->word[0];
	__u64 low = (__u64)address->word[3] << 32 | address->word[2];

	/* two multiplications by odd constants and a rotation keep the halves from cancelling out */
	high = (high ^ seed) * 0x9e3779b97f4a7c15ULL;
	high = (high << 31 | high >> 33) + low * 0xc2b2ae3d27d4eb4fULL;
	return mix64(high ^ tail);
#endif
}

/*
 * Which backend a new flow gets. Not seeded: every node chooses alike, so that a packet which
 * another node takes over reaches the same backend by the same table.
 */
INLINE __u32 hash_choice(const addr *client, __be16 client_port, const addr *vip, __be16 vip_port,
			 __u8 protocol)
{
	return hash_tuple(client, client_port, protocol,
			  hash_tuple(vip, vip_port, protocol, 0x5bf0363595e1cd1bULL)) >>
	       16;
}

/* Likewise, by the client's address alone. */
INLINE __u32 hash_source(const addr *client)
{
	return hash_tuple(client, 0, 0, 0x5bf0363595e1cd1bULL) >> 16;
}

/*
 * A hash for filters; `hash`: of what precedes the address, or 0. The agent reads the factors here. Its
 * upper bits are used: the addresses of pods, as those of Services, follow each other, and bits further
 * down depend on a part of such an address alone.
 */
#define HASH_WORD_FACTOR 0x9e3779b1U
#define HASH_PORT_FACTOR 0x85ebca6bU
#define HASH_LAST_FACTOR 0x85ebca6bU

INLINE __u32 hash_address(__u32 hash, const addr *address)
{
#pragma unroll
	for (int i = 0; i < ADDRESS_WORDS; i++) {
		hash = (hash ^ address->word[i]) * HASH_WORD_FACTOR;
		hash ^= hash >> 15;
	}
	return hash * HASH_LAST_FACTOR;
}

/* A bit's number in a map of `words` words, a power of two. */
#define FILTER_BIT(hash, words) ((hash) >> (32 - __builtin_ctz((words)*64)))

/* See `vip_filter` in maps.h. The agent computes the same (ebpf_lb/datapath/writer/hashes.py). */
INLINE __u32 hash_filter(const addr *address)
{
	return FILTER_BIT(hash_address(0, address), FILTER_WORDS);
}

/* See `repliers` in maps.h. */
INLINE __u32 hash_replier(const addr *address, __be16 port)
{
	return FILTER_BIT(hash_address(port * HASH_PORT_FACTOR, address), FILTER_WORDS);
}

/* See `known_ends` in maps.h. The agent computes the same. */
INLINE __u32 hash_end(const addr *address, __be16 port)
{
	return FILTER_BIT(hash_address(port * HASH_PORT_FACTOR, address), KNOWN_ENDS_WORDS);
}
