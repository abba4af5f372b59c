/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause) */
/*
 * How a program is declared, and the only place that says so: the loader reads these lines
 * (ebpf_lb/datapath/layout/programs.py). What is behind a tail call names its number in `calls` (enum
 * slow_path), what is for sockets its hook (enum bpf_attach_type, without BPF_CGROUP_).
 */
#pragma once

#define TC_PROGRAM(name) int name(struct __sk_buff *skb)
#define TC_CALL(number, name) int name(struct __sk_buff *skb)
#define XDP_PROGRAM(name) int name(struct xdp_md *ctx)
#define XDP_CALL(number, name) int name(struct xdp_md *ctx)
#define SOCKET_PROGRAM(hook, name) int name(struct bpf_sock_addr *ctx)
