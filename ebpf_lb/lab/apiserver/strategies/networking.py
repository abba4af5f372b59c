"""EndpointSlices, Endpoints and ServiceCIDRs: defaults and validation."""

from ebpf_lb.lab.apiserver.errors import (
    FieldError,
    bad_value,
    duplicate,
    not_allowed,
    required,
)
from ebpf_lb.lab.apiserver.store import Json
from ebpf_lb.lab.apiserver.strategies.base import Strategy
from ebpf_lb.lab.apiserver.validation import (
    cidr,
    dns_label,
    dns_subdomain,
    endpoint_address,
    ip_family,
    one_of,
    port_number,
    protocol,
)

MAX_ENDPOINTS = 1000
_MAX_ADDRESSES = 100


class EndpointSliceStrategy(Strategy):
    def prepare_create(self, new: Json) -> None:
        return

    def default(self, new: Json, old: Json | None) -> None:
        # Both lists are always there in JSON, as null when empty: clients must cope with it.
        new["endpoints"] = new.get("endpoints") or None
        new["ports"] = new.get("ports") or None
        for endpoint in new["endpoints"] or ():
            endpoint.setdefault("conditions", {})
        for port in new["ports"] or ():
            port.setdefault("name", "")
            port.setdefault("protocol", "TCP")

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        address_type = new.get("addressType", "")
        if not address_type:
            return [required("addressType")]
        errors = one_of("addressType", address_type, ("FQDN", "IPv4", "IPv6"))
        if old and old["addressType"] != address_type:
            errors.append(bad_value("addressType", address_type, "field is immutable"))
        endpoints: list[Json] = new["endpoints"] or []
        if len(endpoints) > MAX_ENDPOINTS:
            text = f"must have at most {MAX_ENDPOINTS} items"
            errors.append(bad_value("endpoints", len(endpoints), text))
        for index, endpoint in enumerate(endpoints):
            errors += _endpoint_errors(endpoint, f"endpoints[{index}]", address_type)
        names: set[str] = set()
        for index, port in enumerate(new["ports"] or ()):
            field = f"ports[{index}]"
            if port["name"]:
                errors += dns_label(f"{field}.name", port["name"])
            if port["name"] in names:
                errors.append(duplicate(f"{field}.name", port["name"]))
            names.add(port["name"])
            # The number is not checked: upstream accepts any, and proxies must cope with it.
            errors += protocol(f"{field}.protocol", port["protocol"])
        return errors


def _endpoint_errors(endpoint: Json, field: str, address_type: str) -> list[FieldError]:
    addresses: list[str] = endpoint.get("addresses", [])
    if not addresses:
        return [required(f"{field}.addresses", "must contain at least 1 address")]
    errors = []
    if len(addresses) > _MAX_ADDRESSES:
        text = f"must have at most {_MAX_ADDRESSES} items"
        errors.append(bad_value(f"{field}.addresses", len(addresses), text))
    for index, address in enumerate(addresses):
        place = f"{field}.addresses[{index}]"
        if address_type == "FQDN":
            errors += dns_subdomain(place, address)
        elif ip_family(address) != address_type:
            errors.append(bad_value(place, address, f"must be a valid {address_type} address"))
        else:
            errors += endpoint_address(place, address)
    if hostname := endpoint.get("hostname"):
        errors += dns_label(f"{field}.hostname", hostname)
    if node := endpoint.get("nodeName"):
        errors += dns_subdomain(f"{field}.nodeName", node)
    return errors


class EndpointsStrategy(Strategy):
    def prepare_create(self, new: Json) -> None:
        return

    def default(self, new: Json, old: Json | None) -> None:
        if not new.get("subsets"):
            new.pop("subsets", None)
        for subset in new.get("subsets", ()):
            for port in subset.get("ports", ()):
                port.setdefault("protocol", "TCP")

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        errors = []
        for index, subset in enumerate(new.get("subsets", ())):
            field = f"subsets[{index}]"
            if not subset.get("addresses") and not subset.get("notReadyAddresses"):
                errors.append(required(field, "must specify `addresses` or `notReadyAddresses`"))
            for group in ("addresses", "notReadyAddresses"):
                for position, address in enumerate(subset.get(group, ())):
                    place = f"{field}.{group}[{position}].ip"
                    errors += endpoint_address(place, address.get("ip", ""))
            ports: list[Json] = subset.get("ports", [])
            for position, port in enumerate(ports):
                place = f"{field}.ports[{position}]"
                if not port.get("name") and len(ports) > 1:
                    errors.append(required(f"{place}.name"))
                errors += port_number(f"{place}.port", port.get("port", 0))
                errors += protocol(f"{place}.protocol", port["protocol"])
        return errors


class ServiceCIDRStrategy(Strategy):
    def prepare_create(self, new: Json) -> None:
        new["status"] = {}

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        cidrs: list[str] = new.get("spec", {}).get("cidrs", [])
        if not cidrs:
            return [required("spec.cidrs", "at least one CIDR required")]
        if len(cidrs) > 2:
            return [bad_value("spec.cidrs", cidrs, "may only hold up to 2 values")]
        errors = []
        for index, text in enumerate(cidrs):
            errors += cidr(f"spec.cidrs[{index}]", text)
        if old and cidrs != old["spec"]["cidrs"]:
            errors.append(not_allowed("spec.cidrs", "field is immutable"))
        return errors


class NamespaceStrategy(Strategy):
    def prepare_create(self, new: Json) -> None:
        new["status"] = {"phase": "Active"}

    def default(self, new: Json, old: Json | None) -> None:
        new["spec"] = {"finalizers": ["kubernetes"]}
        labels = new["metadata"].setdefault("labels", {})
        labels["kubernetes.io/metadata.name"] = new["metadata"].get("name", "")


class NodeStrategy(Strategy):
    def prepare_create(self, new: Json) -> None:
        """A node registers itself together with its status."""

    def default(self, new: Json, old: Json | None) -> None:
        new.setdefault("spec", {})
        new.setdefault("status", {})
        for field in ("podCIDR", "podCIDRs"):
            if old and field in old["spec"]:
                new["spec"].setdefault(field, old["spec"][field])

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        errors = []
        for index, text in enumerate(new["spec"].get("podCIDRs", ())):
            errors += cidr(f"spec.podCIDRs[{index}]", text)
        return errors
