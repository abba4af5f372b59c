"""Two Services that ask for one address, port and protocol: who gets it.

The answer depends on the two Services alone, never on who came first to us: every node, and the
same node after a restart, must answer alike. What the API server assigned (ClusterIPs, node ports)
beats what a balancer wrote into a status, and that beats `externalIPs`, which any user may set to
any address (CVE-2020-8554). Among equals the older Service wins, then the lesser name. The same
order settles what one Service asks for twice, an address that is its balancer's and an external IP,
say: the one that loadBalancerSourceRanges guard stays.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service import Service, ServicePort
from ebpf_lb.model.values import Family, Protocol, format_endpoint
from ebpf_lb.plan.forwarding import Frontend, FrontendKind
from ebpf_lb.plan.frontends import families, frontends, is_ours
from ebpf_lb.plan.node import NodeView

Place = bytes
"""Address, port and protocol in one: compact, since there is one for every frontend."""


class Claim(NamedTuple):
    """A Service's wish for a place. The least of several wins; what comes after `port` never
    decides, since a Service's ports have distinct names."""

    kind: FrontendKind
    created_s: int
    service: ObjectKey
    port: str
    family: Family
    service_port: ServicePort
    frontend: Frontend


def place_of(address: bytes, port: int, protocol: Protocol) -> Place:
    return address + (port << 8 | protocol).to_bytes(3)


def describe(place: Place) -> str:
    """`10.0.0.1:80/TCP`."""
    return f"{format_endpoint(place[:-3], int.from_bytes(place[-3:-1]))}/{Protocol(place[-1]).name}"


def claims(service: Service, node: NodeView) -> dict[Place, Claim]:
    """All that a Service asks for; nothing if it is not ours."""
    wanted: dict[Place, Claim] = {}
    if not is_ours(service):
        return wanted
    for family in families(service):
        for port in service.ports:
            for frontend in frontends(service, port, family, node):
                claim = Claim(
                    frontend.kind,
                    service.created_s,
                    service.key,
                    port.name,
                    family,
                    port,
                    frontend,
                )
                place = place_of(frontend.address, frontend.port, port.protocol)
                known = wanted.get(place)
                if known is None or claim[:4] < known[:4]:
                    wanted[place] = claim
    return wanted


def lost(
    own: Mapping[Place, Claim], rivals: Mapping[Place, Iterable[Service]], node: NodeView
) -> dict[Place, Claim]:
    """Which of `own` claims somebody else wins, and who. `rivals`: of contested places alone."""
    winners = {
        place: min(claims(rival, node)[place] for rival in services)
        for place, services in rivals.items()
    }
    return {place: claim for place, claim in winners.items() if claim[:4] < own[place][:4]}


def sentence(place: Place, loser: ObjectKey, winner: Claim) -> str:
    return (
        f"Service {loser} does not get {describe(place)}: Service {winner.service} has it; "
        "give one of them another address or port."
    )
