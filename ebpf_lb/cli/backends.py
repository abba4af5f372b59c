"""`ebpf-lb backends`: whom connections are sent to, and who of them answers."""

from pathlib import Path

import click

from ebpf_lb.cli import output
from ebpf_lb.cli.choice import (
    Place,
    backend_option,
    families,
    family_option,
    is_service,
    must_know,
    service_option,
)
from ebpf_lb.cli.options import bpffs_option
from ebpf_lb.cli.services import sets_of
from ebpf_lb.model.values import format_endpoint


@click.command()
@service_option
@backend_option
@click.option(
    "--unanswered", is_flag=True, help="Only those with connections that nobody has answered yet."
)
@output.output_option
@output.limit_option
@output.wide_option
@output.watch_option
@family_option
@bpffs_option
def backends(
    service: str | None,
    backend: Place | None,
    unanswered: bool,
    form: str,
    limit: int | None,
    wide: bool,
    watch: bool,
    family: str | None,
    bpffs: Path,
) -> None:
    """List the endpoints that connections are sent to, with their live connections.

    UNANSWERED counts those that have not heard from the pod yet: one endpoint that has many, among
    others that have none, is dead, or has the wrong port.
    """
    from ebpf_lb.datapath.reader import open_views
    from ebpf_lb.datapath.reader.summary import backend_summaries

    def show() -> None:
        views = open_views(bpffs, families(family))
        must_know(service, {one.service for view in views for one in view.names.values()})
        found = [
            one
            for view in views
            for one in backend_summaries(view)
            if is_service(service, one.backend.service)
            and (backend is None or backend.holds(one.backend.address, one.backend.port))
            and (one.unanswered or not unanswered)
        ]
        rows = found[: output.rows_wanted(limit, form)]
        if form == "json":
            content = [
                {
                    "backend": format_endpoint(one.backend.address, one.backend.port),
                    "service": one.backend.service,
                    "protocol": one.backend.protocol,
                    "onThisNode": "ON_NODE" in one.backend.flags,
                    "inClusterSet": "IN_CLUSTER_SET" in one.backend.flags,
                    "inLocalSet": "IN_LOCAL_SET" in one.backend.flags,
                    "answered": one.answered,
                    "unanswered": one.unanswered,
                    "connections": one.connections,
                }
                for one in rows
            ]
            output.say(output.as_json({"backends": content}))
            return
        if not rows:
            output.say("No such backends.")
            return
        header = ["BACKEND", "SERVICE", "RUNS", "CHOSEN BY", "ANSWERED", "UNANSWERED"]
        lines = [
            [
                format_endpoint(one.backend.address, one.backend.port),
                one.backend.service or "-",
                "here" if "ON_NODE" in one.backend.flags else "elsewhere",
                sets_of(one.backend.flags),
                f"{one.answered:,}",
                f"{one.unanswered:,}",
            ]
            for one in rows
        ]
        right = ["ANSWERED", "UNANSWERED"]
        output.say(
            output.table(header, lines, right=right, wide=wide),
            output.more(len(rows), len(found)),
        )

    output.repeat(show, watch)
