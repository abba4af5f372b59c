"""The first sections of docs/semantics.md once more: naively, on raw JSON, and sharing no code with
the product.

Everything is looked up and decided anew for each question, in the words of the page. Whoever
changes a rule changes it here by reading that page, never by looking at `ebpf_lb.plan`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple

Json = dict[str, Any]


class ClientKind(Enum):
    LOCAL_POD = "a pod on this node"
    REMOTE_POD = "a pod on another node"
    NODE = "this node"
    OUTSIDE = "any other client"


BY_AN_UPLINK = (ClientKind.REMOTE_POD, ClientKind.OUTSIDE)


class Client(NamedTuple):
    kind: ClientKind
    address: str


class Destination(NamedTuple):
    address: str
    port: int
    protocol: str  # TCP, UDP or SCTP


@dataclass(frozen=True)
class Node:
    """addresses: those that node ports answer on."""

    name: str
    zone: str = ""
    addresses: tuple[str, ...] = ()


class Kind(Enum):
    BACKENDS = "goes to one of the backends"
    REJECT = "is refused at once"
    DROP = "is dropped in silence"
    NOT_A_SERVICE = "passes untouched"


Backend = tuple[str, int]


@dataclass(frozen=True)
class Verdict:
    """masquerade: to which of the backends the client comes under an address of the node."""

    kind: Kind
    backends: frozenset[Backend] = field(default_factory=frozenset)
    masquerade: frozenset[Backend] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Departures:
    """Where ebpf-lb does other than the page's words, on purpose.

    Both for one reason: this node sends a packet that came in by its uplink on to another node. If
    that is not masqueraded, the backend answers past this node, and the client hears a stranger.

    remote_pods_ask_from_outside: eTP Local, asked by a pod of another node. The page: the cluster's
    set, not masqueraded. We: as an outside client. Its short way is on its own node, and upstream's
    tests expect the drop here (kube-proxy, too, sees it as a pod, but only where it translates).
    cluster_ip_comes_back: a ClusterIP, asked by way of this node's uplink, backend elsewhere. The
    page masquerades only clients outside the pods' networks, where these are known. We: everybody.
    """

    remote_pods_ask_from_outside: bool = False
    cluster_ip_comes_back: bool = False


AS_WRITTEN = Departures()
AS_BUILT = Departures(remote_pods_ask_from_outside=True, cluster_ip_comes_back=True)

REJECT = Verdict(Kind.REJECT)
DROP = Verdict(Kind.DROP)
NOT_A_SERVICE = Verdict(Kind.NOT_A_SERVICE)


class Endpoint(NamedTuple):
    address: str
    port: int
    ready: bool
    serving: bool
    terminating: bool
    local: bool
    for_nodes: frozenset[str]
    for_zones: frozenset[str]

    @property
    def draining(self) -> bool:
        return self.serving and self.terminating

    @property
    def backend(self) -> Backend:
        return self.address, self.port


def verdict(
    cluster_objects: Iterable[Json],
    node: Node,
    client: Client,
    destination: Destination,
    *,
    masquerade_all: bool = False,
    pod_networks_known: bool = True,
    service_networks: Iterable[str] = (),
    departures: Departures = AS_WRITTEN,
) -> Verdict:
    """What this node does with a client's first packet to a destination.

    service_networks: the ServiceCIDRs. Whose external address lies in one is kept to the page's "no
    Service has it" as kube-proxy reads it: no Service has it as ClusterIP.
    """
    services, slices = sort(cluster_objects)
    match = find(services, node, destination)
    if match is None:
        if any(destination.address in cluster_ips(service) for service in services):
            return REJECT  # another port of a ClusterIP that we serve
        asked = read_address(destination.address)
        return DROP if any(asked in read_network(n) for n in service_networks) else NOT_A_SERVICE
    kind, service, port = match
    spec = service["spec"]
    if kind == "LoadBalancer" and not in_source_ranges(service, node, client, destination):
        return DROP
    endpoints = endpoints_of(service, port, slices, node, version(destination.address))
    if not any(e.ready or e.draining for e in endpoints):
        return REJECT
    if kind == "ClusterIP":
        local = spec.get("internalTrafficPolicy") == "Local"
        chosen = local_set(endpoints) if local else cluster_set(endpoints, node)
        if not chosen:
            return DROP
        masquerade = masquerade_all or (client.kind is ClientKind.OUTSIDE and pod_networks_known)
        passing_through = departures.cluster_ip_comes_back and client.kind in BY_AN_UPLINK
        elsewhere = [e for e in chosen if not e.local] if passing_through else []
        return to(chosen, client, chosen if masquerade else elsewhere, node)
    if spec.get("externalTrafficPolicy") != "Local":
        chosen = cluster_set(endpoints, node)
        # the reply to a pod of this node crosses this node anyway
        bypassing = (
            [] if client.kind is ClientKind.LOCAL_POD else [e for e in chosen if not e.local]
        )
        return to(chosen, client, bypassing, node)
    short_way = [ClientKind.LOCAL_POD]
    if not departures.remote_pods_ask_from_outside:
        short_way.append(ClientKind.REMOTE_POD)
    if client.kind in short_way:
        return to(cluster_set(endpoints, node), client, [], node)
    if client.kind is ClientKind.NODE:
        chosen = cluster_set(endpoints, node)
        return to(chosen, client, chosen, node)
    chosen = local_set(endpoints)
    return to(chosen, client, [], node) if chosen else DROP


def sort(cluster_objects: Iterable[Json]) -> tuple[list[Json], list[Json]]:
    """Our Services, and all slices."""
    objects = list(cluster_objects)
    services = [o for o in objects if o["kind"] == "Service" and is_ours(o)]
    return services, [o for o in objects if o["kind"] == "EndpointSlice"]


def to(chosen: list[Endpoint], client: Client, masquerade: list[Endpoint], node: Node) -> Verdict:
    """Nothing that stays on the node is masqueraded: kube-proxy's rules see what leaves."""
    own = {normal(address) for address in node.addresses}
    masquerade = [e for e in masquerade if e.address not in own]
    hairpin = {e.backend for e in chosen if e.address == normal(client.address)}
    return Verdict(
        Kind.BACKENDS,
        frozenset(e.backend for e in chosen),
        frozenset({e.backend for e in masquerade} | hairpin),
    )


