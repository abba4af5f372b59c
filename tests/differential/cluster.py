"""The Services of the scripts, as the API server would have them, and what the plan makes of them.

Each of them has one way to tell which endpoint a connection must reach: a script gives it one
endpoint at a time, or clients that keep to theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ebpf_lb.kube.parse import parse_service, parse_slice
from ebpf_lb.model.values import Family, parse_address
from ebpf_lb.plan.cluster import Cluster, NodeView
from ebpf_lb.plan.forwarding import Forwarding
from tests.differential.wire import WORLD
from tests.oracle.objects import endpoint_slice

SERVICES = ("open", "local", "inner")
"""All addresses with eTP Cluster; the same with eTP Local and source ranges; iTP Local."""
PORT, TARGET_PORT, OTHER_PORT = 80, 8080, 81
HOST_PORT = 8500
"""Of the node's address; somebody else's rules lead from there to pod1."""
NODE_PORTS = {"open": 30080, "local": 30081}
RANGES = {Family.IPV4: "192.0.2.0/24", Family.IPV6: "2001:db8:2::/64"}  # client1's


@dataclass(frozen=True)
class State:
    """endpoints: names of pods, by Service. swapped: "open" and "local" have each other's
    nodePorts."""

    endpoints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    swapped: bool = False
    sticky: bool = False

    def but(self, **changes: Any) -> State:
        return replace(self, **changes)

    def with_endpoints(self, service: str, pods: tuple[str, ...]) -> State:
        return self.but(endpoints={**self.endpoints, service: pods})


def address_of(family: Family, target: str, state: State) -> tuple[str, int]:
    """Where a client sends who asks `target`: "SERVICE WAY" or somebody's name."""
    of = WORLD[family]
    if target == "hostPort":
        return of.node, HOST_PORT
    name, _, way = target.partition(" ")
    if not way:
        return of.of(name), TARGET_PORT
    if name == "nobody":
        return of.unused_ip, PORT
    number = SERVICES.index(name)
    if way == "clusterIP":
        return of.cluster_ips[number], PORT
    if way == "otherPort":
        return of.cluster_ips[number], OTHER_PORT
    if way == "nodePort":
        return of.node, NODE_PORTS[name]
    return {"balancer": of.balancers, "externalIP": of.externals}[way][number], PORT


Json = dict[str, Any]


def objects(state: State) -> tuple[list[Json], list[Json]]:
    """Services, and their EndpointSlices."""
    services = [_service(number, name, state) for number, name in enumerate(SERVICES)]
    slices = [
        _slice(number, service, family, state)
        for number, service in enumerate(services)
        for family in Family
    ]
    return services, slices


def plan(state: State) -> list[Forwarding]:
    """As an agent on the node has it."""
    own = tuple(parse_address(WORLD[family].node) for family in Family)
    cluster = Cluster(NodeView("node1", "", own, own))
    services, slices = objects(state)
    cluster.replace_services(parse_service(one).value for one in services)
    cluster.replace_slices(parse_slice(one).value for one in slices)
    return [one for key in sorted(cluster.take_changes()) for one in cluster.plan(key)]


def _protocols(service: str) -> tuple[str, ...]:
    return ("TCP", "UDP", "SCTP") if service == "open" else ("TCP", "UDP")


def _service(number: int, name: str, state: State) -> dict[str, Any]:
    everywhere = [WORLD[family] for family in (Family.IPV4, Family.IPV6)]
    addresses = [of.cluster_ips[number] for of in everywhere]
    spec: dict[str, Any] = {
        "clusterIP": addresses[0],
        "clusterIPs": addresses,
        "ports": [
            {"name": protocol.lower(), "protocol": protocol, "port": PORT}
            for protocol in _protocols(name)
        ],
    }
    ingress = []
    if name == "inner":
        spec["internalTrafficPolicy"] = "Local"
    else:
        has = {"open": "local", "local": "open"}[name] if state.swapped else name
        spec["type"] = "LoadBalancer"
        for port in spec["ports"]:
            port["nodePort"] = NODE_PORTS[has]
        ingress = [{"ip": of.balancers[number]} for of in everywhere]
        spec["externalIPs"] = [of.externals[number] for of in everywhere]
    if name == "local":
        spec["externalTrafficPolicy"] = "Local"
        spec["loadBalancerSourceRanges"] = list(RANGES.values())
    if state.sticky:
        spec["sessionAffinity"] = "ClientIP"
    return {
        "kind": "Service",
        "metadata": {"namespace": "default", "name": name},
        "spec": spec,
        "status": {"loadBalancer": {"ingress": ingress}},
    }


def _slice(number: int, service: dict[str, Any], family: Family, state: State) -> dict[str, Any]:
    of = WORLD[family]
    pods = state.endpoints.get(service["metadata"]["name"], ())
    ports = [
        {"name": protocol.lower(), "protocol": protocol, "port": TARGET_PORT}
        for protocol in _protocols(service["metadata"]["name"])
    ]
    endpoints = [
        {"addresses": [of.of(pod)], "nodeName": "node1" if pod in of.pods else "node2"}
        for pod in pods
    ]
    version = 4 if family is Family.IPV4 else 6
    return endpoint_slice(service, 10 * number + version, version, ports, endpoints)
