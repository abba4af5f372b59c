"""`networking.k8s.io/v1` ServiceCIDRs (KEP-1880)."""

from ebpf_lb.kube.reader import Json, Parsed, Reader
from ebpf_lb.model.service_cidr import ServiceCIDR


def parse_service_cidr(raw: Json) -> Parsed[ServiceCIDR]:
    """A ServiceCIDR. One that is being deleted, or is not ready yet, counts like any other: it may
    still, or already, hold addresses (kube-proxy, too)."""
    read = Reader("ServiceCIDR", raw)
    if not read.key.name:
        read.refuse("metadata.name", read.key.name, "an object needs a name")
        return read.done(None)
    spec = read.mapping(raw, "spec", "spec")
    networks = read.networks(read.listed(spec, "cidrs", "spec.cidrs"))
    return read.done(ServiceCIDR(read.key, networks))
