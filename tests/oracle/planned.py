"""What a plan says about a client and a destination, in the oracle's terms.

This is what the data path must make of `Forwarding`s; SNAT is its own business and
not in a plan, so `masquerade` stays empty.
"""

from collections.abc import Iterable

from ebpf_lb.model.values import Protocol, format_address, parse_address
from ebpf_lb.plan.forwarding import Forwarding, FrontendFlag, FrontendKind
from tests.oracle.oracle import (
    DROP,
    NOT_A_SERVICE,
    REJECT,
    Client,
    ClientKind,
    Destination,
    Kind,
    Verdict,
)


def planned(plan: Iterable[Forwarding], client: Client, destination: Destination) -> Verdict:
    forwardings = list(plan)
    address = parse_address(destination.address)
    found = [
        (forwarding, frontend)
        for forwarding in forwardings
        for frontend in forwarding.frontends
        if frontend.address == address
        and frontend.port == destination.port
        and forwarding.name.protocol is Protocol[destination.protocol]
    ]
    if not found:
        served = any(
            frontend.kind is FrontendKind.CLUSTER_IP and frontend.address == address
            for forwarding in forwardings
            for frontend in forwarding.frontends
        )
        return REJECT if served else NOT_A_SERVICE
    ((forwarding, frontend),) = found
    if frontend.flags & FrontendFlag.SOURCE_RANGES and not any(
        parse_address(client.address) in network for network in forwarding.source_ranges
    ):
        return DROP
    if not forwarding.has_any:
        return REJECT
    local = bool(frontend.flags & FrontendFlag.LOCAL)
    if frontend.kind is not FrontendKind.CLUSTER_IP:
        local &= client.kind is ClientKind.OUTSIDE
    chosen = forwarding.local if local else forwarding.cluster
    if not chosen:
        return DROP
    return Verdict(Kind.BACKENDS, frozenset((format_address(b.address), b.port) for b in chosen))
