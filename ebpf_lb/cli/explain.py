"""`ebpf-lb explain`: what becomes of a new connection, and why."""

import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ebpf_lb.cli import names, output
from ebpf_lb.cli.beyond import Route, beyond, route_to
from ebpf_lb.cli.choice import is_service
from ebpf_lb.cli.options import bpffs_option
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import (
    Family,
    Protocol,
    family_of,
    format_address,
    format_endpoint,
    parse_address,
)

if TYPE_CHECKING:
    from ebpf_lb.datapath.question import Client, Decision
    from ebpf_lb.datapath.reader import View
    from ebpf_lb.datapath.reader.services import Backend, Frontend, ServicePort

# of networks that only documents use: nobody has them
_OUTSIDE = {Family.IPV4: parse_address("198.51.100.1"), Family.IPV6: parse_address("2001:db8::1")}
_PORT = 40000
_FROM_OUTSIDE = ("LOAD_BALANCER", "EXTERNAL_IP", "NODE_PORT", "CLUSTER_IP")
_FROM_INSIDE = ("CLUSTER_IP", "LOAD_BALANCER", "EXTERNAL_IP", "NODE_PORT")
_KINDS = {
    "CLUSTER_IP": "ClusterIP",
    "LOAD_BALANCER": "load balancer's address",
    "EXTERNAL_IP": "external IP",
    "NODE_PORT": "nodePort",
}
_VERDICTS = {"PASS": "pass", "TRANSLATE": "forward", "REJECT": "reject", "DROP": "drop"}


@dataclass(slots=True)
class Explanation:
    """`source`: what the backend sees as its client."""

    client: str
    asked: str
    verdict: str
    reason: str
    service: str | None = None
    frontend: str | None = None
    backend: str | None = None
    source: str | None = None
    steps: list[str] = field(default_factory=list)
    candidates: list[dict[str, Any]] = field(default_factory=list)
    excluded: list[dict[str, Any]] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)


@click.command()
@click.argument("ends", metavar="[FROM] TO", nargs=-1, required=True, shell_complete=names.services)
@click.option("--port", type=click.IntRange(1, 65535), default=_PORT, help="The client's port.")
@output.output_option
@click.option("--family", type=click.Choice(["ipv4", "ipv6"]), default="ipv4", show_default=True)
@bpffs_option
def explain(ends: tuple[str, ...], port: int, form: str, family: str, bpffs: Path) -> None:
    """Say what becomes of a new connection FROM somebody TO a Service, as this node decides it.

    FROM is an address, or `node` for a process of this node; left out: a client outside. TO is
    ADDRESS:PORT, [NAMESPACE/]NAME[:PORT] or node:NODEPORT, each with /tcp, /udp or /sctp behind it
    where it is not TCP.

    The kernel's own program decides, on the maps as they are; nothing is changed. Then routes,
    neighbours, filters and limits on the way to the backend are looked at.
    """
    from ebpf_lb.datapath.reader import open_views

    if len(ends) > 2:
        raise click.UsageError("Say at most two ends: [FROM] TO.")
    origin, target = (None, ends[0]) if len(ends) == 1 else (ends[0], ends[1])
    text, _, protocol = target.rpartition("/") if _has_protocol(target) else (target, "", "tcp")
    wanted = Family.IPV6 if family == "ipv6" else Family.IPV4
    for one in (origin, text):
        if one and (address := _address(one)):
            wanted = family_of(address[0])
    views = [view for view in open_views(bpffs, [wanted]) if view.family is wanted]
    found = _explain(views[0], origin, text, Protocol[protocol.upper()], port)
    if form == "json":
        output.say(output.as_json(_row(found)))
    else:
        output.say(_told(found))


def _has_protocol(text: str) -> bool:
    return text.rpartition("/")[2].upper() in Protocol.__members__


def _address(text: str) -> tuple[bytes, int | None] | None:
    """ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT; None if it is something else."""
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        return parse_address(host), int(port) if port else None
    except ValueError:
        return None


def _explain(
    view: "View", origin: str | None, target: str, protocol: Protocol, port: int
) -> Explanation:
    from ebpf_lb.datapath.question import Question

    client, source = _client(view, origin)
    destination, frontend = _destination(view, target, protocol, origin is None)
    with _program(view, Question) as question:
        decision = question.ask(client, (source, port), destination, protocol)
    found = Explanation(
        f"{format_endpoint(source, port)} ({_KIND_OF_CLIENT[client.value]})",
        f"{format_endpoint(*destination)}/{protocol.name}",
        _VERDICTS[decision.action],
        decision.reason.name,
    )
    if frontend is None:
        _say_near(view, found, destination, protocol)
    else:
        _say_service(view, found, frontend, decision, client.value)
    _say_verdict(view, found, decision, source, port, destination[0])
    return found


_KIND_OF_CLIENT = {
    "POD": "a pod of this node",
    "NODE": "a process of this node",
    "REMOTE": "somebody outside this node",
}


