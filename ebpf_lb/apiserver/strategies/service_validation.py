"""What makes a Service invalid. Upstream: ValidateService in pkg/apis/core/validation."""

from collections.abc import Callable
from typing import NamedTuple

from ebpf_lb.apiserver.errors import FieldError, bad_value, duplicate, not_allowed, required
from ebpf_lb.apiserver.store import Json
from ebpf_lb.apiserver.validation import (
    Rules,
    between,
    cidr,
    distinct,
    dns_label,
    dns_subdomain,
    endpoint_address,
    ip_address,
    ip_family,
    labels,
    one_of,
    port_number,
    port_reference,
    protocol,
)

MAX_AFFINITY_TIMEOUT_S = 86_400
_policy = one_of("Cluster", "Local")


def _names_of_several(field: str, ports: list[Json]) -> list[FieldError]:
    """One port needs no name."""
    nameless = [index for index, port in enumerate(ports) if not port.get("name")]
    return [required(f"{field}[{index}].name") for index in nameless if len(ports) > 1]


RULES: Rules = {
    "spec.type": one_of("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"),
    "spec.externalName": lambda field, name: dns_subdomain(field, name.rstrip(".")),
    "spec.ports": (
        _names_of_several,
        distinct("name", at="name"),
        distinct("port", "protocol"),
        distinct("protocol", "nodePort", at="nodePort"),
    ),
    "spec.ports[*].name": dns_label,
    "spec.ports[*].port": port_number,
    "spec.ports[*].protocol": protocol,
    "spec.ports[*].targetPort": port_reference,
    "spec.selector": labels,
    "spec.sessionAffinity": one_of("ClientIP", "None"),
    "spec.sessionAffinityConfig.clientIP.timeoutSeconds": between(
        1, MAX_AFFINITY_TIMEOUT_S, f"must be greater than 0 and less than {MAX_AFFINITY_TIMEOUT_S}"
    ),
    "spec.externalIPs[*]": endpoint_address,
    "spec.loadBalancerSourceRanges[*]": cidr,
    "spec.externalTrafficPolicy": _policy,
    "spec.internalTrafficPolicy": _policy,
    "spec.healthCheckNodePort": port_number,
    "spec.trafficDistribution": one_of("PreferClose", "PreferSameNode", "PreferSameZone"),
}

STATUS_RULES: Rules = {
    "status.loadBalancer.ingress[*].ip": ip_address,
    "status.loadBalancer.ingress[*].ipMode": one_of("Proxy", "VIP"),
}


# --- what depends on the type


def has_cluster_ip(spec: Json) -> bool:
    return spec.get("type") != "ExternalName"


def has_node_ports(spec: Json) -> bool:
    """Whether its ports get nodePorts without being asked."""
    return spec.get("type") == "NodePort" or (
        is_balanced(spec) and spec.get("allocateLoadBalancerNodePorts", True)
    )


def is_balanced(spec: Json) -> bool:
    return spec.get("type") == "LoadBalancer"


def has_health_check_port(spec: Json) -> bool:
    return is_balanced(spec) and spec.get("externalTrafficPolicy") == "Local"


def is_external(spec: Json) -> bool:
    """Whether clients outside the cluster have an address for it."""
    return spec.get("type") in ("NodePort", "LoadBalancer") or bool(
        has_cluster_ip(spec) and spec.get("externalIPs")
    )


class OnlyFor(NamedTuple):
    """Fields that only some Services may have. why: said of others (an Invalid value, or else
    Forbidden); "": they are ignored. follow: where the type changes, an update need not name them
    for them to go."""

    who: Callable[[Json], bool]
    fields: tuple[str, ...]
    why: str = ""
    invalid: bool = False
    follow: bool = True


_BALANCED = "may only be used when `type` is 'LoadBalancer'"
_CHECKED = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
ONLY_FOR = (
    OnlyFor(
        has_cluster_ip,
        ("clusterIPs", "ipFamilies", "ipFamilyPolicy"),
        "may not be set for ExternalName services",
    ),
    OnlyFor(has_cluster_ip, ("clusterIP", "internalTrafficPolicy")),
    OnlyFor(is_balanced, ("loadBalancerClass", "allocateLoadBalancerNodePorts"), _BALANCED),
    OnlyFor(is_balanced, ("loadBalancerSourceRanges",), _BALANCED, follow=False),
    OnlyFor(
        is_external,
        ("externalTrafficPolicy",),
        "may only be set for externally-accessible services",
        invalid=True,
    ),
    OnlyFor(has_health_check_port, ("healthCheckNodePort",), _CHECKED, invalid=True),
)


