"""The lab's cloud: gives LoadBalancer Services their addresses, and sends what is for them, and for
externalIPs, to the nodes.

A process of its own on the router, as a cloud's controller is apart from the cluster. It watches
Services and Nodes, writes addresses into Services' status (`addresses`), asks healthCheckNodePorts
(`health`), decides which nodes are eligible (`ways`), and keeps the router's routes (`router`): one
for each address, over all eligible nodes, between which the kernel chooses by flow
(net.ipv4.fib_multipath_hash_policy=1). `ebpf-lb lab route` talks to it by a socket (`requests`).
"""
