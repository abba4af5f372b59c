"""EndpointSlices, Endpoints, ServiceCIDRs, Namespaces and Nodes: defaults and validation."""

from ebpf_lb.apiserver.errors import FieldError, bad_value, required
from ebpf_lb.apiserver.paths import find
from ebpf_lb.apiserver.store import Json
from ebpf_lb.apiserver.strategies.base import Strategy
from ebpf_lb.apiserver.validation import (
    at_most,
    cidr,
    distinct,
    dns_label,
    dns_subdomain,
    endpoint_address,
    ip_family,
    needs,
    one_of,
    port_number,
    protocol,
)

MAX_ENDPOINTS = 1000
_MAX_ADDRESSES = 100


class EndpointSliceStrategy(Strategy):
    defaults = {"endpoints[*].conditions": {}, "ports[*].name": "", "ports[*].protocol": "TCP"}
    rules = {
        "addressType": one_of("FQDN", "IPv4", "IPv6"),
        "endpoints": at_most(MAX_ENDPOINTS),
        "endpoints[*]": needs("addresses", why="must contain at least 1 address"),
        "endpoints[*].addresses": at_most(_MAX_ADDRESSES),
        "endpoints[*].hostname": dns_label,
        "endpoints[*].nodeName": dns_subdomain,
        "ports": distinct("name", at="name"),
        "ports[*].name": dns_label,
        # The number is not checked: upstream accepts any, and proxies must cope with it.
        "ports[*].protocol": protocol,
    }
    immutable = ("addressType",)

    def default(self, new: Json, old: Json | None) -> None:
        # Both lists are always there in JSON, as null when empty: clients must cope with it.
        new["endpoints"] = new.get("endpoints") or None
        new["ports"] = new.get("ports") or None
        super().default(new, old)

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        if not (kind := new.get("addressType")):
            return [required("addressType")]
        errors = super().validate(new, old)
        for place, address in find(new, "endpoints[*].addresses[*]"):
            if kind == "FQDN":
                errors += dns_subdomain(place, address)
            elif ip_family(address) != kind:
                errors.append(bad_value(place, address, f"must be a valid {kind} address"))
            else:
                errors += endpoint_address(place, address)
        return errors


def _some_address(field: str, subset: Json) -> list[FieldError]:
    if subset.get("addresses") or subset.get("notReadyAddresses"):
        return []
    return [required(field, "must specify `addresses` or `notReadyAddresses`")]


def _names_of_several(field: str, ports: list[Json]) -> list[FieldError]:
    """One port needs no name."""
    several = ports if len(ports) > 1 else []
    return [
        e for index, port in enumerate(several) for e in needs("name")(f"{field}[{index}]", port)
    ]


class EndpointsStrategy(Strategy):
    defaults = {"subsets[*].ports[*].protocol": "TCP"}
    rules = {
        "subsets[*]": _some_address,
        "subsets[*].addresses[*]": needs("ip"),
        "subsets[*].addresses[*].ip": endpoint_address,
        "subsets[*].notReadyAddresses[*]": needs("ip"),
        "subsets[*].notReadyAddresses[*].ip": endpoint_address,
        "subsets[*].ports": _names_of_several,
        "subsets[*].ports[*]": needs("port"),
        "subsets[*].ports[*].port": port_number,
        "subsets[*].ports[*].protocol": protocol,
    }

    def default(self, new: Json, old: Json | None) -> None:
        if not new.get("subsets"):
            new.pop("subsets", None)
        super().default(new, old)


class ServiceCIDRStrategy(Strategy):
    first_status = {}
    defaults = {"spec": {}}
    rules = {
        "spec": needs("cidrs", why="at least one CIDR required"),
        "spec.cidrs": at_most(2, "may only hold up to 2 values"),
        "spec.cidrs[*]": cidr,
    }
    immutable = ("spec.cidrs",)


class NamespaceStrategy(Strategy):
    first_status = {"phase": "Active"}

    def default(self, new: Json, old: Json | None) -> None:
        new["spec"] = {"finalizers": ["kubernetes"]}
        labels = new["metadata"].setdefault("labels", {})
        labels["kubernetes.io/metadata.name"] = new["metadata"].get("name", "")


class NodeStrategy(Strategy):
    defaults = {"spec": {}, "status": {}}
    rules = {"spec.podCIDRs[*]": cidr}

    def prepare_create(self, new: Json) -> None:
        """A node registers itself together with its status."""

    def prepare_update(self, new: Json, old: Json) -> None:
        kept = {name: old["spec"][name] for name in ("podCIDR", "podCIDRs") if name in old["spec"]}
        new["spec"] = kept | new.get("spec", {})
