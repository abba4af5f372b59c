"""The server in a lab's pod: answers what Kubernetes' test image agnhost answers to its commands
`netexec` and `serve-hostname`, over TCP (HTTP), UDP and SCTP.

There is one for each pod, so it imports little: `python -S -s -m ebpf_lb.containers.podserver` with
the package's parent folder in PYTHONPATH takes 40 ms and 13 MB.
"""
