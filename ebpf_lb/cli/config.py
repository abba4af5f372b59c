"""`ebpf-lb config`: what the agent would run with."""

import json
from collections.abc import Iterator
from typing import Any

import click

from ebpf_lb.cli.agent_options import agent_options, resolve
from ebpf_lb.cli.output import as_json, columns


@click.group()
def config() -> None:
    """What the agent is told, and by whom."""


@config.command()
@agent_options
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="A configuration file with comments, or JSON for scripts.",
)
def show(form: str, **said: Any) -> None:
    """Print what is in force, and where each value comes from.

    Takes the agent's options and kube-proxy's flags; environment and file count as they do for the
    agent. What it prints is a configuration file that says the same.
    """
    from ebpf_lb.agent.config.shown import plain

    found = resolve(said)
    values = plain(found.config)
    if form == "json":
        origins = found.origins
        click.echo(as_json({"config": values, "origins": origins, "notes": found.warnings}))
        return
    for note in found.warnings:
        click.echo(f"# {note}")
    lines = list(_lines(values, found.origins))
    # in one column as far as the terminal has room for it
    room = columns() - 4 - max(len(origin) for _, origin in lines)
    width = max((len(text) for text, _ in lines if len(text) <= room), default=0)
    for text, origin in lines:
        if origin and len(text) + 4 + len(origin) > columns():
            click.echo(f"# {origin}:\n{text}")
        else:
            click.echo(f"{text:{width}}  # {origin}" if origin else text)


def _lines(values: dict[str, Any], origins: dict[str, str], above: str = "") -> Iterator[Any]:
    """Lines of YAML, with where they come from."""
    indent = "  " if above else ""
    for key, value in values.items():
        if isinstance(value, dict):
            yield f"{key}:", ""
            yield from _lines(value, origins, f"{key}.")
        else:
            origin = origins.get(f"{above}{key}", "default")
            yield f"{indent}{key}: {json.dumps(value)}", origin