def _program(view: "View", kind: Any) -> Any:
    try:
        return kind(view)
    except FileNotFoundError:
        raise UserError(
            "The programs on this node are of a version that explains nothing: restart the agent "
            "with this version."
        ) from None


def _client(view: "View", origin: str | None) -> "tuple[Client, bytes]":
    """Who asks, and from which address."""
    from ebpf_lb.datapath.question import Client
    from ebpf_lb.datapath.reader.node import interfaces, sources

    if origin is None:
        return Client.REMOTE, _OUTSIDE[view.family]
    if origin == "node":
        number = view.layout.defines["NODE_SOURCE_ID"]
        known = {one.id: one.address for one in sources(view)}
        return Client.NODE, known.get(number, bytes(view.family.address_bytes))
    address = _address(origin)
    if address is None:
        raise UserError(
            f"{origin!r} is not an address: give the client's address (of a pod: `kubectl get pod "
            "-o wide` shows it), or `node`."
        )
    if family_of(address[0]) is not view.family:
        raise UserError(f"{origin} and the address asked are of different families.")
    route = route_to(address[0])
    if route.local:
        return Client.NODE, address[0]
    bridges = {one.bridge for one in interfaces(view)}
    if not route.gateway and (route.ifindex in bridges or _is_pods(view, route)):
        return Client.POD, address[0]
    return Client.REMOTE, address[0]


def _is_pods(view: "View", route: Route) -> bool:
    """Whether our programs for pods are on the interface."""
    from ebpf_lb.datapath.attach.listing import Listing

    if not route.ifindex:
        return False
    with Listing(view.build) as listing:
        return any(name.startswith("pod_") for name in listing.programs(route.ifindex))


def _destination(
    view: "View", target: str, protocol: Protocol, outside: bool
) -> "tuple[tuple[bytes, int], Frontend | None]":
    from ebpf_lb.datapath.reader.services import frontends

    known = [one for one in frontends(view) if one.port and one.protocol == protocol.name]
    address = _address(target)
    if address is not None:
        if address[1] is None:
            ports = sorted({one.port for one in known if one.address == address[0]})
            hint = f" It serves {', '.join(map(str, ports))}." if ports else ""
            raise UserError(f"Say which port of {target}: {target}:PORT.{hint}")
        place = (address[0], address[1])
        return place, next((one for one in known if (one.address, one.port) == place), None)
    if target.startswith("node:"):
        number = target.removeprefix("node:")
        chosen = [one for one in known if one.kind == "NODE_PORT" and str(one.port) == number]
        if not chosen:
            raise UserError(
                f"No Service has the nodePort {number}/{protocol.name} on this node: "
                "`ebpf-lb services` lists what is served, and `ebpf-lb status` what is not."
            )
    else:
        chosen = [one for one in known if is_service(target, one.service) or _by_port(target, one)]
        if not chosen:
            raise UserError(_unknown(view, target, protocol, known))
    order = _FROM_OUTSIDE if outside else _FROM_INSIDE
    best = min(chosen, key=lambda one: (order.index(one.kind), one.address, one.port))
    return (best.address, best.port), best


def _by_port(target: str, frontend: "Frontend") -> bool:
    """NAME:NUMBER."""
    name, _, number = target.rpartition(":")
    return number == str(frontend.port) and is_service(name, frontend.service)


def _unknown(view: "View", target: str, protocol: Protocol, known: "list[Frontend]") -> str:
    name = target.partition("/")[2] or target
    others = sorted(
        {
            f"{one.service}/{one.protocol}"
            for one in view.names.values()
            if name.partition(":")[0] in one.service
        }
    )
    hint = f" There is {', '.join(others[:5])}." if others else ""
    return (
        f"This node serves no {target!r} by {protocol.name}.{hint} Headless and ExternalName "
        "Services and those of another proxy's label are not served; `ebpf-lb status` says what "
        "could not be."
    )


def _say_near(
    view: "View", found: Explanation, place: tuple[bytes, int], protocol: Protocol
) -> None:
    from ebpf_lb.datapath.reader.node import service_networks
    from ebpf_lb.datapath.reader.services import frontends
    from ebpf_lb.model.values import Network

    found.steps.append(f"No Service has {found.asked}.")
    near = [one for one in frontends(view) if one.port]
    same = sorted(
        f"{one.port}/{one.protocol} ({one.service})" for one in near if one.address == place[0]
    )
    if same:
        found.steps.append(f"The same address serves {', '.join(same[:5])}.")
    elsewhere = sorted(
        {
            f"{format_endpoint(one.address, one.port)} ({one.service})"
            for one in near
            if one.port == place[1] and one.protocol == protocol.name
        }
    )
    if elsewhere and not same:
        found.steps.append(f"That port is served at {', '.join(elsewhere[:3])}.")
    if any(place[0] in Network(address, length) for address, length in service_networks(view)):
        found.steps.append(
            "It is an address of a ServiceCIDR that no Service has: what leaves the node for it is "
            "dropped (NO_SERVICE)."
        )


