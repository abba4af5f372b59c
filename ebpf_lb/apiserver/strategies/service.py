"""Services: what the API server does to them on their way in.

Upstream: pkg/registry/core/service (strategy.go, storage/alloc.go), pkg/apis/core/v1/defaults.go.
"""

from ebpf_lb.apiserver.errors import FieldError, bad_value
from ebpf_lb.apiserver.paths import set_defaults
from ebpf_lb.apiserver.store import Json
from ebpf_lb.apiserver.strategies import service_families
from ebpf_lb.apiserver.strategies.allocation import AllocationError, ClusterIPs, NodePorts
from ebpf_lb.apiserver.strategies.base import Strategy
from ebpf_lb.apiserver.strategies.service_validation import (
    ONLY_FOR,
    RULES,
    STATUS_RULES,
    has_cluster_ip,
    has_health_check_port,
    has_node_ports,
    is_balanced,
    is_external,
    service_errors,
    status_errors,
)
from ebpf_lb.apiserver.validation import broken

DEFAULT_AFFINITY_TIMEOUT_S = 10_800


class ServiceStrategy(Strategy):
    def __init__(self, cluster_ips: ClusterIPs, node_ports: NodePorts) -> None:
        self._cluster_ips = cluster_ips
        self._node_ports = node_ports

    first_status = {"loadBalancer": {}}
    defaults = {
        "spec.type": "ClusterIP",
        "spec.sessionAffinity": "None",
        "spec.ports[*].protocol": "TCP",
        "spec.ports[*].port": 0,  # which is refused, by its name
    }
    rules = RULES

    def prepare_create(self, new: Json) -> None:
        super().prepare_create(new)
        service_families.join_addresses(new.setdefault("spec", {}), None)

    def prepare_update(self, new: Json, old: Json) -> None:
        spec, before = new.setdefault("spec", {}), old["spec"]
        spec.setdefault("type", "ClusterIP")
        _keep_allocated(spec, before)
        service_families.join_addresses(spec, before)
        _drop_what_the_type_had(spec, before)
        service_families.drop_second_family(spec, before)
        if is_balanced(before) and not is_balanced(spec):
            new["status"] = new.get("status", {}) | {"loadBalancer": {}}

    def default(self, new: Json, old: Json | None) -> None:
        spec = new["spec"]
        for field in ("ports", "selector", "externalIPs", "loadBalancerSourceRanges"):
            if not spec.get(field):
                spec.pop(field, None)
        super().default(new, old)
        for port in spec.get("ports", ()):
            port["targetPort"] = port.get("targetPort") or port["port"]
            if port.get("nodePort") == 0:
                del port["nodePort"]
        if spec["sessionAffinity"] == "None":
            spec.pop("sessionAffinityConfig", None)
        elif spec["sessionAffinity"] == "ClientIP":
            timeout = "sessionAffinityConfig.clientIP.timeoutSeconds"
            set_defaults(spec, {timeout: DEFAULT_AFFINITY_TIMEOUT_S})
        for who, field, value in (
            (is_external, "externalTrafficPolicy", "Cluster"),
            (is_balanced, "allocateLoadBalancerNodePorts", True),
            (has_cluster_ip, "internalTrafficPolicy", "Cluster"),
        ):
            if who(spec):
                spec.setdefault(field, value)

    def validate(self, new: Json, old: Json | None) -> list[FieldError]:
        errors = super().validate(new, old)
        return errors + service_errors(new["spec"], old["spec"] if old else None)

    def validate_status(self, new: Json) -> list[FieldError]:
        for ingress in new.get("status", {}).get("loadBalancer", {}).get("ingress", ()):
            if "ip" in ingress:
                ingress.setdefault("ipMode", "VIP")
        return broken(new, STATUS_RULES) + status_errors(new.get("status", {}), new["spec"])

    def allocate(self, new: Json, old: Json | None) -> list[FieldError]:
        spec: Json = new["spec"]
        owner = f"{new['metadata']['namespace']}/{new['metadata']['name']}"
        if has_cluster_ip(spec):
            available = [family for family in self._families() if self._cluster_ips.ranges(family)]
            if errors := service_families.assign(spec, old["spec"] if old else None, available):
                return errors
            if errors := self._allocate_addresses(spec, owner):
                return errors
        return self._allocate_ports(spec, owner)

    def _families(self) -> list[str]:
        """The cluster's, the primary one first: that of the first ServiceCIDR."""
        return service_families.order(self._cluster_ips.primary())

    def _allocate_addresses(self, spec: Json, owner: str) -> list[FieldError]:
        addresses: list[str] = spec.get("clusterIPs", [])
        if addresses != ["None"]:
            addresses = list(addresses)
            try:
                for address in addresses:
                    self._cluster_ips.check(address, owner)
                for family in spec["ipFamilies"][len(addresses) :]:
                    addresses.append(self._cluster_ips.choose(family))
            except AllocationError as error:
                return [bad_value("spec.clusterIPs", addresses, str(error))]
            spec["clusterIPs"] = addresses
        spec["clusterIP"] = addresses[0]
        return []

    def _allocate_ports(self, spec: Json, owner: str) -> list[FieldError]:
        mine: set[tuple[str, int]] = set()
        by_port: dict[int, int] = {}
        ports: list[Json] = spec.get("ports", [])
        for index, port in enumerate(ports):
            if number := port.get("nodePort"):
                try:
                    self._node_ports.check(port["protocol"], number, owner)
                except AllocationError as error:
                    field = f"spec.ports[{index}].nodePort"
                    return [bad_value(field, number, str(error))]
                mine.add((port["protocol"], number))
                by_port[port["port"]] = number
        if has_health_check_port(spec) and (asked := spec.get("healthCheckNodePort")):
            mine.add(("TCP", asked))  # not to be chosen for one of its ports
        try:
            if has_node_ports(spec):
                for port in ports:
                    if "nodePort" not in port:
                        port["nodePort"] = self._choose_port(port, by_port, mine, owner)
                        mine.add((port["protocol"], port["nodePort"]))
                        by_port[port["port"]] = port["nodePort"]
            if has_health_check_port(spec):
                if number := spec.get("healthCheckNodePort"):
                    self._node_ports.check("TCP", number, owner)
                else:
                    spec["healthCheckNodePort"] = self._node_ports.choose("TCP", mine)
        except AllocationError as error:
            number = spec.get("healthCheckNodePort", 0)
            return [bad_value("spec.healthCheckNodePort", number, str(error))]
        return []

    def _choose_port(
        self, port: Json, by_port: dict[int, int], mine: set[tuple[str, int]], owner: str
    ) -> int:
        """One number for all protocols of a port, as load balancers want it, where it is free."""
        protocol: str = port["protocol"]
        shared = by_port.get(port["port"])
        if shared and (protocol, shared) not in mine:
            try:
                self._node_ports.check(protocol, shared, owner)
                return shared
            except AllocationError:
                pass
        return self._node_ports.choose(protocol, mine)


