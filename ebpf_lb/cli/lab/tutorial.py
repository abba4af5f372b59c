"""`ebpf-lb lab tutorial`."""

import sys
from pathlib import Path

import click

from ebpf_lb.cli.lab.common import with_lab
from ebpf_lb.lab.cluster import Lab


@click.command()
@click.argument("steps", metavar="[STEP…]", nargs=-1)
@click.option("--list", "only_list", is_flag=True, help="Name the steps and do nothing.")
@click.option(
    "--pages",
    type=click.Path(file_okay=False, exists=True, writable=True, path_type=Path),
    metavar="FOLDER",
    help="Also write a page of each step, with its drawings.",
)
@with_lab
def tutorial(lab: Lab, steps: tuple[str, ...], only_list: bool, pages: Path | None) -> None:
    """Services from a Deployment on, step by step: each says what it shows, and shows it.

    STEP is a name or a number; without one, all are gone through. The exit status is 1 if something
    else is seen than the step is about.
    """
    from ebpf_lb.lab.objects.text import align
    from ebpf_lb.lessons.tutorial import course

    if only_list:
        rows = [[str(n), step.name, step.title] for n, step in enumerate(course.STEPS, start=1)]
        click.echo(align(["", "STEP", "WHAT IT SHOWS"], rows))
        return
    chosen = [course.find(name) for name in steps] or course.STEPS
    took = [(step.name, course.run(lab, step, sys.stdout, pages=pages)) for step in chosen]
    if len(took) > 1:
        each = ", ".join(f"{name} {seconds:.1f}" for name, seconds in took)
        total = sum(seconds for _, seconds in took)
        click.echo(f"{len(took)} steps in {total:.1f} s: {each}")
