"""ebpf-lb: a Kubernetes Service load balancer in eBPF, in kube-proxy's place beside any CNI."""
