#!/usr/bin/env bash
# Container runtime, CNI, kubelet and kubeadm, and this project's agent as a unit.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

swapoff -a
sed -i '/ swap /d' /etc/fstab
printf 'overlay\nbr_netfilter\n' >/etc/modules-load.d/kubernetes.conf
modprobe -a overlay br_netfilter
cat >/etc/sysctl.d/kubernetes.conf <<SETTINGS
net.ipv4.ip_forward=1
net.ipv6.conf.all.forwarding=1
net.bridge.bridge-nf-call-iptables=1
net.bridge.bridge-nf-call-ip6tables=1
SETTINGS
sysctl -q --system

apt-get update -qq
apt-get install -y -qq --no-install-recommends ca-certificates curl gpg containerd \
    containernetworking-plugins make rsync
packages=https://pkgs.k8s.io/core:/stable:/$KUBERNETES/deb/
curl -fsSL "${packages}Release.key" | gpg --batch --yes --dearmor -o /usr/share/keyrings/kubernetes.gpg
echo "deb [signed-by=/usr/share/keyrings/kubernetes.gpg] $packages /" >/etc/apt/sources.list.d/kubernetes.list
apt-get update -qq
apt-get install -y -qq kubelet kubeadm kubectl

mkdir -p /etc/containerd /etc/cni/net.d /opt/cni
containerd config default | sed 's/SystemdCgroup = false/SystemdCgroup = true/' >/etc/containerd/config.toml
ln -sfn /usr/lib/cni /opt/cni/bin
cat >/etc/cni/net.d/10-bridge.conflist <<JSON
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$PODS"}], [{"subnet": "$PODS6"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
systemctl restart containerd
echo "KUBELET_EXTRA_ARGS=--node-ip=$ADDRESS,$ADDRESS6" >/etc/default/kubelet

rsync -a --delete --exclude .venv --exclude .git /vagrant/ /opt/ebpf-lb/
make -C /opt/ebpf-lb setup
ln -sfn /opt/ebpf-lb/.venv/bin/ebpf-lb /usr/local/bin/ebpf-lb
cat >/etc/systemd/system/ebpf-lb.service <<UNIT
[Unit]
Description=ebpf-lb agent
ConditionPathExists=/etc/kubernetes/kubelet.conf
After=network-online.target

[Service]
ExecStart=/usr/local/bin/ebpf-lb agent --kubeconfig /etc/kubernetes/ebpf-lb.conf --node-name $NAME --cluster-cidr $ALL_PODS,$ALL_PODS6
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
