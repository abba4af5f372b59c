"""`ebpf-lb lab up`."""

import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType

import click

from ebpf_lb.cli.lab.common import with_lab
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import (
    FAMILIES,
    HOST_ROUTINGS,
    NETWORKS,
    POD_NETWORKS,
    PROXIES,
    XDP_MODES,
    Options,
)
from ebpf_lb.lab.state import name_option

_DEFAULTS = Options()
_Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _option(name: str, kind: Sequence[str] | type, help: str) -> _Decorator:
    """One of `Options`' fields, with its default. `kind`: the words it may be, or a type."""
    field = name.replace("-", "_")
    return click.option(
        f"--{name}/--no-{name}" if kind is bool else f"--{name}",
        field,
        type=kind if isinstance(kind, type) else click.Choice(kind),
        default=getattr(_DEFAULTS, field),
        show_default=True,
        help=help,
    )


@click.command()
@_option("nodes", int, "How many nodes.")
@_option("family", FAMILIES, "IP families of nodes, pods and Services.")
@_option(
    "proxy",
    PROXIES,
    "What implements Services; none: nothing, so that another proxy can be started.",
)
@_option("network", NETWORKS, "How packets travel between nodes.")
@_option("pods", POD_NETWORKS, "How pods are connected to their node.")
@_option("clients", int, "How many machines outside the cluster.")
@_option("host-routing", HOST_ROUTINGS, "The agents' --host-routing.")
@_option(
    "xdp",
    XDP_MODES,
    "The agents' --xdp; auto uses none here, since nodes' uplinks are veths.",
)
@_option(
    "socket-hooks",
    bool,
    "Serve nodes' own processes at their sockets, or as on nodes without cgroup v2.",
)
@_option("dns", bool, "Cluster DNS in kube-system, by which pods resolve names.")
@_option("bridge-netfilter", bool, "Whether nftables sees what a node's bridge forwards.")
@_option(
    "hairpin-mode",
    bool,
    "Whether a bridge port sends back where a packet came from; kube-proxy needs it.",
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
