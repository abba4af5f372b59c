"""Which nodes get what comes for an external address. Pure.

Every Ready node is eligible; for a LoadBalancer Service with externalTrafficPolicy Local only those
whose healthCheckNodePort says that it has endpoints (KEP-1860's division of work: the proxy drops
what comes to the wrong node, the balancer takes care that nothing does). A route is by address
alone: an address that several Services share goes where all of them are served.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ebpf_lb.lab.cloud.addresses import external_addresses
from ebpf_lb.lab.objects.client import Json

# Upstream's label by which people keep a node out (k8s.io/cloud-provider).
EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"


@dataclass(frozen=True, slots=True)
class Target:
    """A Ready node that a cloud's balancer may use, and its addresses."""

    name: str
    addresses: tuple[str, ...]

    def address(self, version: int) -> str | None:
        """Its address of an IP version."""
        return next((a for a in self.addresses if (":" in a) == (version == 6)), None)


class Check(NamedTuple):
    """A healthCheckNodePort on a node."""

    node: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Way:
    """Where an address leads: nodes' names, sorted. pinned: because somebody said so."""

    nodes: tuple[str, ...]
    pinned: bool = False


def targets(nodes: Iterable[Json]) -> list[Target]:
    """The nodes that may be used at all, by name."""
    found = []
    for node in nodes:
        metadata, status = node["metadata"], node.get("status") or {}
        conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
        if (
            "deletionTimestamp" in metadata
            or EXCLUDED in (metadata.get("labels") or {})
            or conditions.get("Ready") != "True"
        ):
            continue
        found.append(Target(metadata["name"], _addresses(node)))
    return sorted(found, key=lambda target: target.name)


def own_addresses(nodes: Iterable[Json]) -> frozenset[str]:
    """Of all nodes. As externalIPs, too, they lead to their node as they always do: its link knows
    the way, and everything else that is sent to the node comes the same one."""
    return frozenset(address for node in nodes for address in _addresses(node))


def _addresses(node: Json) -> tuple[str, ...]:
    known = (node.get("status") or {}).get("addresses") or ()
    return tuple(a["address"] for a in known if a["type"] == "InternalIP")


def checks(services: Iterable[Json], usable: Iterable[Target]) -> set[Check]:
    """What to ask, and whom."""
    ports = {port for service in services if (port := _health_port(service))}
    return {
        Check(target.name, target.addresses[0], port)
        for target in usable
        if target.addresses
        for port in ports
    }


def ways(
    services: Iterable[Json],
    usable: Iterable[Target],
    healthy: Collection[tuple[str, int]],
    pins: Mapping[str, str],
    own: Collection[str] = (),
) -> dict[str, Way]:
    """Address -> way. healthy: (node, healthCheckNodePort) that answered 200. own: nodes' own
    addresses, which need none."""
    eligible: dict[str, set[str]] = {}
    everyone = {target.name for target in usable}
    for service in services:
        port = _health_port(service)
        nodes = {n for n in everyone if (n, port) in healthy} if port else everyone
        for address in set(external_addresses(service)).difference(own):
            eligible[address] = eligible.get(address, everyone) & nodes
    return {
        address: Way((pins[address],), pinned=True)
        if pins.get(address) in everyone
        else Way(tuple(sorted(nodes)))
        for address, nodes in sorted(eligible.items())
    }


def _health_port(service: Json) -> int:
    """0 for Services without."""
    spec = service["spec"]
    local = spec.get("externalTrafficPolicy") == "Local" and spec.get("type") == "LoadBalancer"
    return int(spec.get("healthCheckNodePort") or 0) if local else 0
