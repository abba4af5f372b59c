/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * What everything else stands on: the kernel's user-space API, the address type of this build, and
 * the few helpers that the compiler's own header lacks or declares too narrowly.
 *
 * The same sources are compiled once per family (FAMILY is 4 or 6). There are no twins: what differs
 * between the families is the length of `addr` and, here and in packet/parse.h, the header that holds it.
 */
#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#define AF_INET 2
#define AF_INET6 10
#ifndef ECONNREFUSED
#define ECONNREFUSED 111
#endif

#define INLINE static __attribute__((always_inline)) inline
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))

#define htons16(x) ((__be16)__builtin_bswap16(x))
#define ntohs16(x) ((__u16)__builtin_bswap16(x))
#define htonl32(x) ((__be32)__builtin_bswap32(x))

#if FAMILY == 4
#define ADDRESS_WORDS 1
#define ETHERTYPE ETH_P_IP
#define ADDRESS_FAMILY AF_INET
#else
#define ADDRESS_WORDS 4
#define ETHERTYPE ETH_P_IPV6
#define ADDRESS_FAMILY AF_INET6
#endif

/* An address as it stands in the packet. */
typedef struct {
	__be32 word[ADDRESS_WORDS];
} addr;

INLINE int same_address(const addr *a, const addr *b)
{
#if FAMILY == 4
	return a->word[0] == b->word[0];
#else
	return !((a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1]) | (a->word[2] ^ b->word[2]) |
		 (a->word[3] ^ b->word[3]));
#endif
}

/* 0 if they are the same; no branch, where several such things are looked at together */
INLINE __u64 address_differs(const addr *a, const addr *b)
{
#if FAMILY == 4
	return a->word[0] ^ b->word[0];
#else
	return (a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1]) | (a->word[2] ^ b->word[2]) |
	       (a->word[3] ^ b->word[3]);
#endif
}

INLINE int is_zero(const addr *address)
{
#if FAMILY == 4
	return !address->word[0];
#else
	return !(address->word[0] | address->word[1] | address->word[2] | address->word[3]);
#endif
}

/* The other header names only 32 bits of the cookie. */
static __u64 (*socket_cookie)(void *ctx) = (void *)BPF_FUNC_get_socket_cookie;

/* That one has too few arguments there. */
static long (*redirect_neigh)(__u32 ifindex, void *params, int params_bytes,
			      __u64 flags) = (void *)BPF_FUNC_redirect_neigh;

#define TICK() ((__u32)(bpf_jiffies64() >> TICK_SHIFT))

/* What memory holds is read anew after this, by the compiler and so by the verifier, which knows no values in maps. */
#define BARRIER() asm volatile("" ::: "memory")

/*
 * The value's bits under the mask, cut off here: an index, at its use. The compiler, which often knows that
 * a value is not larger, leaves the cut out or makes it earlier; Linux 6.1's verifier then sees no bound.
 */
INLINE __u64 within(__u64 value, __u64 mask)
{
	asm("" : "+r"(value));
	return value & mask;
}

/* The same value. The compiler, which does not see what it is made of, branches on it and not on its parts. */
INLINE __u64 unbranched(__u64 value)
{
	asm volatile("" : "+r"(value));
	return value;
}

/*
 * At the end of an unrolled loop's body: all of it is done before the next begins. Else the compiler begins with
 * all at once, and has no room on the stack for what they need.
 */
#define SETTLE(a, b, c) asm volatile("" : "+r"(a), "+r"(b), "+r"(c)::"memory")

/* 1 if the value is not 0, else 0. */
INLINE __u64 not_zero(__u64 value)
{
	__u64 bit = value | -value;

	asm volatile("%0 >>= 63" : "+r"(bit));
	return bit;
}

/*
 * The same value, but the verifier forgets what it was: it follows every combination of known values
 * through all code behind, and unrolled loops know very many. `unknown` is any value that it does not
 * know; that its exclusive-or, twice, changes nothing escapes it.
 */
INLINE __u64 forget(__u64 value, __u64 unknown)
{
	asm volatile("%0 ^= %1\n\t%0 ^= %1" : "+r"(value) : "r"(unknown));
	return value;
}

/*
 * 1 where x < limit, else 0. What is chosen by such bits is one way through the program for the verifier,
 * which follows each branch through all that comes after. (And since Linux 6.19 both values of a
 * mask, 0 and all bits: hence the product.)
 */
INLINE __u64 below(__u64 x, __u64 limit)
{
	__u64 bit = x - limit;

	asm volatile("%0 >>= 63" : "+r"(bit));
	return bit;
}

INLINE __u64 choose(__u64 bit, __u64 where_set, __u64 otherwise)
{
	return otherwise ^ (where_set ^ otherwise) * bit;
}

/* The greater of two that are below 2^63. */
INLINE __u64 greater(__u64 a, __u64 b)
{
	return choose(below(a, b), b, a);
}
