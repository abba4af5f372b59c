"""Cluster DNS: what CoreDNS is in other clusters, with the same answers.

It runs in pods behind the Service kube-system/kube-dns (`ebpf_lb/lab/coredns.yaml`), keeps to
Kubernetes' DNS specification 1.1.0, and hands on what is not the cluster's to a name server
outside, if it has one.
`zone` knows the names and does no I/O; `server` speaks DNS.

https://github.com/kubernetes/dns/blob/master/docs/specification.md
"""
