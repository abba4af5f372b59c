#!/bin/bash
# Labs of every kind, and the lessons in each: does the agent come up, and does traffic go its way?
#
#     run.sh KERNEL bash tests/kernels/checks/labs.sh [LAB...]
#
# One line a lab and a lesson; what a failing one said is in $OUT/labs/.
declare -A LABS=(
    [routes]='' [ptp]='--pods ptp' [vxlan]='--network vxlan' [vxlan-ptp]='--network vxlan --pods ptp'
    [udp]='--network udp' [native]='--xdp native' [generic]='--xdp generic'
    [packets]='--no-socket-hooks' [ipv4]='--family ipv4' [ipv6]='--family ipv6'
)
LESSONS=(hostnames cross-node-snat etp-local etp-local-drop hairpin session-affinity node-socket)
[ $# -gt 0 ] || set -- routes ptp vxlan vxlan-ptp udp native
modprobe br_netfilter
mkdir -p "$OUT/labs"
export EBPF_LB_LAB=k
failed=0

try() { # NAME COMMAND...
    local log=$OUT/labs/$1.log started=$EPOCHREALTIME result=ok
    "${@:2}" >"$log" 2>&1 || { result=FAILED failed=1; }
    printf '%-6s %-28s %5.1f s\n' "$result" "$1" "$(since "$started")"
    [ $result = ok ] || tail -n 25 "$log" | sed 's/^/    /'
    [ $result = ok ]
}
since() { python3 -c "print($EPOCHREALTIME - $1)"; }

for lab; do
    # shellcheck disable=SC2086 # options are words
    if try "$lab" ebpf-lb lab up ${LABS[$lab]}; then
        for lesson in "${LESSONS[@]}"; do
            try "$lab-$lesson" ebpf-lb lab scenario run "$lesson"
        done
        ebpf-lb lab exec node2 -- ebpf-lb maps dump counters >"$OUT/labs/$lab.counters" 2>&1
    fi
    mkdir -p "$OUT/labs/$lab" && cp /run/ebpf-lb/labs/k/logs/*.log "$OUT/labs/$lab/" 2>/dev/null
    ebpf-lb lab down >>"$OUT/labs/$lab.log" 2>&1
done
exit $failed
