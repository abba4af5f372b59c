"""Which interfaces are pods', which are uplinks, and what address the node has towards each. Pure.

A pod's interface is one end of a pair whose other end is in another network namespace. So is the
uplink of a machine that is itself a namespace, and a point-to-point CNI gives the node's end an
address (the pods' gateway): neither the kind nor an address tells them apart. What does: by an
uplink a default route leaves, or it carries an address by which the cluster knows the node.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase

from ebpf_lb.model.values import Family, family_of

PAIRED_KINDS = frozenset({"veth", "netkit"})
SCOPE_UNIVERSE = 0  # RT_SCOPE_UNIVERSE: valid beyond its link


class Role(Enum):
    """What an interface is to us. The value is the prefix of its programs' names."""

    POD = "pod"
    UPLINK = "uplink"


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. `master`: ifindex of what it is a port of, 0 for none. `peer_elsewhere`: it is
    paired with an interface of another network namespace."""

    index: int
    name: str
    kind: str
    master: int
    peer_elsewhere: bool


@dataclass(frozen=True, slots=True)
class Address:
    """One of the node's own addresses. `passing`: secondary, temporary, deprecated or not yet sure
    to be unique: not to be chosen as a source while there is another."""

    index: int
    address: bytes
    scope: int
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What netlink tells of this network namespace. Addresses in the kernel's order."""

    links: Mapping[int, Link] = field(default_factory=dict)
    addresses: tuple[Address, ...] = ()
    default_routes: frozenset[tuple[Family, int]] = frozenset()  # ifindexes by which they leave


@dataclass(frozen=True, slots=True)
class Interface:
    """One that we look after. `bridge`: ifindex of its bridge, or 0. `sources`: at most one a
    family: what packets that are masqueraded towards it have as their source."""

    index: int
    name: str
    role: Role
    bridge: int
    sources: tuple[bytes, ...]

    def source(self, family: Family) -> bytes | None:
        return next((one for one in self.sources if family_of(one) is family), None)


@dataclass(frozen=True, slots=True)
class NetworkView:
    """What follows from the facts. `primary`: the node's preferred address, at most one a family.
    `addresses`: all of its own, sorted."""

    interfaces: Mapping[int, Interface]
    primary: tuple[bytes, ...]
    addresses: tuple[bytes, ...]


def view(facts: Facts, patterns: Iterable[str], node_addresses: tuple[bytes, ...]) -> NetworkView:
    """`patterns`: shell patterns of pod interfaces' names. `node_addresses`: the Node object's, in
    order of preference."""
    known = frozenset(node_addresses)
    uplinks = {index for _, index in facts.default_routes}
    uplinks |= {own.index for own in facts.addresses if own.address in known}
    primary = tuple(
        found for family in Family if (found := _primary(facts, family, node_addresses)) is not None
    )
    wanted = tuple(patterns)
    interfaces = {}
    for link in facts.links.values():
        role = _role(link, uplinks, wanted)
        if role is not None:
            bridge = _bridge(link, facts)
            sources = _sources(facts, bridge or link.index, primary)
            interfaces[link.index] = Interface(link.index, link.name, role, bridge, sources)
    return NetworkView(interfaces, primary, tuple(sorted({own.address for own in facts.addresses})))


def _role(link: Link, uplinks: set[int], patterns: tuple[str, ...]) -> Role | None:
    if link.index in uplinks:
        return Role.UPLINK
    if (
        link.kind in PAIRED_KINDS
        and link.peer_elsewhere
        and any(fnmatchcase(link.name, pattern) for pattern in patterns)
    ):
        return Role.POD
    return None


def _bridge(link: Link, facts: Facts) -> int:
    master = facts.links.get(link.master)
    return master.index if master is not None and master.kind == "bridge" else 0


def _sources(facts: Facts, holder: int, primary: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """As the kernel masquerades: an address of the interface that the packet leaves by, else one of
    the node's (inet_select_addr)."""
    found = []
    for family in Family:
        own = _best(own for own in facts.addresses if own.index == holder and _is(own, family))
        if own is None:
            own = next((one for one in primary if family_of(one) is family), None)
        if own is not None:
            found.append(own)
    return tuple(found)


def _primary(facts: Facts, family: Family, node_addresses: tuple[bytes, ...]) -> bytes | None:
    usable = [own for own in facts.addresses if _is(own, family)]
    held = {own.address for own in usable}
    for address in node_addresses:
        if address in held:
            return address
    leaving = {index for routed, index in facts.default_routes if routed is family}
    return _best(own for own in usable if own.index in leaving)


def _best(candidates: Iterable[Address]) -> bytes | None:
    first = min(candidates, key=lambda own: own.passing, default=None)
    return first.address if first is not None else None


def _is(own: Address, family: Family) -> bool:
    return own.scope == SCOPE_UNIVERSE and family_of(own.address) is family
