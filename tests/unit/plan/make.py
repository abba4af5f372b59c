"""Short spellings for tests of plans."""

from typing import Any

from ebpf_lb.model.endpoints import (
    NO_HINTS,
    READY,
    SERVING,
    TERMINATING,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Hints,
)
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service import Service, ServicePort, ServiceType
from ebpf_lb.model.values import Family, Protocol, family_of, format_address, parse_address
from ebpf_lb.plan.forwarding import Backend
from ebpf_lb.plan.node import NodeView

WEB = ObjectKey("default", "web")
HTTP = ServicePort("http", Protocol.TCP, 80)
NODE = NodeView("node1", "a", (parse_address("192.168.0.1"), parse_address("fd00:192::1")))

READY_ONE = READY | SERVING
DRAINING = SERVING | TERMINATING
DEAD = TERMINATING
NOT_READY = 0
SERVING_NOT_READY = SERVING
PUBLISHED_NOT_READY = READY | TERMINATING | SERVING  # publishNotReadyAddresses


def address(text: str) -> bytes:
    return parse_address(text)


def addresses(*texts: str) -> tuple[bytes, ...]:
    return tuple(map(parse_address, texts))


def endpoint(
    where: str, conditions: int = READY_ONE, node: str = "node2", *,
    zones: str = "", nodes: str = "",
) -> Endpoint:  # fmt: skip
    hints = Hints(tuple(zones.split()), tuple(nodes.split()))
    return Endpoint(address(where), conditions, node, hints if any(hints) else NO_HINTS)


def a_slice(
    *endpoints: Endpoint,
    name: str = "web-1",
    service: ObjectKey = WEB,
    ports: tuple[tuple[str, int], ...] = (("http", 8080),),
    protocol: Protocol = Protocol.TCP,
    family: Family | None = None,
) -> EndpointSlice:
    return EndpointSlice.of(
        ObjectKey(service.namespace, name),
        service,
        family or (family_of(endpoints[0].address) if endpoints else Family.IPV4),
        tuple(EndpointPort(port, protocol, number) for port, number in ports),
        endpoints,
    )


def service(key: ObjectKey = WEB, **fields: Any) -> Service:
    given = {
        "created_s": 1,
        "type": ServiceType.CLUSTER_IP,
        "cluster_ips": addresses("10.96.0.1"),
        "ports": (HTTP,),
        **fields,
    }
    return Service(key=key, **given)


def spelled(backends: tuple[Backend, ...]) -> list[str]:
    """`10.0.0.1:80`, with a star where the pod is on this node."""
    return [f"{format_address(b.address)}:{b.port}{'*' if b.local else ''}" for b in backends]
