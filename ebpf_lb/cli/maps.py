"""`ebpf-lb maps`: what the kernel's maps hold, for people and for scripts."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ebpf_lb.cli.options import bpffs_option
from ebpf_lb.model.values import Family

if TYPE_CHECKING:
    from ebpf_lb.datapath.dump import Row, View


@click.group()
def maps() -> None:
    """Show what the kernel's maps hold."""


@maps.command()
@click.argument("names", metavar="[MAP]...", nargs=-1)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@click.option("--family", type=click.Choice(["ipv4", "ipv6"]), help="Only this family's maps.")
@bpffs_option
def dump(names: tuple[str, ...], output: str, family: str | None, bpffs: Path) -> None:
    """Print the maps' contents: those named, or all but the ones of mere numbers (slots, ways,
    crc32c_shifts). Reads only, and needs no running agent."""
    from ebpf_lb.datapath.dump import as_json, as_table, open_views

    views = open_views(bpffs, [one for one in Family if family in (None, one.directory)])
    known = views[0].layout.maps
    for name in names:
        if name not in known:
            raise click.BadParameter(
                f"there is no map {name!r}; there are {', '.join(known)}.", param_hint="MAP"
            )
    render = as_json if output == "json" else as_table
    click.echo(render(_contents(views, names)))


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
