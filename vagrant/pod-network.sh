#!/usr/bin/env bash
# Routes to the other nodes' pods, this node's IPv6 address, and masquerading of what pods send to
# neither pods nor nodes. Twice is as good as once.
set -euo pipefail

device=$(ip -o -4 address show to "$ADDRESS" | awk '{ print $2; exit }')
ip -6 address replace "$ADDRESS6/64" dev "$device" nodad
for peer in $PEERS; do
    ip route replace "${peer%=*}" via "${peer#*=}"
done
nft -f - <<RULES
table inet pod-network
delete table inet pod-network
table inet pod-network {
    chain postrouting {
        type nat hook postrouting priority srcnat
        ip saddr $ALL_PODS ip daddr != { $ALL_PODS, $ALL_NODES } masquerade
        ip6 saddr $ALL_PODS6 ip6 daddr != { $ALL_PODS6, $ALL_NODES6 } masquerade
    }
}
RULES
