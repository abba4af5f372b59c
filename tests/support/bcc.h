/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * What bcc puts before the sources, as far as an ordinary compiler must know it to check them:
 * the kernel's short names of types, the helpers, and a table as an object with functions.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;

#include <bpf/bpf_helper_defs.h>

#define BPF_F_TABLE(type, key_type, value_type, name, entries, flags)                              \
	static struct {                                                                            \
		value_type *(*lookup)(key_type *);                                                 \
		int (*update)(key_type *, value_type *);                                           \
		int (*insert)(key_type *, value_type *);                                           \
		int (*delete)(key_type *);                                                         \
		void (*call)(void *, int);                                                         \
		char at[sizeof(type) + (entries) * 0ULL + (flags) * 0ULL];                         \
	} name
