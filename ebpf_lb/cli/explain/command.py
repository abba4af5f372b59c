"""`ebpf-lb explain`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ebpf_lb.cli import names, output
from ebpf_lb.cli.beyond import route_to
from ebpf_lb.cli.cluster import Cluster, api_options
from ebpf_lb.cli.explain.explanation import Explanation, say_reason
from ebpf_lb.cli.options import address_option, bpffs_option
from ebpf_lb.model.values import Family, Protocol, family_of, format_endpoint, parse_address

if TYPE_CHECKING:
    from ebpf_lb.cli.explain.decided import Decided
    from ebpf_lb.cli.explain.ends import Asker
    from ebpf_lb.cli.explain.way import Hooks
    from ebpf_lb.cli.node_status import Ways
    from ebpf_lb.datapath.dry_run import Sandbox
    from ebpf_lb.datapath.reader import View
    from ebpf_lb.datapath.reader.services import Frontend

_PORT = 40000
_VERDICTS = {"PASS": "pass", "TRANSLATE": "forward", "REJECT": "reject", "DROP": "drop"}
_LOOPBACK = {Family.IPV4: parse_address("127.0.0.1"), Family.IPV6: parse_address("::1")}


@click.command()
@click.argument("ends", metavar="[FROM] TO", nargs=-1, required=True, shell_complete=names.ends)
@click.option("--port", type=click.IntRange(1, 65535), default=_PORT, help="The client's port.")
@click.option("--all", "whole", is_flag=True, help="Every endpoint, with its share.")
@click.option(
    "--flow",
    is_flag=True,
    help="Connections that exist, of FROM (ADDRESS[:PORT]) to TO; either may be left out.",
)
@click.option("--no-echo", is_flag=True, help="Send no echo requests to the backends.")
@click.option(
    "-o",
    "--output",
    "form",
    metavar="table|json|FILE.svg|FILE.png",
    default="table",
    show_default=True,
    help="For people, for scripts, or as a drawing.",
)
@click.option("--family", type=click.Choice(["ipv4", "ipv6"]), default="ipv4", show_default=True)
@api_options
@address_option
@bpffs_option
def explain(
    ends: tuple[str, ...],
    port: int,
    whole: bool,
    flow: bool,
    no_echo: bool,
    form: str,
    family: str,
    kubeconfig: str | None,
    no_api: bool,
    agent: tuple[str, int],
    bpffs: Path,
) -> None:
    """Say what happens to a new connection FROM a client TO a Service, as this node decides it.

    FROM is an address, the name of a Pod, or `node` for a process of this node; left out: a client
    outside. TO is ADDRESS:PORT, [NAMESPACE/]NAME[:PORT] or node:NODEPORT, each with /tcp, /udp or
    /sctp behind it where it is not TCP.

    The kernel's own program decides, on the maps as they are; nothing is changed. Then routes,
    neighbours, filters and limits on the way to the backends are looked at, and echo requests sent.
    """
    from ebpf_lb.cli.explain.ends import address_and_port
    from ebpf_lb.datapath.reader import open_views

    if len(ends) > 2:
        raise click.UsageError("Say at most two ends: [FROM] TO.")
    if not all(ends):
        raise click.UsageError("An end is empty: say [FROM] TO.")
    if form not in ("table", "json") and not form.endswith((".svg", ".png")):
        raise click.UsageError(
            "-o is table, json, or the name of a file that ends in .svg or .png."
        )
    origin, target = (None, ends[0]) if len(ends) == 1 else (ends[0], ends[1])
    text, protocol = _protocol(target)
    wanted = Family.IPV6 if family == "ipv6" else Family.IPV4
    for one in (origin, text):
        if one and (address := address_and_port(one)):
            wanted = family_of(address[0])
    views = [view for view in open_views(bpffs, [wanted]) if view.family is wanted]
    if flow:
        from ebpf_lb.cli.explain.flow import explain_flows

        explain_flows(views[0], origin, text, form)
        return
    cluster = Cluster(kubeconfig, wanted=not no_api)
    from ebpf_lb.cli.explain.ends import who_asks
    from ebpf_lb.cli.node_status import ways

    asker = who_asks(views[0], origin, port, cluster)
    found = explain_asker(
        views[0],
        asker,
        text,
        protocol,
        cluster,
        whole=whole,
        with_echo=not no_echo,
        ways=ways(agent),
    )
    if form == "json":
        output.say(output.as_json(found.row()))
    elif form == "table":
        output.say(found.text())
    else:
        from ebpf_lb.cli.explain.drawing import draw_into

        draw_into(Path(form), found, cluster.node)
        output.say(f"Drew {form}.")


def _protocol(target: str) -> tuple[str, Protocol]:
    text, _, name = target.rpartition("/")
    if name.upper() in Protocol.__members__ and text:
        return text, Protocol[name.upper()]
    return target, Protocol.TCP


def explain_asker(
    view: "View",
    asker: "Asker",
    target: str,
    protocol: Protocol,
    cluster: Cluster,
    *,
    whole: bool = False,
    with_echo: bool = False,
    ways: "Ways | None" = None,
    sandbox: "Sandbox | None" = None,
    hooks: "Hooks | None" = None,
) -> Explanation:
    """Of whom it is known who asks. sandbox, hooks: default: as on this node, for this question."""
    from ebpf_lb.cli.explain.beyond import say_node
    from ebpf_lb.cli.explain.decided import decide
    from ebpf_lb.cli.explain.ends import whom
    from ebpf_lb.cli.explain.near import say_near

    destination, frontend = whom(view, _loopback(target), protocol, asker, cluster)
    _at_localhost(asker, destination[0])
    service_id = frontend.service_id if frontend is not None else 0
    decided = decide(view, asker, destination, protocol, service_id, sandbox, hooks)
    decision = decided.decision
    found = Explanation(
        asker.text,
        asker.kind,
        f"{format_endpoint(*destination)}/{protocol.name}",
        _VERDICTS[decision.action],
        decision.reason.name,
        whole=whole,
    )
    if frontend is None:
        say_near(view, found, destination, protocol, cluster)
    else:
        _say_service(view, found, frontend, decided, asker, cluster, with_echo, ways)
    if decided.trouble:
        found.trouble(decided.trouble)
    if decided.remark:
        found.beyond.insert(0, decided.remark)
    say_reason(found)
    say_node(view, found)
    if asker.remark:
        found.beyond.insert(0, asker.remark)
    if cluster.problem and frontend is not None:
        found.beyond.append(
            f"The API server was not asked ({cluster.problem}): endpoints that were never usable "
            "are in no map, and not named here."
        )
    return found


def _loopback(target: str) -> str:
    """All of 127.0.0.0/8 is one to us."""
    host, _, port = target.partition(":")
    return f"127.0.0.1:{port}" if host.startswith("127.") and port else target


def _at_localhost(asker: "Asker", destination: bytes) -> None:
    from ebpf_lb.datapath.question import Client

    if asker.client is Client.NODE and destination in _LOOPBACK.values():
        asker.client = Client.LOCALHOST
        asker.address = destination


def _say_service(
    view: "View",
    found: Explanation,
    frontend: "Frontend",
    decided: "Decided",
    asker: "Asker",
    cluster: Cluster,
    with_echo: bool,
    ways: "Ways | None",
) -> None:
    from ebpf_lb.cli.explain import rewrites, steps
    from ebpf_lb.cli.explain.beyond import say_beyond
    from ebpf_lb.cli.explain.endpoints import say_connections, say_endpoints
    from ebpf_lb.cli.explain.explanation import Step
    from ebpf_lb.cli.node_status import Ways
    from ebpf_lb.datapath.reader.services import service_ports

    ways, decision = ways or Ways(), decided.decision
    steps.say_frontend(found, frontend)
    if decision.backend is not None:
        found.backend = format_endpoint(decision.backend, decision.backend_port)
    steps.say_policy(view, found, frontend, asker)
    steps.say_source_ranges(view, found, frontend, asker)
    local = steps.takes_local_set(frontend, asker.client.value)
    for port in service_ports(view):
        if port.id == frontend.service_id:
            listed = say_endpoints(view, found, port, local, cluster)
            say_connections(found)
            steps.say_choice(view, found, port, decision, asker)
            say_beyond(view, found, listed, asker, port.protocol, ways, with_echo=with_echo)
    if not found.candidates:
        found.there.append(Step("endpoints", "No endpoint may be chosen.", ("VE-1",)))
    if decision.backend is not None:
        if decided.journey is not None:
            rewrites.say_journey(found, decided.journey, decision, asker, frontend)
        else:
            route = route_to(decision.backend)
            rewrites.say_rewrites(view, found, decision, asker, route, frontend)
