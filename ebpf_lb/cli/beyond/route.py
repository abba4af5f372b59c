"""The kernel's way to an address: route, neighbour, MTU, reverse-path filter."""

import errno
import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ebpf_lb.cli.beyond.finding import Finding
from ebpf_lb.model.values import format_address

_FAILED = 0x20  # a neighbour's state: NUD_FAILED
_STRICT = 1
_TUNNEL_BYTES = {"vxlan": 50, "geneve": 50, "ipip": 20, "gre": 24, "wireguard": 60, "sit": 20}


class Route(NamedTuple):
    """Where the kernel sends a packet. `problem`: "" where there is a way."""

    interface: str
    ifindex: int
    gateway: bytes | None
    mtu: int
    local: bool
    source: bytes | None
    problem: str


def route_to(address: bytes) -> Route:
    """As `ip route get`."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    family = socket.AF_INET6 if len(address) == 16 else socket.AF_INET
    text = format_address(address)
    with IPRoute() as ip:
        try:
            [found] = ip.route("get", dst=text, family=family)
        except NetlinkError as error:
            why = {
                errno.ENETUNREACH: "the node has no route to it",
                errno.EHOSTUNREACH: "a route calls it unreachable",
                errno.EINVAL: "a blackhole route takes it",
                errno.EACCES: "a route prohibits it",
            }.get(error.code, str(error.args[-1]))
            return Route("-", 0, None, 0, False, None, why)
        ifindex = found.get_attr("RTA_OIF") or 0
        link = ip.get_links(ifindex)[0] if ifindex else None
        metrics = found.get_attr("RTA_METRICS")
        own_mtu = metrics.get_attr("RTAX_MTU") if metrics else None
        gateway, source = found.get_attr("RTA_GATEWAY"), found.get_attr("RTA_PREFSRC")
        return Route(
            link.get_attr("IFLA_IFNAME") if link else "-",
            ifindex,
            _packed(gateway),
            own_mtu or (link.get_attr("IFLA_MTU") if link else 0),
            found["type"] == 2,  # RTN_LOCAL
            _packed(source),
            "",
        )


def _packed(text: str | None) -> bytes | None:
    return ipaddress.ip_address(text).packed if text else None


def about_route(route: Route, address: bytes) -> Iterator[Finding]:
    """How packets go to an address, and what is wrong with that."""
    text = format_address(address)
    if route.problem:
        yield Finding(f"No packet gets to {text}: {route.problem}.", True)
        return
    if route.local:
        yield Finding(f"{text} is an address of this node: a process here must listen.")
        return
    hop = f" through {format_address(route.gateway)}" if route.gateway else ""
    yield Finding(f"The way to {text} is by {route.interface}{hop}, with an MTU of {route.mtu}.")
    yield from _neighbour(route, address)
    yield from _tunnel(route)
    yield from _reverse_path(route)


def _neighbour(route: Route, address: bytes) -> Iterator[Finding]:
    from pyroute2 import IPRoute

    hop = format_address(route.gateway or address)
    with IPRoute() as ip:
        states = [
            one["state"]
            for one in ip.get_neighbours(ifindex=route.ifindex)
            if one.get_attr("NDA_DST") == hop
        ]
    if states and all(state & _FAILED for state in states):
        yield Finding(
            f"{hop} does not answer on {route.interface}: nobody has that address there.", True
        )


def _tunnel(route: Route) -> Iterator[Finding]:
    """A tunnel that takes larger packets than what carries it."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        [link] = ip.get_links(route.ifindex)
        info = link.get_attr("IFLA_LINKINFO")
        kind = info.get_attr("IFLA_INFO_KIND") if info else None
        data = info.get_attr("IFLA_INFO_DATA") if info else None
        number = link.get_attr("IFLA_LINK") or (
            data.get_attr("IFLA_VXLAN_LINK") if kind == "vxlan" and data else 0
        )
        if kind not in _TUNNEL_BYTES or not number:
            return
        [below] = ip.get_links(number)
    room = below.get_attr("IFLA_MTU") - _TUNNEL_BYTES[kind]
    if route.mtu > room:
        yield Finding(
            f"The MTU of the way by {route.interface} ({kind}) is {route.mtu}, but "
            f"{below.get_attr('IFLA_IFNAME')} below it has room for {room}: large packets are "
            "lost.",
            True,
        )


def _reverse_path(route: Route) -> Iterator[Finding]:
    found = []
    for name in ("all", route.interface):
        try:
            path = Path("/proc/sys/net/ipv4/conf", name, "rp_filter")
            found.append(int(path.read_text()))
        except (OSError, ValueError):
            continue
    if found and max(found) == _STRICT:
        yield Finding(
            f"The reverse-path filter of {route.interface} is strict: an answer that comes in by "
            "another interface than the way back leaves by is dropped."
        )