# section 1


def endpoints_of(
    service: Json, port: Json, slices: list[Json], node: Node, ip_version: int
) -> list[Endpoint]:
    candidates: dict[Backend, list[tuple[str, Endpoint]]] = {}
    for s in slices:
        metadata = s["metadata"]
        if metadata["namespace"] != service["metadata"]["namespace"]:
            continue
        if (
            metadata.get("labels", {}).get("kubernetes.io/service-name")
            != (service["metadata"]["name"])
        ):
            continue
        if s["addressType"] != f"IPv{ip_version}":
            continue
        for number in port_numbers(s, port):
            for raw in s.get("endpoints") or []:
                endpoint = read_endpoint(raw, number, node)
                name = raw.get("nodeName") or ""
                candidates.setdefault(endpoint.backend, []).append((name, endpoint))
    return [best(same) for same in candidates.values()]


def port_numbers(s: Json, port: Json) -> list[int]:
    return [
        p["port"]
        for p in s.get("ports") or []
        if p.get("name") is not None
        and p.get("port")
        and p["name"] == port.get("name", "")
        and p.get("protocol", "TCP") == port.get("protocol", "TCP")
    ]


def read_endpoint(raw: Json, number: int, node: Node) -> Endpoint:
    conditions = raw.get("conditions") or {}

    def condition(name: str, default: bool) -> bool:
        value = conditions.get(name)
        return default if value is None else bool(value)

    hints = raw.get("hints") or {}
    return Endpoint(
        normal(raw["addresses"][0]),
        number,
        condition("ready", True),
        condition("serving", True),
        condition("terminating", False),
        raw.get("nodeName") == node.name,
        frozenset(hint["name"] for hint in hints.get("forNodes") or []),
        frozenset(hint["name"] for hint in hints.get("forZones") or []),
    )


def best(same: list[tuple[str, Endpoint]]) -> Endpoint:
    """The one that is not terminating wins. Else the more usable one."""
    alive = [pair for pair in same if not pair[1].terminating] or same
    ready = [pair for pair in alive if pair[1].ready] or alive
    serving = [pair for pair in ready if pair[1].serving] or ready
    local = [pair for pair in serving if pair[1].local] or serving
    return min(local, key=lambda p: (sorted(p[1].for_zones), sorted(p[1].for_nodes), p[0]))[1]


