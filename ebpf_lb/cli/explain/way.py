"""Where a connection's packets meet our programs on this node, and what these make of them."""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ebpf_lb.cli.beyond import route_to
from ebpf_lb.cli.explain.ends import Asker, port_of

if TYPE_CHECKING:
    from ebpf_lb.datapath.dry_run import Journey, Place, Sandbox
    from ebpf_lb.datapath.reader import View
    from ebpf_lb.model.values import Protocol

Roles = Callable[[int], str]
"""Whose our programs at an interface are: "pod", "uplink", "loopback"; "": there are none."""


class NoPrograms(Exception):
    """There are none of ours where the client's packets come in, or nobody knows where that is."""


def roles_of(view: "View") -> Roles:
    """As the hooks of this node have them."""
    from ebpf_lb.datapath.attach.listing import Listing

    def role(ifindex: int) -> str:
        if not ifindex:
            return ""
        with Listing(view.build) as listing:
            found = {name.partition("_")[0] for name in listing.programs(ifindex)}
        # those for devices without link header are the uplinks' in all else
        names = [{"l3": "uplink"}.get(one, one) for one in found]
        return max(names, default="")

    return role


def travel(
    sandbox: "Sandbox",
    asker: Asker,
    destination: tuple[bytes, int],
    protocol: "Protocol",
    roles: Roles,
) -> "Journey":
    """What the programs themselves make of a new connection. NoPrograms; Unavailable."""
    from ebpf_lb.datapath import dry_run
    from ebpf_lb.datapath.dry_run.packet import Ends

    own = asker.client.value in ("NODE", "LOCALHOST")
    find = _Finder(sandbox.view, roles)
    if own:
        entry = find.where_node_sends(destination[0])
    elif asker.client.value == "REMOTE":
        entry = find.where_it_leaves(asker.address)
    else:
        entry = find.behind(find.named(asker.interface), asker.address)
    if entry is None or not entry.role:
        raise NoPrograms(entry.interface if entry else "")
    ends = Ends((asker.address, asker.port), destination)

    def route(address: bytes) -> "Place | None":
        if not own and address == asker.address:
            return entry
        return find.where_it_leaves(address)

    return dry_run.travel(sandbox, protocol, ends, entry, route, own=own)


class _Finder:
    """Of interfaces with programs of ours, by addresses."""

    def __init__(self, view: "View", roles: Roles) -> None:
        self._view = view
        self._roles = roles

    def named(self, interface: str) -> "Place | None":
        from ebpf_lb.datapath.dry_run import Place

        with suppress(OSError):
            ifindex = socket.if_nametoindex(interface)
            return Place(interface, ifindex, self._roles(ifindex))
        return None

    def where_node_sends(self, destination: bytes) -> "Place | None":
        """What is for the node itself leaves by loopback."""
        route = route_to(destination)
        if route.problem:
            return None
        return self.named("lo" if route.local else route.interface)

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
            if one.bridge == place.ifindex and (role := self._roles(one.ifindex)):
                return place._replace(ifindex=one.ifindex, role=role)
        return place
