#!/usr/bin/env bash
# Compiles here what a guest would take minutes for: into the guest's cache, in the guest's root file
# system, under the guest's kernel's name and clock (parts of the cache's keys). Nothing is loaded.
#
#     ./warm.sh KERNEL [UNIT:SETTING=VALUE,...]...        unit: stack, xdp, generic, l3
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
store=${EBPF_LB_KERNELS:-${XDG_CACHE_HOME:-$HOME/.cache}/ebpf-lb-kernels}
export project kernel=$store/$1 store
project=$(cd "$here/../.." && pwd)
shift
# the agent's own, the lab's, and those of most packet tests
[ $# -gt 0 ] || set -- {stack,xdp,generic,l3}: {stack,xdp,generic,l3}:flows=65536 \
    {stack,xdp,l3}:flows=1024 stack:flows={64,256}
mkdir -p -m 700 "$kernel/cache"
export root
root=$(mktemp -d "${TMPDIR:-/tmp}/ebpf-lb-kernels.XXXXXX")
trap 'rmdir "$root"' EXIT
# the mounts end with the namespace
unshare --mount bash -euc '
    mount -o loop,ro,noload "$store/root.ext4" "$root"
    mount --bind "$project" "$root/src"
    mount --bind "$kernel/cache" "$root/var/cache/ebpf-lb"
    mount -t proc proc "$root/proc"
    mount -t bpf bpf "$root/sys/fs/bpf" 2>/dev/null || {
        mount -t sysfs sys "$root/sys"
        mount -t bpf bpf "$root/sys/fs/bpf"
    }
    mount -t tmpfs tmp "$root/tmp"
    mount -t devtmpfs dev "$root/dev"
    env -i PATH=/usr/sbin:/usr/bin HOME=/tmp PYTHONDONTWRITEBYTECODE=1 \
        chroot "$root" env -C /src /opt/venv/bin/python -m tests.kernels.warm "$@"
' warm "$(cat "$kernel/release")" "$(sed -n 's/^CONFIG_HZ=//p' "$kernel/config")" "$@"