def cluster_set(endpoints: list[Endpoint], node: Node) -> list[Endpoint]:
    return topology([e for e in endpoints if e.ready], node) or [e for e in endpoints if e.draining]


def local_set(endpoints: list[Endpoint]) -> list[Endpoint]:
    return [e for e in endpoints if e.ready and e.local] or [
        e for e in endpoints if e.draining and e.local
    ]


def topology(ready: list[Endpoint], node: Node) -> list[Endpoint]:
    if all(e.for_nodes for e in ready) and any(node.name in e.for_nodes for e in ready):
        return [e for e in ready if node.name in e.for_nodes]
    if all(e.for_zones for e in ready) and any(node.zone in e.for_zones for e in ready):
        return [e for e in ready if node.zone in e.for_zones]
    return ready


# section 3, as far as needed: which Service is meant


def is_ours(service: Json) -> bool:
    labels = service["metadata"].get("labels", {})
    return (
        service["spec"].get("type") != "ExternalName"
        and service["spec"].get("clusterIP") not in (None, "", "None")
        and "service.kubernetes.io/service-proxy-name" not in labels
        and "service.kubernetes.io/headless" not in labels
    )


def find(
    services: list[Json], node: Node, destination: Destination
) -> tuple[str, Json, Json] | None:
    """Whose destination it is. If several Services claim it: what the API server gave out, then
    what a balancer did, then external IPs; then the oldest; then the first by name."""
    address = destination.address
    claims = []
    for service in services:
        if version(address) not in {version(ip) for ip in cluster_ips(service)}:
            continue
        spec = service["spec"]
        for port in spec["ports"]:
            if port.get("protocol", "TCP") != destination.protocol:
                continue
            kinds = []
            if port["port"] == destination.port:
                if address in cluster_ips(service):
                    kinds.append((1, "ClusterIP"))
                if address in balancers(service):
                    kinds.append((3, "LoadBalancer"))
                if address in map(normal, spec.get("externalIPs") or []):
                    kinds.append((4, "ExternalIP"))
            node_port = port.get("nodePort") or None
            if node_port == destination.port and address in map(normal, node.addresses):
                kinds.append((2, "NodePort"))
            metadata = service["metadata"]
            age = metadata.get("creationTimestamp", "")
            claims += [
                (rank, age, metadata["namespace"], metadata["name"], port.get("name", ""), kind,
                 service, port)
                for rank, kind in kinds
            ]  # fmt: skip
    if not claims:
        return None
    *_, kind, service, port = min(claims, key=lambda claim: claim[:5])
    return kind, service, port


def cluster_ips(service: Json) -> list[str]:
    spec = service["spec"]
    return [normal(ip) for ip in spec.get("clusterIPs") or [spec["clusterIP"]]]


def balancers(service: Json) -> list[str]:
    status = service.get("status") or {}
    return [
        normal(ingress["ip"])
        for ingress in (status.get("loadBalancer") or {}).get("ingress") or []
        if ingress.get("ip") and ingress.get("ipMode", "VIP") == "VIP"
    ]


def in_source_ranges(service: Json, node: Node, client: Client, destination: Destination) -> bool:
    texts = service["spec"].get("loadBalancerSourceRanges")
    if not texts:
        annotations = service["metadata"].get("annotations", {})
        text = annotations.get("service.beta.kubernetes.io/load-balancer-source-ranges", "")
        texts = text.split(",") if text.strip() else ["0.0.0.0/0"]
    ranges = [read_network(text) for text in texts]
    if any(network.prefixlen == 0 for network in ranges):
        return True

    def inside(address: str) -> bool:
        return any(read_address(address) in network for network in ranges)

    if inside(client.address):
        return True
    return normal(client.address) in balancers(service) and any(
        inside(own) for own in node.addresses if version(own) == version(client.address)
    )


# the same few are read again and again


@cache
def normal(address: str) -> str:
    return str(ip_address(address))


@cache
def version(address: str) -> int:
    return ip_address(address).version


@cache
def read_address(address: str) -> Any:
    return ip_address(address)


@cache
def read_network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text.strip(), strict=False)