def _say_service(
    view: "View", found: Explanation, frontend: "Frontend", decision: "Decision", client: str
) -> None:
    from ebpf_lb.datapath.reader.services import service_ports

    found.service = frontend.service
    found.frontend = format_endpoint(frontend.address, frontend.port)
    short = "LOCAL" in frontend.flags and frontend.kind != "CLUSTER_IP" and client != "REMOTE"
    local = "LOCAL" in frontend.flags and not short
    policy = "Local" if "LOCAL" in frontend.flags else "Cluster"
    found.steps.append(
        f"{found.frontend} is the {_KINDS[frontend.kind]} of {frontend.service}; its traffic "
        f"policy is {policy}."
    )
    if short:
        found.steps.append(
            "Whoever asks from this node may have any endpoint all the same, as if it were Cluster."
        )
    if "SOURCE_RANGES" in frontend.flags and decision.reason.name != "SOURCE_RANGE":
        found.steps.append("The client is in the Service's source ranges.")
    for port in service_ports(view):
        if port.id == frontend.service_id:
            _say_candidates(view, found, port, local)
            if port.affinity_timeout_s and decision.action == "TRANSLATE":
                found.steps.append(
                    f"A client keeps to its backend for {port.affinity_timeout_s} s (session "
                    "affinity)."
                )


def _say_candidates(view: "View", found: Explanation, port: "ServicePort", local: bool) -> None:
    from ebpf_lb.datapath.reader.services import backends

    chosen = port.local if local else port.cluster
    total = sum(chosen.values())
    for one in backends(view):
        if one.service_id != port.id:
            continue
        text = format_endpoint(one.address, one.port)
        if one.id in chosen:
            where = "here" if "ON_NODE" in one.flags else "on another node"
            share = chosen[one.id] / total
            found.candidates.append({"address": text, "where": where, "share": round(share, 4)})
        else:
            found.excluded.append({"address": text, "why": _why_not(one, local)})
    if found.candidates:
        shown = [f"{c['address']} ({c['where']}, {c['share']:.0%})" for c in found.candidates[:8]]
        rest = len(found.candidates) - len(shown)
        found.steps.append(
            f"Candidates: {', '.join(shown)}" + (f" and {rest} more." if rest else ".")
        )
    else:
        found.steps.append("No endpoint is a candidate.")
    for one_ in found.excluded[:8]:
        found.steps.append(f"Left out: {one_['address']}: {one_['why']}.")


def _why_not(backend: "Backend", local: bool) -> str:
    if "IN_CLUSTER_SET" not in backend.flags and "IN_LOCAL_SET" not in backend.flags:
        return "no longer usable; it keeps the connections that it has"
    if local:
        return "it runs on another node, and the policy is Local"
    return "topology or readiness keeps it out of the cluster's set"


def _say_verdict(
    view: "View",
    found: Explanation,
    decision: "Decision",
    source: bytes,
    port: int,
    frontend: bytes,
) -> None:
    from ebpf_lb.datapath.reader.node import interfaces

    if decision.backend is None:
        return
    found.backend = format_endpoint(decision.backend, decision.backend_port)
    route = route_to(decision.backend)
    found.source = format_endpoint(source, port)
    if decision.masquerade:
        by_interface = {one.ifindex: one.source for one in interfaces(view)}
        own = by_interface.get(route.ifindex) or route.source
        found.source = format_address(own) if own else "an address of this node"
        found.steps.append(
            f"It is masqueraded: the backend sees {found.source}, so that the answer comes back "
            "through this node."
        )
    else:
        found.steps.append(f"The backend sees its client as it is, {found.source}.")
    found.beyond = list(beyond(route, decision.backend, frontend))


def _told(found: Explanation) -> str:
    from ebpf_lb.datapath.layout import load

    colour = {"forward": "green", "pass": "yellow"}.get(found.verdict, "red")
    backend = f" to {found.backend}" if found.backend else ""
    lines = [
        f"{found.client}",
        f"  -> {found.asked}: " + click.style(f"{found.verdict}{backend}", fg=colour, bold=True),
    ]
    reason = next(one for one in load(Family.IPV4).reasons.values() if one.name == found.reason)
    steps = list(found.steps)
    if found.verdict in ("reject", "drop"):
        steps.append(f"{reason.name}: {reason.sentence}. What to do: {reason.remedy}.")
    elif found.verdict == "pass":
        steps.append("So it is left to the kernel as it is.")
    for sentence in steps:
        lines += _wrapped(sentence)
    if found.beyond:
        lines.append("Beyond us:")
        for sentence in found.beyond:
            lines += _wrapped(sentence)
    return "\n".join(lines)


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(
        sentence, output.columns(), initial_indent="  - ", subsequent_indent="    "
    )


def _row(found: Explanation) -> dict[str, Any]:
    return {
        "from": found.client.partition(" ")[0],
        "to": found.asked,
        "verdict": found.verdict,
        "reason": found.reason,
        "service": found.service,
        "frontend": found.frontend,
        "backend": found.backend,
        "source": found.source,
        "candidates": found.candidates,
        "excluded": found.excluded,
        "steps": found.steps,
        "beyond": found.beyond,
    }
