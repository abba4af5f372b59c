"""`ebpf-lb lab scenario list | show | run`."""

import os
import sys
from pathlib import Path

import click

from ebpf_lb.cli.lab.common import with_lab
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.objects.text import align
from ebpf_lb.lab.options import FAMILIES


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
@click.argument("name")
def show(name: str) -> None:
    """Print a scenario's lesson and its manifests."""
    from ebpf_lb.lessons.scenarios import catalog, text

    found = catalog.load(name)
    click.echo(text.lesson(found))
    click.echo(f"\n{found.manifests.read_text().rstrip()}")


@scenario.command()
@click.argument("name", metavar="NAME|FOLDER")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path),
    metavar="FILE.svg",
    help="Also write the drawing to this file; `-`: write nothing else to standard output.",
)
@click.option("--family", type=click.Choice(FAMILIES[:2]), help="[default: the lab's first]")
@click.option("--keep", is_flag=True, help="Leave the namespace with the scenario's objects.")
@with_lab
def run(lab: Lab, name: str, output: Path | None, family: str | None, keep: bool) -> None:
    """Apply a scenario's manifests, connect, and draw the way that was captured.

    FOLDER is one of your own: manifests.yaml with its objects, and scenario.yaml with title,
    lesson, client, service, address and outcome. The exit status is 1 if the connection ended
    otherwise than the lesson says.
    """
    from ebpf_lb.lessons.scenarios import catalog, svg, text, way
    from ebpf_lb.lessons.scenarios import run as running

    found = catalog.load(name)
    alone = output == Path("-")
    if output is not None and not alone and not os.access(output.parent, os.W_OK):
        raise click.BadParameter(f"nothing can be written into {output.parent}", param_hint="-o")
    version = int(family.removeprefix("ipv")) if family else int(lab.options.families[0])

    def progress(sentence: str) -> None:
        click.echo(sentence, err=True)

    with running.prepared(lab, found, keep, progress):
        stories = [way.tell(recording) for recording in running.record(lab, found, version)]
    if alone:
        click.echo(svg.render(found, stories[0]), nl=False)
    else:
        click.echo(text.render(found, stories, colour=sys.stdout.isatty()))
    if output is not None and not alone:
        output.write_text(svg.render(found, stories[0]))
        click.echo(f"\nDrawn in {output}.")
    ended = stories[0].connection.outcome
    if ended != found.outcome:
        raise click.ClickException(
            f"the connection was {ended}, but this lesson's should be {found.outcome}"
        )
