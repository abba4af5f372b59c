"""`ebpf-lb cleanup`: as if it had never run here."""

import time
from pathlib import Path

import click

from ebpf_lb.cli.options import bpffs_option

_LOOK_S = 1.0
_SAY_S = 60.0


@click.command()
@bpffs_option
@click.option(
    "--cgroup",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    envvar="EBPF_LB_CGROUP",
    show_envvar=True,
    help="Look for links without a pin on this cgroup only.",
)
@click.option(
    "--drain",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="First leave new connections to the other proxy, and serve those that stand until they "
    "end, for so long at most; default: all end now.",
)
def cleanup(bpffs: Path, cgroup: Path | None, drain: float | None) -> None:
    """Remove every trace from this node: programs from interfaces and sockets, maps, pins,
    compiled programs.

    Connections through Services end, unless --drain lets them end by themselves; those that the
    node's own processes have opened go on. Stop the agent first: it would put back what it misses.
    Filters of others stay, and running it again does no harm.
    """
    from ebpf_lb.agent.host.process import be_the_only_one
    from ebpf_lb.datapath.cleanup import cleanup as remove

    with be_the_only_one(bpffs):
        if drain is not None:
            _drain(bpffs, drain)
        removed = remove(bpffs, cgroup)
    if removed:
        click.echo(
            f"Removed {removed.filters} filters, {removed.xdp} XDP programs, "
            f"{removed.links} cgroup links, {removed.pins} pins, {removed.compiled} compiled "
            "builds."
        )
    else:
        click.echo("Nothing to remove.")


def _drain(bpffs: Path, seconds: float) -> None:
    from ebpf_lb.datapath.drain import Drain
    from ebpf_lb.datapath.pins import Pins

    pins = Pins(bpffs)
    if not pins.current.path.exists():
        return
    drain = Drain(pins.current)
    drain.begin()
    deadline = time.monotonic() + seconds
    say_at = 0.0
    while left := drain.left():
        now = time.monotonic()
        if now >= deadline:
            click.echo(
                f"Of the connections {left} have not ended within {seconds:g} s, and end now."
            )
            return
        if now >= say_at:
            click.echo(f"Connections that stand and are served until they end: {left}.")
            say_at = now + _SAY_S
        time.sleep(min(_LOOK_S, deadline - now))
    click.echo("No connection stands any more.")
