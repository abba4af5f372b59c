"""What the lab's commands share."""

import functools
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec, TypeVar

import click

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import DEFAULT_NAME

P = ParamSpec("P")
R = TypeVar("R")


def with_lab(command: Callable[Concatenate[Lab, P], R]) -> Callable[P, R]:
    """Adds --name; the command gets that Lab as its first argument."""

    @click.option(
        "--name",
        "lab_name",
        default=DEFAULT_NAME,
        envvar="EBPF_LB_LAB",
        show_default=True,
        show_envvar=True,
        help="Which lab.",
    )
    @functools.wraps(command)
    def wrapped(*args: P.args, **options: P.kwargs) -> R:
        name = str(options.pop("lab_name"))
        return command(Lab(name), *args, **options)

    return wrapped


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as needed, as kubectl prints them."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
