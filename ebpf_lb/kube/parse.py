"""The API's JSON, read once into values of `model`.

Unknown fields are ignored, impossible items are refused and reported (see `reader`). A `Parsed`
whose `value` is None is not for us: whoever knew such an object before must forget it.
"""

from ebpf_lb.kube.parse_endpoints import parse_endpoints, parse_slice
from ebpf_lb.kube.parse_node import parse_node
from ebpf_lb.kube.parse_service import parse_service
from ebpf_lb.kube.parse_service_cidr import parse_service_cidr
from ebpf_lb.kube.reader import Parsed

__all__ = [
    "Parsed",
    "parse_endpoints",
    "parse_node",
    "parse_service",
    "parse_service_cidr",
    "parse_slice",
]
