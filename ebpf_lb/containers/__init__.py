"""What a lab's pods run, in place of container images: a server that says who it is (agnhost),
cluster DNS (CoreDNS) and an ingress controller (ingress-nginx).

The lab's kubelet starts them as processes of their own, by what a pod's image is called; the lab
imports nothing of them.
"""
