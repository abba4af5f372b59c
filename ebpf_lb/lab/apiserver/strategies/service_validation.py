"""What makes a Service invalid. Upstream: ValidateService in pkg/apis/core/validation."""

from ebpf_lb.lab.apiserver.errors import (
    FieldError,
    bad_value,
    duplicate,
    not_allowed,
    required,
)
from ebpf_lb.lab.apiserver.store import Json
from ebpf_lb.lab.apiserver.validation import (
    cidr,
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

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_POLICIES = ("Cluster", "Local")
_DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
MAX_AFFINITY_TIMEOUT_S = 86_400


def service_errors(spec: Json, before: Json | None) -> list[FieldError]:
    kind = spec["type"]
    errors = one_of("spec.type", kind, TYPES)
    errors += _type_errors(spec)
    errors += _port_errors(spec)
    errors += labels("spec.selector", spec.get("selector", {}))
    errors += _affinity_errors(spec)
    errors += _address_errors(spec)
    errors += _policy_errors(spec)
    if before:
        errors += _immutable_errors(spec, before)
    return errors


def _type_errors(spec: Json) -> list[FieldError]:
    kind, headless = spec["type"], spec.get("clusterIPs") == ["None"]
    errors = []
    if kind == "ExternalName":
        name = spec.get("externalName", "").rstrip(".")
        if not name:
            errors.append(required("spec.externalName"))
        else:
            errors += dns_subdomain("spec.externalName", name)
        for field in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(field):
                errors.append(
                    not_allowed(f"spec.{field}", "may not be set for ExternalName services")
                )
    if kind in ("NodePort", "LoadBalancer") and headless:
        errors.append(
            bad_value("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services")
        )
    if kind != "LoadBalancer":
        for field in (
            "loadBalancerSourceRanges",
            "loadBalancerClass",
            "allocateLoadBalancerNodePorts",
        ):
            if spec.get(field):
                text = "may only be used when `type` is 'LoadBalancer'"
                errors.append(not_allowed(f"spec.{field}", text))
    return errors


def _port_errors(spec: Json) -> list[FieldError]:
    ports: list[Json] = spec.get("ports", [])
    kind, headless = spec["type"], spec.get("clusterIPs") == ["None"]
    if not ports and kind != "ExternalName" and not headless:
        return [required("spec.ports")]
    errors = []
    names: set[str] = set()
    seen: set[tuple[str, int]] = set()
    node_ports: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        field = f"spec.ports[{index}]"
        name = port.get("name", "")
        if name:
            errors += dns_label(f"{field}.name", name)
            if name in names:
                errors.append(duplicate(f"{field}.name", name))
            names.add(name)
        elif len(ports) > 1:
            errors.append(required(f"{field}.name"))
        errors += port_number(f"{field}.port", port["port"])
        errors += protocol(f"{field}.protocol", port["protocol"])
        errors += port_reference(f"{field}.targetPort", port["targetPort"])
        if headless and "nodePort" in port:
            errors.append(
                bad_value(
                    f"{field}.nodePort", port["nodePort"], "may not be used with a headless service"
                )
            )
        if "nodePort" in port and kind in ("ClusterIP", "ExternalName"):
            errors.append(
                not_allowed(f"{field}.nodePort", "may not be used when `type` is 'ClusterIP'")
            )
        key = (port["protocol"], port["port"])
        if key in seen:
            errors.append(duplicate(field, {"port": port["port"], "protocol": key[0]}))
        seen.add(key)
        if number := port.get("nodePort"):
            if (key[0], number) in node_ports:
                errors.append(duplicate(f"{field}.nodePort", number))
            node_ports.add((key[0], number))
    return errors


def _affinity_errors(spec: Json) -> list[FieldError]:
    errors = one_of("spec.sessionAffinity", spec["sessionAffinity"], ("ClientIP", "None"))
    if spec["sessionAffinity"] == "ClientIP":
        seconds = spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"]
        if not 1 <= seconds <= MAX_AFFINITY_TIMEOUT_S:
            field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
            errors.append(
                bad_value(
                    field, seconds, f"must be greater than 0 and less than {MAX_AFFINITY_TIMEOUT_S}"
                )
            )
    return errors


def _address_errors(spec: Json) -> list[FieldError]:
    errors = []
    addresses: list[str] = spec.get("clusterIPs", [])
    for index, address in enumerate(addresses):
        if address != "None" or index:
            errors += ip_address(f"spec.clusterIPs[{index}]", address)
    if len(addresses) > 2:
        why = "may only hold up to 2 values"
        errors.append(bad_value("spec.clusterIPs", addresses, why))
    elif len(addresses) == 2 and len({ip_family(address) for address in addresses}) == 1:
        why = "may specify no more than one IP for each IP family"
        errors.append(bad_value("spec.clusterIPs", addresses, why))
    if addresses and not spec.get("clusterIP"):
        why = "must be empty when `clusterIP` is not specified"
        errors.append(bad_value("spec.clusterIPs", addresses, why))
    elif addresses and spec["clusterIP"] != addresses[0]:
        why = "first value must match `clusterIP`"
        errors.append(bad_value("spec.clusterIPs", addresses, why))
    for index, address in enumerate(spec.get("externalIPs", ())):
        errors += endpoint_address(f"spec.externalIPs[{index}]", address)
    for index, text in enumerate(spec.get("loadBalancerSourceRanges", ())):
        errors += cidr(f"spec.loadBalancerSourceRanges[{index}]", text.strip())
    families = spec.get("ipFamilies", [])
    if len(families) != len(set(families)):
        errors.append(duplicate("spec.ipFamilies[1]", families[-1]))
    return errors


def _policy_errors(spec: Json) -> list[FieldError]:
    errors = []
    kind = spec["type"]
    external = kind in ("NodePort", "LoadBalancer") or bool(spec.get("externalIPs"))
    if policy := spec.get("externalTrafficPolicy"):
        if not external:
            why = "may only be set for externally-accessible services"
            errors.append(bad_value("spec.externalTrafficPolicy", policy, why))
        else:
            errors += one_of("spec.externalTrafficPolicy", policy, _POLICIES)
    if policy := spec.get("internalTrafficPolicy"):
        errors += one_of("spec.internalTrafficPolicy", policy, _POLICIES)
    if number := spec.get("healthCheckNodePort"):
        if kind != "LoadBalancer" or spec.get("externalTrafficPolicy") != "Local":
            why = (
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is "
                "'Local'"
            )
            errors.append(bad_value("spec.healthCheckNodePort", number, why))
        else:
            errors += port_number("spec.healthCheckNodePort", number)
    if distribution := spec.get("trafficDistribution"):
        errors += one_of("spec.trafficDistribution", distribution, _DISTRIBUTIONS)
    return errors


def _immutable_errors(spec: Json, before: Json) -> list[FieldError]:
    """ClusterIPs stay; the second one may come and go, and ExternalName frees both."""
    if "ExternalName" in (spec["type"], before["type"]):
        return []
    errors = []
    for index, old in enumerate(before.get("clusterIPs", ())):
        addresses = spec.get("clusterIPs", [])
        if index < len(addresses):
            if addresses[index] != old:
                errors.append(
                    bad_value(f"spec.clusterIPs[{index}]", addresses, "may not change once set")
                )
        elif index == 0 or spec.get("ipFamilyPolicy") != "SingleStack":
            errors.append(bad_value("spec.clusterIPs", addresses, "may not change once set"))
    health = before.get("healthCheckNodePort")
    if health and spec.get("healthCheckNodePort") not in (None, health):
        errors.append(not_allowed("spec.healthCheckNodePort", "field is immutable"))
    return errors


def status_errors(status: Json, spec: Json) -> list[FieldError]:
    errors = []
    for index, ingress in enumerate(status.get("loadBalancer", {}).get("ingress", ())):
        field = f"status.loadBalancer.ingress[{index}]"
        if "ip" in ingress:
            errors += ip_address(f"{field}.ip", ingress["ip"])
            mode = ingress.setdefault("ipMode", "VIP")
            errors += one_of(f"{field}.ipMode", mode, ("Proxy", "VIP"))
        elif "ipMode" in ingress:
            why = "may not be specified when `ip` is not set"
            errors.append(not_allowed(f"{field}.ipMode", why))
    if status.get("loadBalancer", {}).get("ingress") and spec["type"] != "LoadBalancer":
        why = "may only be used when `spec.type` is 'LoadBalancer'"
        errors.append(not_allowed("status.loadBalancer.ingress", why))
    return errors
