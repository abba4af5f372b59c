"""`ebpf-lb lab scenario list | show | run`."""

import os
from pathlib import Path

import click

from ebpf_lb.cli import names, output
from ebpf_lb.cli.lab.common import with_lab
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.objects.text import align
from ebpf_lb.lab.options import FAMILIES

_ALONE = Path("-")


@click.group()
def scenario() -> None:
    """Lessons: a real connection, captured at every hop, and its way drawn."""


@scenario.command("list")
def list_() -> None:
    """Name the scenarios."""
    from ebpf_lb.lessons.scenarios import catalog

    rows = [[name, catalog.load(name).title] for name in catalog.names()]
    click.echo(align(["NAME", "WHAT IT SHOWS"], rows))


@scenario.command()
@click.argument("name", shell_complete=names.scenarios)
def show(name: str) -> None:
    """Print a scenario's lesson and its manifests."""
    from ebpf_lb.lessons.scenarios import catalog, text

    found = catalog.load(name)
    click.echo(text.lesson(found))
    click.echo(f"\n{found.manifests.read_text().rstrip()}")


@scenario.command()
@click.argument(
    "wanted", metavar="NAME|FOLDER...", nargs=-1, required=True, shell_complete=names.scenarios
)
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path),
    metavar="FILE.svg|FILE.png",
    help="Also write the drawing to this file; `-`: write nothing else to standard output.",
)
@click.option("--family", type=click.Choice(FAMILIES[:2]), help="[default: the lab's first]")
@click.option("--keep", is_flag=True, help="Leave the namespace with the scenario's objects.")
@with_lab
def run(
    lab: Lab, wanted: tuple[str, ...], file: Path | None, family: str | None, keep: bool
) -> None:
    """Apply a scenario's manifests, connect, and draw the way that was captured.

    FOLDER is one of your own: manifests.yaml with its objects, and scenario.yaml with title,
    lesson, client, service, address and outcome. Several are drawn beside each other in one
    picture, such as cross-node-snat and etp-local. The exit status is 1 if a connection ended
    otherwise than its lesson says.
    """
    from ebpf_lb.lessons.scenarios import catalog, png, svg, text, way
    from ebpf_lb.lessons.scenarios import run as running

    chosen = [catalog.load(name) for name in wanted]
    if file is not None and file != _ALONE:
        if not os.access(file.parent, os.W_OK):
            raise click.BadParameter(f"nothing can be written into {file.parent}", param_hint="-o")
        if png.is_png(file):
            png.check()
    version = int(family.removeprefix("ipv")) if family else int(lab.options.families[0])

    def progress(sentence: str) -> None:
        click.echo(sentence, err=True)

    told: list[tuple[catalog.Scenario, list[way.Story]]] = []
    for found in chosen:
        with running.prepared(lab, found, keep, progress):
            stories = [way.tell(recording) for recording in running.record(lab, found, version)]
        told.append((found, stories))
        if file != _ALONE:
            click.echo("\n" if len(told) > 1 else "", nl=False)
            click.echo(text.render(found, stories, colour=output.has_colours()))
    if file is not None:
        if len(told) == 1:
            drawing = svg.render(told[0][0], *told[0][1])
        else:
            drawing = svg.render_beside([(found, stories[0]) for found, stories in told])
        if file == _ALONE:
            click.echo(drawing, nl=False)
        else:
            png.write(drawing, file)
            click.echo(f"\nDrawn in {file}.")
    for found, stories in told:
        ended = stories[0].connection.outcome
        if ended != found.outcome:
            raise click.ClickException(
                f"{found.name}: the connection was {ended}, but this lesson's should be "
                f"{found.outcome}"
            )
