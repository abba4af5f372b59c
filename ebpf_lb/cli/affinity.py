"""`ebpf-lb affinity`: which client keeps to which backend."""

from pathlib import Path

import click

from ebpf_lb.cli import output
from ebpf_lb.cli.choice import (
    Place,
    client_option,
    families,
    family_option,
    is_service,
    must_know,
    service_option,
)
from ebpf_lb.cli.options import bpffs_option
from ebpf_lb.model.values import format_address


@click.command()
@service_option
@client_option
@output.output_option
@output.limit_option
@output.wide_option
@output.watch_option
@family_option
@bpffs_option
def affinity(
    service: str | None,
    client: Place | None,
    form: str,
    limit: int | None,
    wide: bool,
    watch: bool,
    family: str | None,
    bpffs: Path,
) -> None:
    """List the clients that keep to a backend (sessionAffinity: ClientIP)."""
    from ebpf_lb.datapath.reader import open_views
    from ebpf_lb.datapath.reader.services import affinities

    def show() -> None:
        views = open_views(bpffs, families(family))
        must_know(service, {one.service for view in views for one in view.names.values()})
        found = [
            one
            for view in views
            for one in affinities(view)
            if is_service(service, one.service) and (client is None or one.client in client.network)
        ]
        rows = found[: output.rows_wanted(limit, form)]
        if form == "json":
            content = [
                {
                    "client": format_address(one.client),
                    "service": one.service,
                    "backend": one.backend,
                    "ageSeconds": one.age_s,
                }
                for one in rows
            ]
            output.say(output.as_json({"affinity": content}))
        elif not rows:
            output.say("No client keeps to a backend.")
        else:
            lines = [
                [
                    format_address(one.client),
                    one.service or "-",
                    one.backend or "gone",
                    "-" if one.age_s is None else f"{one.age_s:.0f}s",
                ]
                for one in rows
            ]
            header = ["CLIENT", "SERVICE", "BACKEND", "LAST NEW CONNECTION"]
            output.say(
                output.table(header, lines, right=header[3:], wide=wide),
                output.more(len(rows), len(found)),
            )

    output.repeat(show, watch)
