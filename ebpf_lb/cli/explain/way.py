"""Where a connection's packets meet our programs on this node, and what these make of them."""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ebpf_lb.cli.beyond import route_to
from ebpf_lb.cli.explain.ends import Asker, port_of

if TYPE_CHECKING:
    from ebpf_lb.datapath.dry_run import Journey, Place, Sandbox
    from ebpf_lb.datapath.dry_run.packet import Ends
    from ebpf_lb.datapath.reader import View
    from ebpf_lb.model.values import Protocol

_AT_SOCKETS = ("TCP", "UDP")


class Hooks(NamedTuple):
    """Where our programs are. `role`: whose those at an interface are, by its number: "pod",
    "uplink", "loopback"; "": there are none. `xdp`: whether ours is at its XDP hook. `sockets`:
    whether ours are at the node's own sockets."""

    role: Callable[[int], str]
    xdp: Callable[[int], bool]
    sockets: bool


def hooks_of(view: "View") -> Hooks:
    """As this node has them."""
    from ebpf_lb.datapath.attach.listing import Listing

    def role(ifindex: int) -> str:
        if not ifindex:
            return ""
        with Listing(view.build) as listing:
            found = {name.partition("_")[0] for name in listing.programs(ifindex)}
        # those for devices without link header are the uplinks' in all else
        names = [{"l3": "uplink"}.get(one, one) for one in found]
        return max(names, default="")

    def xdp(ifindex: int) -> bool:
        with Listing(view.build) as listing:
            return listing.at_xdp(ifindex)

    return Hooks(role, xdp, socket_hooks(view))


def socket_hooks(view: "View") -> bool:
    from ebpf_lb.datapath.pins import Pins

    links = Pins(view.build.path.parent).links
    return links.exists() and any(links.iterdir())


def at_socket(asker: Asker, protocol: str, hooks: bool) -> bool:
    """Whether programs at the client's socket come first."""
    return hooks and asker.client.value in ("NODE", "LOCALHOST") and protocol in _AT_SOCKETS


def travel(
    sandbox: "Sandbox",
    asker: Asker,
    destination: tuple[bytes, int],
    protocol: "Protocol",
    hooks: Hooks,
) -> "Journey":
    """What the programs themselves make of a new connection. NoPrograms; Unavailable."""
    from ebpf_lb.datapath import dry_run
    from ebpf_lb.datapath.dry_run.packet import Ends

    own = asker.client.value in ("NODE", "LOCALHOST")
    find = _Finder(sandbox.view, hooks)
    ends = Ends((asker.address, asker.port), destination)
    if at_socket(asker, protocol.name, hooks.sockets):
        return _from_socket(sandbox, asker, ends, protocol, find)
    if own:
        entry = find.where_node_sends(destination[0])
    elif asker.client.value == "REMOTE":
        entry = find.where_it_leaves(asker.address)
    else:
        entry = find.behind(find.named(asker.interface), asker.address)

    def route(address: bytes) -> "Place | None":
        if not own and address == asker.address:
            return entry
        return find.where_it_leaves(address)

    return dry_run.travel(sandbox, protocol, ends, entry, route, own=own)


def _from_socket(
    sandbox: "Sandbox", asker: Asker, ends: "Ends", protocol: "Protocol", find: "_Finder"
) -> "Journey":
    from ebpf_lb.datapath import dry_run

    def source(address: bytes) -> bytes:
        named = not asker.unbound and asker.client.value != "LOCALHOST"
        return asker.address if named else route_to(address).source or asker.address

    socket = dry_run.Socket(find.where_node_sends, source, taken(asker, ends.destination, protocol))
    return dry_run.travel_from_socket(sandbox, protocol, ends, socket, find.where_it_leaves)


def taken(asker: Asker, destination: tuple[bytes, int], protocol: "Protocol") -> bool:
    """Whether a process of the node listens on that very loopback address, and so goes first."""
    from ebpf_lb.datapath.sock_diag import SockDiag

    if asker.client.value != "LOCALHOST":
        return False
    with suppress(OSError), SockDiag() as sockets:  # not every kernel can list them
        return sockets.waits(protocol, *destination)
    return False


class _Finder:
    """Of interfaces with programs of ours, by addresses."""

    def __init__(self, view: "View", hooks: Hooks) -> None:
        self._view = view
        self._hooks = hooks

    def _place(self, interface: str, ifindex: int) -> "Place":
        from ebpf_lb.datapath.dry_run import Place

        role = self._hooks.role(ifindex)
        return Place(interface, ifindex, role, role == "uplink" and self._hooks.xdp(ifindex))

    def named(self, interface: str) -> "Place | None":
        with suppress(OSError):
            ifindex = socket.if_nametoindex(interface)
            return self._place(interface, ifindex)
        return None

    def where_node_sends(self, destination: bytes) -> "Place | None":
        """What is for the node itself leaves by loopback."""
        route = route_to(destination)
        return self.named("lo") if route.local else self.where_it_leaves(destination)

    def where_it_leaves(self, address: bytes) -> "Place | None":
        route = route_to(address)
        if route.problem or route.local:
            return None
        return self.behind(self.named(route.interface), route.gateway or address)

    def behind(self, place: "Place | None", hop: bytes) -> "Place | None":
        """A bridge has no programs, but its ports have: that of the next hop, or where the bridge
        has forgotten it, any one."""
        from ebpf_lb.datapath.reader.node import interfaces

        if place is None or place.role:
            return place
        port = self.named(port_of(route_to(hop), hop))
        if port is not None and port.role:
            return port
        for one in interfaces(self._view):
            if one.bridge == place.ifindex:
                port = self._place(place.interface, one.ifindex)
                if port.role:
                    return port
        return place
