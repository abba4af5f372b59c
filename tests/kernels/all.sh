#!/usr/bin/env bash
# What each kernel makes of the project: every program of every build is loaded, then labs come up and are
# asked (LABS, or `all`). Goes on after a failure, and ends with it. `make kernels`.
#
#     ./all.sh KERNEL...
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
read -r -a labs <<<"${LABS:-routes vxlan-ptp native}"
[ "${labs[*]}" != all ] || labs=(routes ptp vxlan vxlan-ptp udp native generic packets ipv4 ipv6)
out=${OUT:-$(mktemp -d "${TMPDIR:-/tmp}/ebpf-lb-kernels.XXXXXX")}
failed=()

check() { # KERNEL NAME COMMAND...
    echo "== $1: $2"
    OUT=$out/$1 "$here/run.sh" "$1" "${@:3}" || failed+=("$1: $2")
}

"$here/build.sh" "$@"
for kernel; do
    check "$kernel" programs python -m tests.kernels.checks.load
    check "$kernel" SCTP python -m tests.kernels.checks.sctp
    check "$kernel" labs bash tests/kernels/checks/labs.sh "${labs[@]}"
done
echo "== logs: $out"
if [ ${#failed[@]} -gt 0 ]; then
    printf 'FAILED %s\n' "${failed[@]}"
    exit 1
fi
