"""Which interfaces are pods', which are uplinks, and what address the node has towards each. Pure.

A pod's interface is one end of a pair whose other end is in another network namespace. So is the
uplink of a machine that is itself a namespace, and a point-to-point CNI gives the node's end an
address (the pods' gateway): neither the kind nor an address tells them apart. What does: by an
uplink a default route leaves, or it carries an address by which the cluster knows the node.

Of the others, what is called like a pod's is one; tunnels to other nodes are uplinks, and so is
what carries an address and leads somewhere. A bridge leads to pods, unless a device of the machine
is a port of it. By loopback the node talks to itself.

Where a bridge is the way out, its ports that lead outside are the uplinks, and not the bridge: its
netfilter (bridge-nf-call-iptables) sees packets between the two, and would know a connection by
other addresses than the stack does if they were translated behind it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase

from ebpf_lb.model.values import Family, Network, family_of

PAIRED_KINDS = frozenset({"veth", "netkit"})
TUNNEL_KINDS = frozenset({"vxlan", "geneve", "gretap", "ip6gretap"})  # those with Ethernet frames
# those without; one of each of most kinds is there, down, as soon as its module is loaded
LAYER_3_TUNNEL_KINDS = frozenset({"ipip", "ip6tnl", "sit", "gre", "ip6gre", "wireguard"})
# what leads nowhere: addresses on these are for others to be found by
UNCONNECTED_KINDS = frozenset({"dummy", "ifb", "nlmon", "vrf"})
VIRTUAL_MACHINE_KINDS = frozenset({"tun"})  # tap devices are of this kind
LOOPBACK = "lo"
LAYER_3_PROGRAMS = "l3"
"""Instead of the role, the prefix of the names of uplinks' programs without link header."""
SCOPE_UNIVERSE = 0  # RT_SCOPE_UNIVERSE: valid beyond its link


class Framing(Enum):
    """What a program sees before the IP header. The value says it in words.

    OTHER: what we do not know, InfiniBand's for instance; and GRE without a fixed other end, where
    packets that leave have their outer headers already.
    """

    ETHERNET = "Ethernet frames"
    NONE = "packets without link header"
    OTHER = "frames of an unknown kind"


class Role(Enum):
    """What an interface is to us. The value is the prefix of its programs' names."""

    POD = "pod"
    UPLINK = "uplink"
    LOOPBACK = "loopback"
    BRIDGE = "bridge"  # pods or uplinks are its ports: it has an address, but no programs of ours

    @property
    def has_programs(self) -> bool:
        return self is not Role.BRIDGE


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. `master`: ifindex of what it is a port of, 0 for none. `peer_elsewhere`: it is
    paired with an interface of another network namespace. `up`: as its administrator wants it.
    `xdp`: the ids of the XDP programs on it, whosever they are. `mac`: b"" where it has none."""

    index: int
    name: str
    kind: str
    master: int
    peer_elsewhere: bool
    framing: Framing = Framing.ETHERNET
    up: bool = True
    mtu: int = 0
    xdp: tuple[int, ...] = ()
    mac: bytes = b""


@dataclass(frozen=True, slots=True)
class Address:
    """One of the node's own addresses. `passing`: secondary, temporary, deprecated or not yet sure
    to be unique; `alone`: of no network, as the addresses are that move between machines. Neither
    is chosen as a source while there is another."""

    index: int
    address: bytes
    scope: int
    passing: bool = False
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What netlink tells of this network namespace. Addresses in the kernel's order."""

    links: Mapping[int, Link] = field(default_factory=dict)
    addresses: tuple[Address, ...] = ()
    default_routes: frozenset[tuple[Family, int]] = frozenset()  # ifindexes by which they leave


