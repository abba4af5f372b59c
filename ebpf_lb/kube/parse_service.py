"""`v1` Services."""

import sys
from datetime import datetime
from functools import lru_cache

from ebpf_lb.kube.reader import Json, Parsed, Reader, mapping_or_empty
from ebpf_lb.model.service import (
    Algorithm,
    IPMode,
    LoadBalancerIngress,
    Service,
    ServicePort,
    ServiceType,
    TrafficPolicy,
)
from ebpf_lb.model.values import (
    Family,
    Network,
    family_of,
    format_address,
    is_nobodys,
    parse_address,
    parse_network,
)

SERVICE_PROXY_NAME = "service.kubernetes.io/service-proxy-name"
HEADLESS = "service.kubernetes.io/headless"
ALGORITHM = "ebpf-lb.io/algorithm"
WEIGHTS = "ebpf-lb.io/weights"
APPLICATION, CLUSTER_DNS = "k8s-app", "kube-dns"
SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"

AFFINITY_DEFAULT_S = 10800
AFFINITY_MAX_S = 86400
WEIGHT_MAX = 100
ALL_IPV4 = parse_network("0.0.0.0/0")
ALL_IPV6 = parse_network("::/0")


@lru_cache(maxsize=4096)
def _shared_ports(ports: tuple[ServicePort, ...]) -> tuple[ServicePort, ...]:
    """Many Services have the same ports: hold one of each."""
    return ports


def parse_service(raw: Json) -> Parsed[Service]:
    """A `v1` Service. Skipped kinds are values too: `plan` decides who is forwarded for."""
    read = Reader("Service", raw)
    if not read.key.name:
        read.refuse("metadata.name", read.key.name, "an object needs a name")
        return read.done(None)
    spec = read.mapping(raw, "spec", "spec")
    status = read.mapping(raw, "status", "status")
    labels = read.labels
    algorithm, weights = _spread(read)
    return read.done(
        Service(
            key=read.key,
            created_s=_created_s(read),
            type=read.choice("spec.type", spec.get("type"), ServiceType, ServiceType.CLUSTER_IP),
            cluster_ips=_cluster_ips(read, spec),
            ports=_service_ports(read, spec),
            external_ips=_external_ips(read, spec),
            load_balancer=_ingress(read, status),
            internal_policy=_policy(read, spec, "internalTrafficPolicy"),
            external_policy=_policy(read, spec, "externalTrafficPolicy"),
            affinity_timeout_s=_affinity_timeout_s(read, spec),
            source_ranges=_source_ranges(read, spec),
            health_check_node_port=read.port(
                "spec.healthCheckNodePort", spec.get("healthCheckNodePort"), absent=0
            )
            or 0,
            other_proxy=SERVICE_PROXY_NAME in labels,
            headless_label=HEADLESS in labels,
            cluster_dns=labels.get(APPLICATION) == CLUSTER_DNS,
            algorithm=algorithm,
            weights=weights,
        )
    )


def _created_s(read: Reader) -> int:
    text = read.metadata.get("creationTimestamp")
    if text is None:
        return 0
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except (TypeError, ValueError):
        read.refuse("metadata.creationTimestamp", text, "it is not a time")
        return 0


def _policy(read: Reader, spec: Json, name: str) -> TrafficPolicy:
    return read.choice(f"spec.{name}", spec.get(name), TrafficPolicy, TrafficPolicy.CLUSTER)


def _cluster_ips(read: Reader, spec: Json) -> tuple[bytes, ...]:
    """One a family at most, the first. `None` stands for headless, "" for not yet given."""
    field = "clusterIPs" if spec.get("clusterIPs") else "clusterIP"
    given = spec.get(field)
    listed = given if isinstance(given, list) else [given]
    found: dict[Family, bytes] = {}
    for text in listed:
        if text in (None, "", "None"):
            continue
        address = read.address(f"spec.{field}", text)
        if address is not None:
            found.setdefault(family_of(address), address)
    return tuple(found.values())


# rule: KI-3
def _service_ports(read: Reader, spec: Json) -> tuple[ServicePort, ...]:
    found: dict[str, ServicePort] = {}
    for path, raw in read.mappings(spec, "ports", "spec.ports"):
        name = raw.get("name") or ""
        port = read.port(f"{path}.port", raw.get("port"))
        protocol = read.protocol(f"{path}.protocol", raw.get("protocol"))
        node_port = read.port(f"{path}.nodePort", raw.get("nodePort"), absent=0) or 0
        if not isinstance(name, str) or name in found:
            read.refuse(f"{path}.name", name, "every port of a Service needs a name of its own")
        elif port is not None and protocol is not None:
            found[name] = ServicePort(sys.intern(name), protocol, port, node_port)
    return _shared_ports(tuple(found.values()))


