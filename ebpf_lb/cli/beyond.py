"""What lies beyond us on a packet's way: the kernel's routes, neighbours, filters and limits."""

import errno
import ipaddress
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ebpf_lb.model.values import format_address

_NFT = ("nft", "-j", "list", "ruleset")
_NFT_WITHIN_S = 5
_HOOKS = ("forward", "input", "output", "postrouting", "prerouting")
_ENDS = ("drop", "reject")
_SHOWN = 5
_FAILED = 0x20  # a neighbour's state: NUD_FAILED


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


def beyond(route: Route, address: bytes, frontend: bytes) -> Iterator[str]:
    """Sentences about what may stop or change a packet to a backend, and its answer."""
    text = format_address(address)
    if route.problem:
        yield f"No packet gets to {text}: {route.problem}."
        return
    if route.local:
        yield f"{text} is an address of this node: a process here must listen."
    else:
        hop = f" through {format_address(route.gateway)}" if route.gateway else ""
        yield f"The way to {text} is by {route.interface}{hop}, with an MTU of {route.mtu}."
        yield from _neighbour(route, address)
    yield from _conntrack()
    yield from _reverse_path(route)
    yield from _rules(address, frontend)


def _neighbour(route: Route, address: bytes) -> Iterator[str]:
    from pyroute2 import IPRoute

    hop = format_address(route.gateway or address)
    with IPRoute() as ip:
        states = [
            one["state"]
            for one in ip.get_neighbours(ifindex=route.ifindex)
            if one.get_attr("NDA_DST") == hop
        ]
    if states and all(state & _FAILED for state in states):
        yield f"{hop} does not answer on {route.interface}: nobody has that address there."


def _conntrack() -> Iterator[str]:
    folder = Path("/proc/sys/net/netfilter")
    try:
        used = int((folder / "nf_conntrack_count").read_text())
        room = int((folder / "nf_conntrack_max").read_text())
    except (OSError, ValueError):
        return
    if room and used >= room * 0.95:
        yield (
            f"The kernel's connection tracking is full ({used:,} of {room:,}): new connections are "
            "dropped. Raise net.netfilter.nf_conntrack_max."
        )


def _reverse_path(route: Route) -> Iterator[str]:
    strict = 1
    found = []
    for name in ("all", route.interface):
        try:
            path = Path("/proc/sys/net/ipv4/conf", name, "rp_filter")
            found.append(int(path.read_text()))
        except (OSError, ValueError):
            continue
    if found and max(found) == strict and not route.local:
        yield (
            f"The reverse-path filter of {route.interface} is strict: an answer that comes in by "
            "another interface than the way back leaves by is dropped."
        )


def _rules(address: bytes, frontend: bytes) -> Iterator[str]:
    """nftables rules that drop or reject what has one of these addresses, or anything."""
    try:
        done = subprocess.run(_NFT, capture_output=True, timeout=_NFT_WITHIN_S, check=False)
        listed = json.loads(done.stdout or b"{}").get("nftables", [])
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return
    hooks = {
        (one["chain"]["family"], one["chain"]["table"], one["chain"]["name"]): one["chain"]
        for one in listed
        if "chain" in one and one["chain"].get("hook") in _HOOKS
    }
    shown = 0
    for place, chain in hooks.items():
        if chain.get("policy") == "drop":
            yield f"The chain {' '.join(place)} ({chain['hook']}) drops what no rule accepts."
    for one in listed:
        rule = one.get("rule")
        if not rule:
            continue
        ends = [key for part in rule.get("expr", []) for key in part if key in _ENDS]
        if not ends or not _concerns(rule["expr"], (address, frontend)):
            continue
        shown += 1
        if shown <= _SHOWN:
            chain_name = f"{rule['family']} {rule['table']} {rule['chain']}"
            yield (
                f"An nftables rule may {ends[0]} it: handle {rule['handle']} of chain {chain_name} "
                f"(`nft -a list chain {chain_name}`)."
            )
    if shown > _SHOWN:
        yield f"… and {shown - _SHOWN} more such rules."


def _concerns(expressions: list[dict[str, Any]], addresses: tuple[bytes, ...]) -> bool:
    """Whether a rule's matches name one of the addresses, or its network."""
    for part in expressions:
        match = part.get("match")
        if match and any(_holds(match.get("right"), address) for address in addresses):
            return match.get("op") in ("==", "in")
    return False


def _holds(value: Any, address: bytes) -> bool:
    if isinstance(value, str):
        try:
            return ipaddress.ip_address(value).packed == address
        except ValueError:
            return False
    if isinstance(value, dict):
        if "prefix" in value:
            prefix = value["prefix"]
            try:
                network = ipaddress.ip_network(f"{prefix['addr']}/{prefix['len']}", strict=False)
            except ValueError:
                return False
            return ipaddress.ip_address(address) in network
        return any(_holds(one, address) for one in value.get("set", []) if value.get("set"))
    if isinstance(value, list):
        return any(_holds(one, address) for one in value)
    return False
