"""What we list and watch. The rights of the ClusterRole system:node-proxier suffice."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ebpf_lb.kube.parse import (
    Parsed,
    parse_endpoints,
    parse_node,
    parse_service,
    parse_service_cidr,
    parse_slice,
)

# The server leaves out what is not ours; a label that comes is a deletion to us, one that goes a
# creation. The same selector as kube-proxy's.
_OURS = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"


@dataclass(frozen=True, slots=True)
class Resource:
    """A collection at `path`, perhaps a part of it, and how its objects are read."""

    name: str
    path: str
    parse: Callable[[Any], Parsed[Any]]
    label_selector: str = ""
    field_selector: str = ""
    otherwise: "Resource | None" = None  # what to follow where the server has no such collection
    optional: bool = False  # where there is none, or we have no rights to it, it is taken as empty

    @property
    def selectors(self) -> dict[str, str]:
        chosen = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector}
        return {name: text for name, text in chosen.items() if text}


SERVICES = Resource("services", "/api/v1/services", parse_service, label_selector=_OURS)
ENDPOINT_SLICES = Resource(
    "endpointslices",
    "/apis/discovery.k8s.io/v1/endpointslices",
    parse_slice,
    label_selector=_OURS,
)
ENDPOINTS = Resource("endpoints", "/api/v1/endpoints", parse_endpoints, label_selector=_OURS)
ENDPOINT_SLICES_OR_ENDPOINTS = replace(ENDPOINT_SLICES, otherwise=ENDPOINTS)


SERVICE_CIDRS = Resource(
    "servicecidrs", "/apis/networking.k8s.io/v1/servicecidrs", parse_service_cidr, optional=True
)


def node(name: str) -> Resource:
    """The one Node of this name."""
    return Resource("nodes", "/api/v1/nodes", parse_node, field_selector=f"metadata.name={name}")
