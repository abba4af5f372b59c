"""`ebpf-lb doctor`: one line for each look, with the remedy."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ebpf_lb.cli.agent_options import agent_options, resolve
from ebpf_lb.cli.doctor.finding import Finding, Sign
from ebpf_lb.cli.output import as_json, output_option, wrapped

if TYPE_CHECKING:
    from ebpf_lb.agent.config import Config

_SIGNS = {Sign.GOOD: ("✓", "green"), Sign.REMARK: ("!", "yellow"), Sign.BAD: ("✗", "red")}


@click.command()
@agent_options
@output_option
@click.pass_context
def doctor(ctx: click.Context, /, form: str, **said: Any) -> None:
    """Check whether a node is fit for ebpf-lb, and who serves it: before, during and after.

    Changes nothing. Takes the agent's options and files. Exit status: 1 if anything is bad.
    """
    found = list(_look(resolve(said).config))
    well = not any(one.sign is Sign.BAD for one in found)
    if form == "json":
        rows = [
            {"sign": one.sign.value, "what": one.what, "finding": one.sentence}
            | ({"remedy": one.remedy} if one.remedy else {})
            for one in found
        ]
        click.echo(as_json({"well": well, "findings": rows}))
    else:
        for one in found:
            sign, colour = _SIGNS[one.sign]
            told = wrapped(f"{one.sentence}.", f"{sign} {one.what:14} ", " " * 17)
            click.echo(click.style(sign, fg=colour) + told[len(sign) :])
            if one.remedy:
                click.echo(wrapped(one.remedy, f"{'':17}→ ", " " * 19))
    ctx.exit(0 if well else 1)


def _look(config: "Config") -> Iterator[Finding]:
    from ebpf_lb.cli.doctor import kernel, node

    yield from kernel.bpf()
    yield from kernel.places(config)
    host = node.Host()
    for check in node.CHECKS:
        yield from check(host)
    yield from kernel.rules()
    yield from kernel.interfaces(config)
    yield from kernel.clock()
    yield from kernel.state(config)
