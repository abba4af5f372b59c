"""`ebpf-lb maps`: what the kernel's maps hold, for people and for scripts."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ebpf_lb.cli import names as completion
from ebpf_lb.cli import output
from ebpf_lb.cli.choice import (
    Place,
    backend_option,
    client_option,
    families,
    family_option,
    is_service,
    must_know,
    service_option,
)
from ebpf_lb.cli.options import bpffs_option
from ebpf_lb.model.values import parse_address

if TYPE_CHECKING:
    from ebpf_lb.datapath.dump import Row
    from ebpf_lb.datapath.reader import View


@click.group()
def maps() -> None:
    """Show what the kernel's maps hold."""


@maps.command()
@click.argument("names", metavar="[MAP]...", nargs=-1, shell_complete=completion.maps)
@service_option
@backend_option
@client_option
@output.output_option
@output.limit_option
@output.wide_option
@family_option
@bpffs_option
def dump(
    names: tuple[str, ...],
    service: str | None,
    backend: Place | None,
    client: Place | None,
    form: str,
    limit: int | None,
    wide: bool,
    family: str | None,
    bpffs: Path,
) -> None:
    """Print the contents of the maps that are named. It only reads, and needs no running agent.

    Without a name it prints how full each map is; as JSON, it prints the contents of all maps but
    those of mere numbers (slots, ways, events, crc32c_shifts). With a filter, it prints the maps
    that have such a column.
    """
    from ebpf_lb.cli.rows import as_tables, overview
    from ebpf_lb.datapath.reader import open_views

    views = open_views(bpffs, families(family))
    known = views[0].layout.maps
    for name in names:
        if name not in known:
            raise click.BadParameter(
                f"there is no map {name!r}; there are {', '.join(known)}.", param_hint="MAP"
            )
    must_know(service, {one.service for view in views for one in view.names.values()})
    contents = _contents(views, names)
    wanted = {"service": service, "backend": backend, "client": client}
    if any(wanted.values()):
        contents = {
            where: {
                name: [row for row in rows if _matches(name, row, service, backend, client)]
                for name, rows in tables.items()
                if all(
                    _column(name, column) in row
                    for row in rows[:1]
                    for column, one in wanted.items()
                    if one
                )
            }
            for where, tables in contents.items()
        }
    rows = output.rows_wanted(limit, form)
    if form == "json":
        cut = {
            where: {name: found[:rows] for name, found in tables.items()}
            for where, tables in contents.items()
        }
        output.say(output.as_json(cut))
    elif names or any(wanted.values()):
        output.say(as_tables(contents, rows, wide))
    else:
        output.say(overview(contents), "`ebpf-lb maps dump MAP` shows what is in one of them.")


def _column(name: str, column: str) -> str:
    """Backends' own map calls them by their address."""
    return "address" if (name, column) == ("backends", "backend") else column


def _matches(
    name: str, row: "Row", service: str | None, backend: Place | None, client: Place | None
) -> bool:
    if not is_service(service, row.get("service")):
        return False
    for column, place in (("backend", backend), ("client", client)):
        if place is None:
            continue
        column = _column(name, column)
        port = row.get("port" if column == "address" else f"{column}_port")
        text = str(row.get(column) or "")
        if port is None and text:  # `address:port`
            text, _, number = text.rpartition(":")
            text, port = text.strip("[]"), int(number)
        if not text or not place.holds(parse_address(text), port or 0):
            return False
    return True


def _contents(views: "list[View]", names: tuple[str, ...]) -> "dict[str, dict[str, list[Row]]]":
    """Family, or `node` for what both share -> map -> rows."""
    from ebpf_lb.datapath.dump import dump as dump_map
    from ebpf_lb.datapath.dump import is_node_map, map_names

    contents: dict[str, dict[str, list[Row]]] = {}
    for view in views:
        wanted = names or map_names(view, all_of_them=False)
        for name in dict.fromkeys(wanted):
            shared = is_node_map(view, name)
            if shared and view is not views[0]:
                continue
            where = "node" if shared else view.family.directory
            contents.setdefault(where, {})[name] = dump_map(view, name)
    return contents