@dataclass(frozen=True, slots=True)
class XdpPlace:
    """What decides whether an uplink takes our XDP program; where it changes, it is tried again.
    `paired`: a veth or the like, whose other end must be made ready for frames that XDP sends.
    `programs`: the ids of those on it, whosever they are."""

    paired: bool
    mtu: int
    programs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Interface:
    """One that we look after. `bridge`: ifindex of its bridge, or 0. `sources`: at most one for
    each family: what packets that are masqueraded towards it have as their source. `xdp`: None
    where an XDP program does not belong: all but uplinks; tunnels, whose frames are packets before
    they come; and ports of bridges, since XDP cannot send by a bridge. `layer_3`: its packets have
    no link header. `mac`: what frames for this node are addressed to there; b"" where there is
    none. `peer`: what is sent by it may be handed to its peer, which is in a pod."""

    index: int
    name: str
    role: Role
    bridge: int
    sources: tuple[bytes, ...]
    xdp: XdpPlace | None = None
    layer_3: bool = False
    mac: bytes = b""
    peer: bool = False

    @property
    def programs(self) -> str:
        """The prefix of their names."""
        return LAYER_3_PROGRAMS if self.layer_3 else self.role.value

    def source(self, family: Family) -> bytes | None:
        return next((one for one in self.sources if family_of(one) is family), None)


@dataclass(frozen=True, slots=True)
class NetworkView:
    """What follows from the facts. `primary`: the node's preferred address, at most one in each.
    `addresses`: all of its own, sorted. `pod_networks`: None while they are unknown. `unserved`:
    what has a role and cannot be served, a sentence each."""

    interfaces: Mapping[int, Interface]
    primary: tuple[bytes, ...]
    addresses: tuple[bytes, ...]
    pod_networks: tuple[Network, ...] | None = None
    unserved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Patterns:
    """Shell patterns of interfaces' names: of pods', of those that are uplinks whatever they look
    like, and of those that are nothing to us."""

    pods: tuple[str, ...]
    uplinks: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def view(
    facts: Facts,
    patterns: Patterns,
    node_addresses: tuple[bytes, ...],
    pod_networks: tuple[Network, ...] | None = None,
) -> NetworkView:
    """`node_addresses`: the Node object's, in order of preference."""
    known = frozenset(node_addresses)
    primary = tuple(
        found for family in Family if (found := _primary(facts, family, node_addresses)) is not None
    )
    roles = _Roles(facts, patterns, known, pod_networks or ())
    interfaces = {}
    unserved = []
    for link in facts.links.values():
        role = roles.role(link)
        if role is not None and not _is_served(link, role):
            unserved.append(f"{link.name}: not served, {_a(role)} with {link.framing.value}")
        elif role is Role.LOOPBACK:
            interfaces[link.index] = Interface(link.index, link.name, role, 0, ())
        elif role is not None:
            bridge = roles.bridge(link)
            sources = _sources(facts, bridge or link.index, primary, known)
            layer_3 = link.framing is Framing.NONE
            xdp = None
            if role is Role.UPLINK and not (bridge or link.kind in TUNNEL_KINDS or layer_3):
                xdp = XdpPlace(link.kind in PAIRED_KINDS, link.mtu, link.xdp)
            mac = facts.links[bridge or link.index].mac
            interfaces[link.index] = Interface(
                link.index,
                link.name,
                role,
                bridge,
                sources,
                xdp,
                layer_3,
                mac,
                peer=role is Role.POD and link.kind in PAIRED_KINDS and link.peer_elsewhere,
            )
    addresses = tuple(sorted({own.address for own in facts.addresses}))
    return NetworkView(interfaces, primary, addresses, pod_networks, tuple(sorted(unserved)))


