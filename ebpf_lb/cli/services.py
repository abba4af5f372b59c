"""`ebpf-lb services`: what this node serves, and how."""

import textwrap
from typing import TYPE_CHECKING, Any

import click

from ebpf_lb.cli import names, output
from ebpf_lb.cli.backends import COUNTED, counted, sets_of
from ebpf_lb.cli.choice import is_service
from ebpf_lb.cli.cluster import Cluster, api_options
from ebpf_lb.cli.listing import Listing, listing_options
from ebpf_lb.model.values import Protocol, format_address, format_endpoint

if TYPE_CHECKING:
    from ebpf_lb.cli.left_out import LeftOut
    from ebpf_lb.datapath.reader.services import Frontend, SourceRange
    from ebpf_lb.datapath.reader.summary import ServiceSummary


@click.command()
@click.argument(
    "name", metavar="[[NAMESPACE/]NAME[:PORT]]", required=False, shell_complete=names.services
)
@api_options
@listing_options
def services(name: str | None, kubeconfig: str | None, no_api: bool, listing: Listing) -> None:
    """List the Services that this node forwards; with a NAME, tell all about one.

    Reads the maps, and needs no running agent. With a NAME the API server is asked, where it can
    be, for endpoints that are left out.
    """
    from ebpf_lb.datapath.reader.summary import summaries

    cluster = Cluster(kubeconfig, wanted=name is not None and not no_api)

    def show() -> None:
        found = [
            one
            for view in listing.views(name)
            for one in summaries(view)
            if is_service(name, one.port.service)
        ]
        found.sort(key=lambda one: (one.port.service, one.port.protocol, one.family))
        if name is not None and listing.form == "table":
            output.say("\n\n".join(_whole(one, listing.wide, cluster) for one in found))
            return
        listing.tell(
            "services",
            found,
            lambda one: _row(one, cluster),
            ["SERVICE", "PROTOCOL", "ADDRESS", "USABLE", "LOCAL", "CONNECTIONS", "REFUSED"],
            _line,
            right=["USABLE", "LOCAL", "CONNECTIONS", "REFUSED"],
            nothing="No Services are served on this node.",
        )

    listing.repeat(show)


_SPREAD = {
    "rr": "Connections are spread in turn (algorithm rr).",
    "lc": "A connection goes to the backend with the fewest, for its weight (algorithm lc).",
    "sh": "Connections of one address go to one backend (algorithm sh).",
    "maglev": "Connections are spread by consistent hashing (algorithm maglev).",
}


def _line(one: "ServiceSummary") -> list[str]:
    return [
        one.port.service,
        one.port.protocol,
        _first(one.frontends),
        _usable(one),
        str(len(one.port.local)) if one.port.local else "-",
        f"{one.counted.connections:,}" if one.counted else "0",
        f"{sum(drop.packets for drop in one.drops):,}",
    ]


def _first(frontends: "list[Frontend]") -> str:
    if not frontends:
        return "-"
    order = ("CLUSTER_IP", "LOAD_BALANCER", "EXTERNAL_IP", "NODE_PORT")
    best = min(frontends, key=lambda one: order.index(one.kind) if one.kind in order else 9)
    others = len({(one.address, one.port) for one in frontends}) - 1
    return format_endpoint(best.address, best.port) + (f" +{others}" if others else "")


def _usable(one: "ServiceSummary") -> str:
    """Endpoints that new connections may choose; where there are none, what becomes of them."""
    if not one.port.has_any:
        return "none: refused"
    return str(len(one.port.cluster)) if one.port.cluster else "-"


def _whole(one: "ServiceSummary", wide: bool, cluster: Cluster) -> str:
    port = one.port
    paragraphs = [
        click.style(
            output.wrapped(f"{port.service} {port.protocol}, {one.family.directory}"), bold=True
        ),
        _answers_on(one, wide),
        _endpoints(one, wide),
        *(
            _wrapped(f"Left out: {out.address}: {out.why} [{out.rule}].")
            for out in _left_out(one, cluster)
        ),
    ]
    if cluster.problem:
        paragraphs.append(
            _wrapped(
                "Endpoints that were never usable are in no map, and the API server was not asked: "
                f"{cluster.problem}."
            )
        )
    if not port.has_any:
        paragraphs.append(
            click.style("  No endpoint is usable: every connection is refused.", fg="red")
        )
    if port.affinity_timeout_s:
        paragraphs.append(
            _wrapped(
                f"A client keeps to its backend for {port.affinity_timeout_s} s after its last "
                "new connection."
            )
        )
    if port.algorithm != "random":
        paragraphs.append(_wrapped(_SPREAD[port.algorithm]))
    if one.source_ranges:
        shown = ", ".join(
            f"{format_address(r.address)}/{r.prefix_length}" for r in one.source_ranges
        )
        paragraphs.append(_wrapped(f"Load balancer addresses answer only to {shown}."))
    if one.counted:
        paragraphs.append(
            _wrapped(
                f"Since the maps were made: {one.counted.connections:,} connections, "
                f"{one.counted.packets:,} packets, {one.counted.bytes:,} bytes."
            )
        )
    for drop in one.drops:
        reason = drop.reason
        counted = f"{reason.verdict}: {drop.packets:,} packets, {reason.name}"
        told = _wrapped(f"{counted}: {reason.sentence}.")
        paragraphs.append(told.replace(counted, click.style(counted, fg="yellow"), 1))
        if reason.remedy:
            paragraphs.append(output.wrapped(f"What to do: {reason.remedy}.", "    "))
    return "\n".join(paragraphs)


