/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/* The compiler insists on a kernel's source folder. This one, named by BCC_KERNEL_SOURCE, holds the
 * little it really looks for; the programs use nothing but the system's user-space API headers. */
#define CONFIG_BPF_SYSCALL 1
typedef __SIZE_TYPE__ size_t;
typedef __UINTPTR_TYPE__ uintptr_t;
