"""Which endpoints of a Service port may be used, as docs/semantics.md says.

One function a rule. Sources: kube-proxy's topology.go and endpointslicecache.go; KEP-1669 (draining
endpoints), KEP-2433 and KEP-3015 (hints), KEP-2086 (internalTrafficPolicy).
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from ebpf_lb.model.endpoints import (
    NO_HINTS,
    READY,
    SERVING,
    TERMINATING,
    Endpoint,
    EndpointSlice,
)
from ebpf_lb.model.values import Protocol
from ebpf_lb.plan.forwarding import Backend

_DRAINING = SERVING | TERMINATING
_READY = READY | SERVING


class Usable(NamedTuple):
    cluster: tuple[Backend, ...]
    local: tuple[Backend, ...]
    has_any: bool


class Place(NamedTuple):
    """The endpoint behind an address and port; its number of the named port may differ by slice."""

    address: bytes
    port: int
    endpoint: Endpoint


NOTHING = Usable((), (), False)


def plain(
    slices: Collection[EndpointSlice], port: str, protocol: Protocol, node: str
) -> tuple[Backend, ...] | None:
    """All backends of a Service port of which every endpoint is ready and none has hints: then the
    rules have nothing to choose, and both sets follow from this one. None where they have.

    That is nearly every Service at nearly all times, and a tenth of the work.
    """
    found: dict[tuple[bytes, int], bool] = {}
    for a_slice in slices:
        if a_slice.hints or a_slice.conditions.count(_READY) != len(a_slice.conditions):
            return None
        number = a_slice.port(port, protocol)
        if not number:
            continue
        addresses = a_slice.split_addresses()
        if node not in a_slice.nodes:
            for address in addresses:
                found.setdefault((address, number), False)
        else:
            for address, name in zip(addresses, a_slice.nodes, strict=True):
                at = (address, number)
                found[at] = found.get(at, False) or name == node
    return tuple([Backend(*at, found[at]) for at in sorted(found)])


def usable(
    places: Collection[Place], node: str, zone: str, *, uses_cluster: bool, uses_local: bool
) -> Usable:
    """The sets of a Service port on this node; a set that is not used is empty."""
    # rule: EP-11, KI-5
    ready = [place for place in places if place.endpoint.conditions & READY]
    draining = (
        [p for p in places if p.endpoint.conditions & _DRAINING == _DRAINING]
        if len(ready) < len(places)
        else []
    )
    cluster: Iterable[Place] = ()
    # rule: EP-8
    if uses_cluster:
        cluster = near(ready, node, zone) or draining
    local: Iterable[Place] = ()
    # rule: EP-9
    if uses_local:
        local = on_node(ready, node) or on_node(draining, node)
    # rule: EP-10
    return Usable(backends(cluster, node), backends(local, node), bool(ready or draining))


def places(
    slices: Iterable[EndpointSlice], port: str, protocol: Protocol, node: str
) -> list[Place]:
    """All endpoints of a Service port, sorted; of duplicates over slices only the one that counts.

    While a pod moves from one slice to another, both may name it, one of them out of date.
    """
    found: dict[tuple[bytes, int], Endpoint] = {}
    for a_slice in slices:
        # rule: KI-6
        number = a_slice.port(port, protocol)
        if not number:
            continue
        for endpoint in a_slice.endpoints():
            at = (endpoint[0], number)
            known = found.get(at)
            if known is None or precedence(endpoint, node) < precedence(known, node):
                found[at] = endpoint
    return [Place(*at, found[at]) for at in sorted(found)]


# rule: EP-6
def precedence(endpoint: Endpoint, node: str) -> tuple[object, ...]:
    """Of duplicates the least counts: one that is not terminating, then the one more usable.

    The rest of the tuple only makes the choice independent of the order of slices.
    """
    return (
        endpoint.terminating,
        not endpoint.ready,
        not endpoint.serving,
        endpoint.node != node,
        endpoint.hints,
        endpoint.node,
    )


# rule: EP-5
def on_node(places: Iterable[Place], node: str) -> list[Place]:
    return [place for place in places if place.endpoint.node == node]


# rule: EP-12, EP-13
def near(ready: list[Place], node: str, zone: str) -> list[Place]:
    """Those of the ready endpoints that topology allows: node hints first, else zone hints, and
    either only if every ready endpoint has one and at least one names us; else all of them."""
    if not ready or ready[0].endpoint.hints == NO_HINTS:
        return ready
    return (
        hinted(ready, [place.endpoint.hints.nodes for place in ready], node)
        or hinted(ready, [place.endpoint.hints.zones for place in ready], zone)
        or ready
    )


def hinted(ready: list[Place], hints: list[tuple[str, ...]], ours: str) -> list[Place]:
    """Those whose hints name `ours`; none of them where these hints do not apply."""
    if not ours or not all(hints):
        return []
    return [place for place, names in zip(ready, hints, strict=True) if ours in names]


def backends(places: Iterable[Place], node: str) -> tuple[Backend, ...]:
    return tuple(Backend(address, port, e.node == node) for address, port, e in places)
