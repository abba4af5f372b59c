"""One process that is the kubelet, container runtime and CNI of all the lab's nodes: it watches
Pods and makes namespaces with servers out of them.

It reports a pod's addresses, phase and readiness once, when it starts; from then on whoever patches
the status (`ebpf-lb lab pod`) has the say. A pod that is marked for deletion is ended, and the API
server told to let go of it (DELETE with gracePeriodSeconds 0), after manifest.serves_on_s.
"""
