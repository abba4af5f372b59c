#!/usr/bin/env bash
# What the bridge CNI leaves to others: at each start of the machine, not by Vagrant.
set -euo pipefail

{
    for name in ADDRESS ADDRESS6 ALL_PODS ALL_PODS6 ALL_NODES ALL_NODES6 PEERS; do
        printf '%s="%s"\n' "$name" "${!name}"
    done
} >/etc/pod-network.conf
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nftables
install -m 755 /vagrant/vagrant/pod-network.sh /usr/local/sbin/pod-network
cat >/etc/systemd/system/pod-network.service <<UNIT
[Unit]
Description=Routes to the other nodes' pods, and masquerading of what pods send outside
Wants=network-online.target
After=network-online.target
Before=kubelet.service

[Service]
Type=oneshot
RemainAfterExit=yes
EnvironmentFile=/etc/pod-network.conf
ExecStart=/usr/local/sbin/pod-network

[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable pod-network
systemctl restart pod-network
