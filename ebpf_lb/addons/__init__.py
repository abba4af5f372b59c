"""What a cluster has beside its own parts, in pods: cluster DNS and an ingress controller.

Clients of the API server, built upon the lab's. The lab's kubelet starts them in place of the
images coredns and ingress-nginx, as processes of their own; the lab imports nothing of them.
"""
