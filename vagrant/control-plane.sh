#!/usr/bin/env bash
# Kubernetes' control plane without kube-proxy. The nodes' podCIDRs are the ones that their CNI has:
# the controller manager would give them out in the order in which the nodes come.
set -euo pipefail

mkdir -p /etc/kubernetes
cat >/etc/kubernetes/kubeadm.yaml <<CONFIGURATION
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens:
  - token: $TOKEN
    ttl: 0s
    groups: [system:bootstrappers:kubeadm:default-node-token]
localAPIEndpoint: {advertiseAddress: $ADDRESS}
nodeRegistration: {name: $NAME}
skipPhases: [addon/kube-proxy]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {podSubnet: "$ALL_PODS,$ALL_PODS6", serviceSubnet: "$ALL_SERVICES"}
controllerManager: {extraArgs: [{name: allocate-node-cidrs, value: "false"}]}
CONFIGURATION
[ -e /etc/kubernetes/admin.conf ] || kubeadm init --config /etc/kubernetes/kubeadm.yaml
mkdir -p "$HOME/.kube"
cp /etc/kubernetes/admin.conf "$HOME/.kube/config"

for pair in $POD_CIDRS; do
    node=${pair%=*} cidrs=${pair#*=}
    kubectl get node "$node" >/dev/null 2>&1 ||
        printf '{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "%s"}}' "$node" | kubectl create -f -
    [ -n "$(kubectl get node "$node" -o jsonpath='{.spec.podCIDR}')" ] ||
        kubectl patch node "$node" --type merge \
            -p "{\"spec\": {\"podCIDR\": \"${cidrs%,*}\", \"podCIDRs\": [\"${cidrs%,*}\", \"${cidrs#*,}\"]}}"
done

# The agent's identity is the bootstrap token's: each machine knows it without asking another.
kubectl create clusterrolebinding ebpf-lb --clusterrole system:node-proxier \
    --user "system:bootstrap:${TOKEN%.*}" --dry-run=client -o yaml | kubectl apply -f -
