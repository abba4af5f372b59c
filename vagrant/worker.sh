#!/usr/bin/env bash
set -euo pipefail

[ -e /etc/kubernetes/kubelet.conf ] || kubeadm join "$CONTROL:6443" --token "$TOKEN" \
    --discovery-token-unsafe-skip-ca-verification --node-name "$NAME"