def service_errors(spec: Json, before: Json | None) -> list[FieldError]:
    """What no table says: RULES are checked besides."""
    errors = [
        bad_value(f"spec.{field}", spec[field], only.why)
        if only.invalid
        else not_allowed(f"spec.{field}", only.why)
        for only in ONLY_FOR
        if only.why and not only.who(spec)
        for field in only.fields
        if spec.get(field)
    ]
    errors += _type_errors(spec) + _address_errors(spec)
    if before and has_cluster_ip(spec) and has_cluster_ip(before):
        errors += _immutable_errors(spec, before)
    return errors


def _type_errors(spec: Json) -> list[FieldError]:
    kind, headless = spec["type"], spec.get("clusterIPs") == ["None"]
    errors = []
    if kind == "ExternalName" and not spec.get("externalName", "").rstrip("."):
        errors.append(required("spec.externalName"))
    if kind != "ExternalName" and not headless and not spec.get("ports"):
        errors.append(required("spec.ports"))
    if kind in ("NodePort", "LoadBalancer") and headless:
        why = f"may not be set to 'None' for {kind} services"
        errors.append(bad_value("spec.clusterIPs[0]", "None", why))
    for index, port in enumerate(spec.get("ports", ())):
        field = f"spec.ports[{index}].nodePort"
        if "nodePort" in port and headless:
            why = "may not be used with a headless service"
            errors.append(bad_value(field, port["nodePort"], why))
        if "nodePort" in port and kind in ("ClusterIP", "ExternalName"):
            errors.append(not_allowed(field, "may not be used when `type` is 'ClusterIP'"))
    return errors


def _address_errors(spec: Json) -> list[FieldError]:
    addresses: list[str] = spec.get("clusterIPs", [])
    errors = [
        error
        for index, address in enumerate(addresses)
        if address != "None" or index
        for error in ip_address(f"spec.clusterIPs[{index}]", address)
    ]
    wrong = ""
    if len(addresses) > 2:
        wrong = "may only hold up to 2 values"
    elif len(addresses) == 2 and len({ip_family(address) for address in addresses}) == 1:
        wrong = "may specify no more than one IP for each IP family"
    elif addresses and not spec.get("clusterIP"):
        wrong = "must be empty when `clusterIP` is not specified"
    elif addresses and spec["clusterIP"] != addresses[0]:
        wrong = "first value must match `clusterIP`"
    if wrong:
        errors.append(bad_value("spec.clusterIPs", addresses, wrong))
    families = spec.get("ipFamilies", [])
    if len(families) != len(set(families)):
        errors.append(duplicate("spec.ipFamilies[1]", families[-1]))
    return errors


def _immutable_errors(spec: Json, before: Json) -> list[FieldError]:
    """ClusterIPs stay; the second one may come and go."""
    why, addresses = "may not change once set", spec.get("clusterIPs", [])
    errors = []
    for index, old in enumerate(before.get("clusterIPs", ())):
        if index < len(addresses):
            if addresses[index] != old:
                errors.append(bad_value(f"spec.clusterIPs[{index}]", addresses, why))
        elif index == 0 or spec.get("ipFamilyPolicy") != "SingleStack":
            errors.append(bad_value("spec.clusterIPs", addresses, why))
    health = before.get("healthCheckNodePort")
    if health and spec.get("healthCheckNodePort") not in (None, health):
        errors.append(not_allowed("spec.healthCheckNodePort", "field is immutable"))
    return errors


def status_errors(status: Json, spec: Json) -> list[FieldError]:
    """Besides STATUS_RULES."""
    ingress = status.get("loadBalancer", {}).get("ingress", ())
    errors = [
        not_allowed(
            f"status.loadBalancer.ingress[{index}].ipMode",
            "may not be specified when `ip` is not set",
        )
        for index, entry in enumerate(ingress)
        if "ipMode" in entry and "ip" not in entry
    ]
    if ingress and not is_balanced(spec):
        why = "may only be used when `spec.type` is 'LoadBalancer'"
        errors.append(not_allowed("status.loadBalancer.ingress", why))
    return errors
