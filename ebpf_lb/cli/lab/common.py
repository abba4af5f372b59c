"""What the lab's commands share."""

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import click

from ebpf_lb.cli.lab import names
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
        shell_complete=names.labs,
        help="Which lab.",
    )
    @functools.wraps(command)
    def wrapped(*args: P.args, **options: P.kwargs) -> R:
        name = str(options.pop("lab_name"))
        return command(Lab(name), *args, **options)

    return wrapped
