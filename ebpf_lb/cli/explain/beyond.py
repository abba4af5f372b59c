"""What lies beyond us on the way to the backends, and what the node itself lacks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ebpf_lb.cli.beyond import Finding, Route, echo, limits, netfilter, route_to
from ebpf_lb.cli.beyond.route import about_route
from ebpf_lb.cli.explain.ends import Asker
from ebpf_lb.cli.explain.explanation import Candidate, Explanation
from ebpf_lb.cli.node_status import Ways
from ebpf_lb.model.values import format_address

if TYPE_CHECKING:
    from ebpf_lb.datapath.reader import View
    from ebpf_lb.datapath.reader.services import Backend

MOST = 16
"""Backends that are looked at one by one."""

_FULL = 0.9


def say_beyond(
    view: "View",
    found: Explanation,
    listed: "Sequence[tuple[Candidate, Backend]]",
    asker: Asker,
    protocol: str,
    ways: Ways,
    *,
    with_echo: bool,
) -> None:
    """Of the chosen one all is told, of the others what is wrong with them."""
    rules = netfilter.read()
    routes = {backend.address: route_to(backend.address) for _, backend in _some(found, listed)}
    for candidate, backend in _some(found, listed):
        route = routes[backend.address]
        chosen = candidate.address == found.backend
        findings = [
            *about_route(route, backend.address),
            *(
                [Finding(f"nftables rules do not see it: {past}.")]
                if (past := _past_stack(ways, asker, backend))
                else _filters(rules, asker, backend, route, protocol)
            ),
        ]
        for one in findings:
            _say(found, one, told=chosen or found.whole)
    if with_echo:
        _echoes(found, routes)
    for one in limits.about_conntrack():
        _say(found, one, told=True)


def _some(
    found: Explanation, listed: "Sequence[tuple[Candidate, Backend]]"
) -> "list[tuple[Candidate, Backend]]":
    """The chosen one first."""
    return sorted(listed, key=lambda one: one[0].address != found.backend)[:MOST]


def _say(found: Explanation, finding: Finding, *, told: bool) -> None:
    if finding.trouble:
        found.trouble(finding.text)
    elif told and finding.text not in found.beyond:
        found.beyond.append(finding.text)


def _past_stack(ways: Ways, asker: Asker, backend: "Backend") -> str:
    """Why the host's stack does not see its packets; "" where it does."""
    if asker.client.value not in ("POD", "REMOTE"):
        return ""
    if ways.host_routing:
        return "it goes past the host's stack (hostRouting: bpf)"
    if asker.interface in ways.xdp and "ON_NODE" not in backend.flags:
        return f"XDP on {asker.interface} sends it on to the other node"
    return ""


def _filters(
    rules: list[netfilter.Json], asker: Asker, backend: "Backend", route: Route, protocol: str
) -> list[Finding]:
    """By the hooks that a packet passes between our programs at entry and at exit."""
    if not rules or route.problem:
        return []
    node = asker.client.value in ("NODE", "LOCALHOST")
    incoming = "" if node else asker.interface
    outgoing = "lo" if route.local and node else "" if route.local else route.interface
    packet = netfilter.Packet(
        asker.address, asker.port, backend.address, backend.port, protocol, incoming, outgoing
    )
    if node:
        hooks = ("output", "postrouting", *(("input",) if route.local else ()))
    else:
        hooks = ("prerouting", "input") if route.local else ("prerouting", "forward", "postrouting")
    return list(netfilter.about_rules(rules, hooks, packet))


def _echoes(found: Explanation, routes: dict[bytes, Route]) -> None:
    """Whether the backends can be reached at all, and by packets of which size."""
    ways = [
        echo.Way(address, route.mtu)
        for address, route in routes.items()
        if not route.problem and not route.local and route.mtu
    ]
    heard = echo.ask(ways)
    silent = [address for address, one in heard.items() if not one.answers]
    for address, one in heard.items():
        text = format_address(address)
        if one.black_hole:
            found.trouble(
                f"Packets of more than {one.largest} bytes do not get to {text}, though the way's "
                f"MTU is {one.of}, and nobody says so: a path-MTU black hole. Lower the MTU of the "
                'route or of the pods, or let ICMP "too big" through.'
            )
    if not silent:
        return
    listed = ", ".join(format_address(one) for one in silent[:5])
    if len(silent) < len(heard):
        found.trouble(
            f"{listed} {'does' if len(silent) == 1 else 'do'} not answer an echo request, while "
            f"{len(heard) - len(silent)} other backends do: a filter or a route on the way or on "
            "that node, or nobody has that address."
        )
        return
    says = (
        f"No backend answers an echo request ({listed}): a filter or a route on the way, or none "
        "of them lives; or they just do not answer these."
    )
    if any(one.answered for one in found.candidates):
        found.beyond.append(says)
    else:
        found.trouble(says)


def say_node(view: "View", found: Explanation) -> None:
    """What the node itself lacks: an agent, room in its maps."""
    from ebpf_lb.cli.node_status import duration, silence_s
    from ebpf_lb.datapath.reader.occupancy import levels

    silent_s = silence_s(view.build.path.parent)
    if silent_s is not None:
        found.trouble(
            f"No agent has run on this node for {duration(silent_s)}: what is said here is as it "
            "was then. Start it."
        )
    for level in levels(view):
        if level.share >= _FULL and not level.harmless:
            what = (
                "new connections are dropped" if level.map == "flows" else "Services are left out"
            )
            found.trouble(
                f"The map {level.map} is {level.share:.0%} full "
                f"({level.used:,} of {level.room:,}): {what}."
            )
