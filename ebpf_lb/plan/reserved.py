"""What no Service may have on this node, since the node itself lives by who is there."""

from typing import NamedTuple

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Protocol

API_SERVER = "the API server"
KUBELET = "the kubelet"
HEALTH = "ebpf-lb's health checks"

KUBERNETES = ObjectKey("default", "kubernetes")
"""The API server's own Service."""


class Reserved(NamedTuple):
    """An address, port and protocol. `what`: who is there, as a person calls it."""

    address: bytes
    port: int
    protocol: Protocol
    what: str
