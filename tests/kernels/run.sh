#!/usr/bin/env bash
# Boots a kernel that build.sh has fetched, with the project at /src, runs a command in it, ends with
# the command's exit status. README.md has the rest.
#
#     [OUT=DIR] [APPEND='kernel parameters'] … ./run.sh KERNEL COMMAND...
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
store=${EBPF_LB_KERNELS:-${XDG_CACHE_HOME:-$HOME/.cache}/ebpf-lb-kernels}
project=$(cd "$here/../.." && pwd)
if [ $# -lt 2 ] || [ ! -e "$store/$1/made" ]; then
    echo "usage: run.sh KERNEL COMMAND...; kernels here:" \
        "$(cd "$store" 2>/dev/null && ls -d -- */ 2>/dev/null | tr -d / | tr '\n' ' ')" >&2
    exit 2
fi
kernel=$store/$1
shift

work=$(mktemp -d "${TMPDIR:-/tmp}/ebpf-lb-kernels.XXXXXX")
trap 'rm -rf "$work"' EXIT
out=$work/out
[ -z "${OUT:-}" ] || { mkdir -p "$OUT" && out=$(cd "$OUT" && pwd); }
mkdir -p "$out" "$work/source"
# what tests compile in the guest is kept: that takes minutes without KVM
mkdir -p -m 700 "$kernel/cache"
rm -f "$out/status"
cp "$here/guest-init" "$out/"
printf '%s\n' "$*" >"$out/command"

# what git would commit, changed files as they are; and the programs, compiled here: the guest need not
[ ! -x "$project/.venv/bin/python" ] || (cd "$project" && .venv/bin/python -m ebpf_lb.datapath.loader.build) >&2
(cd "$project" && { git -c safe.directory='*' ls-files -z --cached --others --exclude-standard |
    xargs -0 ls -d 2>/dev/null; find ebpf_lb/objects -type f; } |
    tar -c --no-recursion -T -) | tar -x -C "$work/source"
mke2fs -q -t ext4 -O ^has_journal -m 0 -E root_owner=0:0 -d "$work/source" "$work/source.ext4" 512M >/dev/null

disk() { printf 'if=virtio,format=raw,%s,file=%s' "$1" "$2"; }
status=0
timeout --foreground "${LIMIT_S:-7200}" nice -n "${NICE:-15}" qemu-system-x86_64 \
    -accel "${ACCEL:-tcg,thread=multi}" -cpu max -smp "${CPUS:-2}" -m "${MEMORY:-3G}" \
    -nodefaults -no-user-config -display none -no-reboot \
    -kernel "$kernel/vmlinuz" -initrd "$kernel/early.gz" \
    -append "console=ttyS0 panic=-1 quiet loglevel=5 mitigations=off nowatchdog no_timer_check ${APPEND:-}" \
    -drive "$(disk snapshot=on "$store/root.ext4")" \
    -drive "$(disk snapshot=on "$kernel/modules.ext4")" \
    -drive "$(disk cache=unsafe "$work/source.ext4")" \
    -virtfs "local,path=$out,mount_tag=host,security_model=none" \
    -virtfs "local,path=$kernel/cache,mount_tag=cache,security_model=none" \
    -device virtio-rng-pci \
    -chardev "file,id=console,path=$out/console.log" -serial chardev:console \
    -chardev stdio,id=command,signal=off -serial chardev:command || status=$?
if [ ! -s "$out/status" ]; then
    echo "run.sh: the guest ended without a result (qemu: $status); its last words:" >&2
    tail -n 30 "$out/console.log" >&2
    exit 125
fi
exit "$(cat "$out/status")"