def _wrapped(sentence: str) -> str:
    lines = textwrap.wrap(sentence, output.columns(), initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)


def _answers_on(one: "ServiceSummary", wide: bool) -> str:
    rows = [
        [
            format_endpoint(frontend.address, frontend.port),
            frontend.kind.replace("_", " ").title().replace("Ip", "IP"),
            _policy(one, frontend),
        ]
        for frontend in one.frontends
    ]
    if not rows:
        return "  It has no address on this node."
    return output.table(["ANSWERS ON", "AS", "POLICY"], rows, indent="  ", wide=wide)


def _policy(one: "ServiceSummary", frontend: "Frontend") -> str:
    if "LOCAL" not in frontend.flags:
        return "Cluster" + (", source ranges" if "SOURCE_RANGES" in frontend.flags else "")
    text = "Local" if one.port.local else "Local: no endpoint here, so dropped"
    return text + (", source ranges" if "SOURCE_RANGES" in frontend.flags else "")


def _endpoints(one: "ServiceSummary", wide: bool) -> str:
    rows = [
        [
            format_endpoint(summary.backend.address, summary.backend.port),
            "here" if "ON_NODE" in summary.backend.flags else "elsewhere",
            sets_of(summary.backend.flags),
            *counted(summary),
        ]
        for summary in one.backends
    ]
    if not rows:
        return "  It has no endpoint."
    return output.table(
        ["BACKEND", "RUNS", "CHOSEN BY", *COUNTED],
        rows,
        right=COUNTED,
        indent="  ",
        wide=wide,
    )


def _network(one: "SourceRange") -> str:
    return f"{format_address(one.address)}/{one.prefix_length}"


def _left_out(one: "ServiceSummary", cluster: Cluster) -> "list[LeftOut]":
    """By the policies that the Service's frontends have; of the API server where it can be asked,
    else of the maps."""
    from ebpf_lb.cli.left_out import Endpoints, LeftOut

    known = Endpoints.ask(cluster, one.port.service, Protocol[one.port.protocol], one.family)
    local = bool(one.frontends) and all("LOCAL" in front.flags for front in one.frontends)
    if known is not None:
        return list(known.left_out(local=local))
    return [
        LeftOut(
            format_endpoint(summary.backend.address, summary.backend.port),
            "no longer usable; it keeps the connections that it has",
            "EP-11",
        )
        for summary in one.backends
        if not {"IN_CLUSTER_SET", "IN_LOCAL_SET"} & set(summary.backend.flags)
    ]


def _row(one: "ServiceSummary", cluster: Cluster) -> dict[str, Any]:
    backends = {summary.backend.id: summary for summary in one.backends}

    def endpoints(ids: dict[int, int]) -> list[str]:
        return [
            format_endpoint(backends[number].backend.address, backends[number].backend.port)
            for number in ids
            if number in backends
        ]

    return {
        "service": one.port.service,
        "protocol": one.port.protocol,
        "family": one.family.directory,
        "frontends": [
            {
                "address": format_address(frontend.address),
                "port": frontend.port,
                "kind": frontend.kind,
                "policy": "Local" if "LOCAL" in frontend.flags else "Cluster",
                "sourceRanges": "SOURCE_RANGES" in frontend.flags,
            }
            for frontend in one.frontends
        ],
        "algorithm": one.port.algorithm,
        "hasAnyEndpoint": one.port.has_any,
        "cluster": endpoints(one.port.cluster),
        "local": endpoints(one.port.local),
        "leftOut": [out._asdict() for out in _left_out(one, cluster)],
        "affinityTimeoutSeconds": one.port.affinity_timeout_s,
        "sourceRanges": [_network(r) for r in one.source_ranges],
        "backends": [
            {
                "backend": format_endpoint(summary.backend.address, summary.backend.port),
                "onThisNode": "ON_NODE" in summary.backend.flags,
                "answered": summary.answered,
                "unanswered": summary.unanswered,
                "refused": summary.refused,
            }
            for summary in one.backends
        ],
        "connections": one.counted.connections if one.counted else 0,
        "packets": one.counted.packets if one.counted else 0,
        "bytes": one.counted.bytes if one.counted else 0,
        "drops": [
            {"reason": d.reason.name, "verdict": d.reason.verdict.value, "packets": d.packets}
            for d in one.drops
        ],
    }
