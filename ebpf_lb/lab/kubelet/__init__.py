"""One process that is the kubelet, container runtime and CNI of all the lab's nodes: it watches
Pods and makes namespaces with servers out of them."""