def _keep_allocated(spec: Json, before: Json) -> None:
    """An update need not repeat what was given out (`patchAllocatedValues`)."""
    if has_cluster_ip(spec) and has_cluster_ip(before):
        spec["clusterIP"] = spec.get("clusterIP") or before["clusterIP"]
        if not spec.get("clusterIPs") and spec["clusterIP"] == before["clusterIP"]:
            spec["clusterIPs"] = list(before["clusterIPs"])
        for field in ("ipFamilyPolicy", "ipFamilies"):
            if not spec.get(field) and field in before:
                spec[field] = before[field]
    if has_node_ports(spec) and has_node_ports(before):
        known = {
            (port["protocol"], port["port"]): port["nodePort"]
            for port in before.get("ports", ())
            if port.get("nodePort")
        }
        asked = {(p.get("protocol", "TCP"), p.get("nodePort")) for p in spec.get("ports", ())}
        for port in spec.get("ports", ()):
            protocol = port.get("protocol", "TCP")
            number = known.get((protocol, port.get("port", 0)))
            if number and not port.get("nodePort") and (protocol, number) not in asked:
                port["nodePort"] = number
    if has_health_check_port(spec) and has_health_check_port(before):
        spec["healthCheckNodePort"] = spec.get("healthCheckNodePort") or before.get(
            "healthCheckNodePort"
        )


def _drop_what_the_type_had(spec: Json, before: Json) -> None:
    """A change of type takes along what only the old type had, unless the update changes it too
    (then it is the client's wish, and validated)."""

    for only in ONLY_FOR:
        if only.follow and only.who(before) and not only.who(spec):
            for field in only.fields:
                if spec.get(field) == before.get(field):
                    spec.pop(field, None)
    kinds_with_node_ports = ("NodePort", "LoadBalancer")
    if spec["type"] not in kinds_with_node_ports and before["type"] in kinds_with_node_ports:
        numbers = {port.get("nodePort") for port in before.get("ports", ())}
        for port in spec.get("ports", ()):
            if port.get("nodePort") in numbers:
                port.pop("nodePort", None)