def _external_ips(read: Reader, spec: Json) -> tuple[bytes, ...]:
    field = "spec.externalIPs"
    found = read.addresses(spec, "externalIPs", field)
    for address in filter(is_nobodys, found):
        read.refuse(field, format_address(address), "packets to it never come from other machines")
    return tuple(address for address in found if not is_nobodys(address))


def _ingress(read: Reader, status: Json) -> tuple[LoadBalancerIngress, ...]:
    """Balancers known by `hostname` alone are reached by others, not by us."""
    balancer = read.mapping(status, "loadBalancer", "status.loadBalancer")
    found: dict[LoadBalancerIngress, None] = {}
    for path, raw in read.mappings(balancer, "ingress", "status.loadBalancer.ingress"):
        if not raw.get("ip"):
            continue
        address = read.address(f"{path}.ip", raw["ip"])
        if address is not None and is_nobodys(address):
            read.refuse(f"{path}.ip", raw["ip"], "packets to it never come from other machines")
        elif address is not None:
            mode = read.choice(f"{path}.ipMode", raw.get("ipMode"), IPMode, IPMode.VIP)
            found[LoadBalancerIngress(address, mode)] = None
    return tuple(found)


# rule: AF-2
def _affinity_timeout_s(read: Reader, spec: Json) -> int:
    affinity = spec.get("sessionAffinity")
    if affinity in (None, "", "None"):
        return 0
    if affinity != "ClientIP":
        read.refuse("spec.sessionAffinity", affinity, "it is neither ClientIP nor None")
        return 0
    config = read.mapping(spec, "sessionAffinityConfig", "spec.sessionAffinityConfig")
    client_ip = read.mapping(config, "clientIP", "spec.sessionAffinityConfig.clientIP")
    timeout = client_ip.get("timeoutSeconds")
    if timeout is None:
        return AFFINITY_DEFAULT_S
    if isinstance(timeout, int) and not isinstance(timeout, bool) and 0 < timeout <= AFFINITY_MAX_S:
        return timeout
    read.refuse(
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        timeout,
        f"it is not a number from 1 to {AFFINITY_MAX_S}; {AFFINITY_DEFAULT_S} is used",
    )
    return AFFINITY_DEFAULT_S


def _source_ranges(read: Reader, spec: Json) -> tuple[Network, ...] | None:
    """From the field, else from the annotation that is older than the field. Either all-embracing
    network means everybody, of both families; a typing error never opens what should be guarded."""
    field = "spec.loadBalancerSourceRanges"
    if spec.get("loadBalancerSourceRanges"):
        items = read.listed(spec, "loadBalancerSourceRanges", field)
    else:
        annotations = mapping_or_empty(read.metadata.get("annotations"))
        text = annotations.get(SOURCE_RANGES)
        if not isinstance(text, str) or not text.strip():
            return None
        field = f"metadata.annotations[{SOURCE_RANGES}]"
        items = ((field, part) for part in read.words(field, text))
    ranges = read.networks(items)
    if ALL_IPV4 in ranges or ALL_IPV6 in ranges:
        return None
    return ranges


def _spread(read: Reader) -> tuple[Algorithm | None, tuple[tuple[bytes | str, int], ...]]:
    """How connections are spread, from annotations of our own."""
    annotations = mapping_or_empty(read.metadata.get("annotations"))
    field = f"metadata.annotations[{ALGORITHM}]"
    algorithm: Algorithm | None = read.choice(field, annotations.get(ALGORITHM), Algorithm, None)
    text = annotations.get(WEIGHTS)
    if text is None:
        return algorithm, ()
    field = f"metadata.annotations[{WEIGHTS}]"
    return algorithm, _weights(read, field, text)


def _weights(read: Reader, field: str, text: object) -> tuple[tuple[bytes | str, int], ...]:
    """`10.0.0.7=3,node2=5`: of an endpoint by its address, of all those on a node by its name."""
    found: dict[bytes | str, int] = {}
    for part in read.words(field, text) if isinstance(text, str) else [text]:
        whose, _, number = part.partition("=") if isinstance(part, str) else ("", "", "")
        whose, number = whose.strip(), number.strip()
        if not whose or not number.isdecimal() or not 1 <= int(number) <= WEIGHT_MAX:
            why = f"it is not ADDRESS=WEIGHT or NODE=WEIGHT, with weights from 1 to {WEIGHT_MAX}"
            read.refuse(field, part, why)
            continue
        try:
            found[parse_address(whose)] = int(number)
        except ValueError:
            found[sys.intern(whose)] = int(number)
    return tuple(sorted(found.items(), key=repr))
