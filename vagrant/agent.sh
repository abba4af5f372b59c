#!/usr/bin/env bash
# The agent's way to the API server: by the server's own address, not by a ClusterIP.
set -euo pipefail

file=/etc/kubernetes/ebpf-lb.conf
touch $file
chmod 600 $file
kubectl --kubeconfig $file config set-cluster lab --server "https://$CONTROL:6443" \
    --certificate-authority /etc/kubernetes/pki/ca.crt --embed-certs
kubectl --kubeconfig $file config set-credentials agent --token "$TOKEN"
kubectl --kubeconfig $file config set-context lab --cluster lab --user agent
kubectl --kubeconfig $file config use-context lab
systemctl enable --now ebpf-lb