class _Roles:
    """`known`: the addresses by which the cluster knows this node."""

    def __init__(
        self,
        facts: Facts,
        patterns: Patterns,
        known: frozenset[bytes],
        pod_networks: tuple[Network, ...],
    ) -> None:
        self._links = facts.links
        self._patterns = patterns
        self._certain = {index for _, index in facts.default_routes}
        self._certain |= {own.index for own in facts.addresses if own.address in known}
        universal = [own for own in facts.addresses if own.scope == SCOPE_UNIVERSE]
        self._with_address = {own.index for own in universal}
        self._with_outer_address = {
            own.index
            for own in universal
            if not any(own.address in network for network in pod_networks)
        }
        self._ports: dict[int, list[Link]] = {}
        for link in facts.links.values():
            self._ports.setdefault(link.master, []).append(link)

    def role(self, link: Link) -> Role | None:
        if _matches(link, self._patterns.ignored):
            return None
        if link.name == LOOPBACK:
            return Role.LOOPBACK
        if link.kind == "bridge":
            return self._role_of_bridge(link)
        if link.index in self._certain or _matches(link, self._patterns.uplinks):
            return Role.UPLINK
        if link.kind in UNCONNECTED_KINDS:
            return None
        if link.kind in TUNNEL_KINDS or (link.kind in LAYER_3_TUNNEL_KINDS and link.up):
            return Role.UPLINK
        master = self._links.get(self.bridge(link))
        if master is not None and self._leads_out(link) and self._is_way_out(master):
            return Role.UPLINK
        if link.kind in PAIRED_KINDS:
            return self._role_of_pair(link)
        return Role.UPLINK if link.index in self._with_address else None

    def bridge(self, link: Link) -> int:
        """The ifindex of the bridge it is a port of; 0 for none."""
        master = self._links.get(link.master)
        return master.index if master is not None and master.kind == "bridge" else 0

    def _role_of_pair(self, link: Link) -> Role | None:
        if not link.peer_elsewhere:
            return None
        if _matches(link, self._patterns.pods):
            return Role.POD
        # a point-to-point CNI that we do not know would give it an address of the pods'
        return Role.UPLINK if link.index in self._with_outer_address else None

    def _role_of_bridge(self, link: Link) -> Role | None:
        ports = self._ports.get(link.index, ())
        if self._is_way_out(link):
            return Role.BRIDGE if any(map(self._leads_out, ports)) else Role.UPLINK
        return Role.BRIDGE if any(self.role(port) is Role.POD for port in ports) else None

    def _is_way_out(self, bridge: Link) -> bool:
        """Whether the node itself is reached by this bridge."""
        if _matches(bridge, self._patterns.ignored):
            return False
        if bridge.index in self._certain or _matches(bridge, self._patterns.uplinks):
            return True
        return bridge.index in self._with_outer_address and any(
            self._leads_out(port) and port.kind not in PAIRED_KINDS
            for port in self._ports.get(bridge.index, ())
        )

    def _leads_out(self, port: Link) -> bool:
        """Whether a bridge's port is one towards others, and not towards pods and guests."""
        if port.kind in UNCONNECTED_KINDS | VIRTUAL_MACHINE_KINDS:
            return False
        if _matches(port, self._patterns.ignored):
            return False
        if port.kind in PAIRED_KINDS:
            return port.peer_elsewhere and not _matches(port, self._patterns.pods)
        return True


def _is_served(link: Link, role: Role) -> bool:
    if link.framing is Framing.NONE:
        return role is Role.UPLINK
    return link.framing is Framing.ETHERNET


def _a(role: Role) -> str:
    return f"an {role.value}" if role is Role.UPLINK else f"a {role.value}"


def _matches(link: Link, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(link.name, pattern) for pattern in patterns)


def _sources(
    facts: Facts, holder: int, primary: tuple[bytes, ...], known: frozenset[bytes]
) -> tuple[bytes, ...]:
    """As the kernel masquerades: an address of the interface that the packet leaves by, else one of
    the node's (inet_select_addr). Of several, the one by which the cluster knows the node."""
    found = []
    for family in Family:
        held = [own for own in facts.addresses if own.index == holder and _is(own, family)]
        own = _best([own for own in held if own.address in known] or held)
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
    first = min(candidates, key=lambda own: (own.passing, own.alone), default=None)
    return first.address if first is not None else None


def _is(own: Address, family: Family) -> bool:
    return own.scope == SCOPE_UNIVERSE and family_of(own.address) is family
