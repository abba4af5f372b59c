"""`ebpf-lb lab up`."""

import signal
import time
from types import FrameType

import click

from ebpf_lb.cli.lab.common import with_lab
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import FAMILIES, NETWORKS, POD_NETWORKS, PROXIES, XDP_MODES, Options
from ebpf_lb.lab.state import name_option


@click.command()
@click.option("--nodes", type=int, default=3, show_default=True, help="How many nodes.")
@click.option("--family", type=click.Choice(FAMILIES), default="dual", show_default=True)
@click.option(
    "--proxy",
    type=click.Choice(PROXIES),
    default="ebpf-lb",
    show_default=True,
    help="Who implements Services; none: nobody, so that another proxy can be started.",
)
@click.option(
    "--network",
    type=click.Choice(NETWORKS),
    default="routes",
    show_default=True,
    help="How packets travel between nodes.",
)
@click.option(
    "--pods",
    type=click.Choice(POD_NETWORKS),
    default="bridge",
    show_default=True,
    help="How pods hang on their node.",
)
@click.option("--clients", type=int, default=1, show_default=True, help="Machines outside.")
@click.option(
    "--xdp",
    type=click.Choice(XDP_MODES),
    default="off",
    show_default=True,
    help="The agents' --xdp; auto uses none here, since nodes' uplinks are veths.",
)
@click.option(
    "--socket-hooks/--no-socket-hooks",
    default=True,
    show_default=True,
    help="Serve nodes' own processes at their sockets, or as on nodes without cgroup v2.",
)
@click.option(
    "--bridge-netfilter/--no-bridge-netfilter",
    default=True,
    show_default=True,
    help="Whether nftables sees what a node's bridge forwards.",
)
@click.option(
    "--hairpin-mode/--no-hairpin-mode",
    default=False,
    show_default=True,
    help="Whether a bridge port sends back where a packet came from; kube-proxy needs it.",
)
@click.option("-f", "files", multiple=True, metavar="FILE", help="Manifests to apply at the end.")
@with_lab
def up(lab: Lab, /, files: tuple[str, ...], **options: object) -> None:
    """Build a lab: nodes, pod networks, API server, agents."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt  # whoever ends us: what is built is removed again

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    began = time.monotonic()

    def progress(text: str) -> None:
        click.echo(f"{time.monotonic() - began:5.1f} s  {text}")

    lab.up(Options(**options), files, progress)  # type: ignore[arg-type]
    progress(f"lab {lab.names.name!r} is up")
    name = name_option(lab.names.name)
    click.echo(f"Look at it with `ebpf-lb lab status{name}`; end it with `ebpf-lb lab down{name}`.")
