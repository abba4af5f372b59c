"""What a Service asks for: addresses, ports and protocols, and how strong its claim on each is.

The order of claims depends on the Services alone, never on who came first to us: every node, and
the same node after a restart, must answer alike. What the API server assigned (ClusterIPs, node
ports) beats what a balancer wrote into a status, and that beats `externalIPs`, which any user may
set to any address (CVE-2020-8554). Among equals the older Service wins, then the lesser name. The
same order settles what one Service asks for twice, an address that is its balancer's and one of its
externalIPs, say: the one that loadBalancerSourceRanges guard stays.
"""

from typing import NamedTuple

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service import Service, ServicePort
from ebpf_lb.model.values import Family, Protocol, format_endpoint
from ebpf_lb.plan.forwarding import Frontend, FrontendKind
from ebpf_lb.plan.frontends import families, frontends, is_ours, listeners
from ebpf_lb.plan.node import NodeView
from ebpf_lb.plan.reserved import API_SERVER, KUBERNETES, Reserved

FrontendKey = bytes
"""Address, port and protocol in one: compact, since there is one for every frontend."""


# rule: VE-18
class Rank(NamedTuple):
    """The least wins. One for all of a Service port's frontends of a kind."""

    kind: FrontendKind
    created_s: int
    service: ObjectKey
    port: str


class Claim(NamedTuple):
    rank: Rank
    family: Family
    service_port: ServicePort
    frontend: Frontend


class Claims(NamedTuple):
    """`barred`: what the node itself lives by, so that no Service may have it."""

    wanted: dict[FrontendKey, Claim]
    barred: dict[FrontendKey, Reserved]


def frontend_key(address: bytes, port: int, protocol: Protocol) -> FrontendKey:
    return address + _end(port, protocol)


def _end(port: int, protocol: Protocol) -> bytes:
    return (port << 8 | protocol).to_bytes(3)


def describe(key: FrontendKey) -> str:
    """`10.0.0.1:80/TCP`."""
    return f"{format_endpoint(key[:-3], int.from_bytes(key[-3:-1]))}/{Protocol(key[-1]).name}"


class Reservations:
    """What no Service may have on a node, made ready for many questions."""

    def __init__(self, reserved: frozenset[Reserved]) -> None:
        self._by_key = {frontend_key(one.address, one.port, one.protocol): one for one in reserved}
        self._servers = {one.address: one for one in reserved if one.what == API_SERVER}

    def __bool__(self) -> bool:
        return bool(self._by_key)

    # rule: CP-5
    def find(self, service: ObjectKey, key: FrontendKey, kind: FrontendKind) -> Reserved | None:
        """Who is there, if anybody that a frontend of this kind would cut off. A ClusterIP takes
        the whole address, since its other ports are refused. The API server's own Service has its
        ClusterIP even where the agent was told to go by it."""
        if kind is FrontendKind.CLUSTER_IP:
            if service == KUBERNETES:
                return None
            return self._servers.get(key[:-3]) or self._by_key.get(key)
        return self._by_key.get(key)


def claims(service: Service, node: NodeView, reservations: Reservations) -> Claims:
    """All that a Service asks for; nothing if it is not ours."""
    wanted: dict[FrontendKey, Claim] = {}
    barred: dict[FrontendKey, Reserved] = {}
    found = Claims(wanted, barred)
    if not is_ours(service):
        return found
    for family in families(service):
        addresses = listeners(service, family, node)
        for port in service.ports:
            ranks: dict[FrontendKind, Rank] = {}
            # here and not by frontend_key(): a Service may ask for a hundred thousand
            ends = {number: _end(number, port.protocol) for number in (port.port, port.node_port)}
            for frontend in frontends(port, addresses):
                kind = frontend.kind
                rank = ranks.get(kind)
                if rank is None:
                    rank = ranks[kind] = Rank(kind, service.created_s, service.key, port.name)
                key = frontend.address + ends[frontend.port]
                if reservations and (taken := reservations.find(service.key, key, kind)):
                    barred[key] = taken
                    continue
                known = wanted.get(key)
                if known is None or rank < known.rank:
                    wanted[key] = Claim(rank, family, port, frontend)
    return found
