"""`ebpf-lb cleanup`: as if it had never run here."""

from pathlib import Path

import click

from ebpf_lb.cli.options import bpffs_option


@click.command()
@bpffs_option
@click.option(
    "--cgroup",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    envvar="EBPF_LB_CGROUP",
    show_envvar=True,
    help="Look for links without a pin on this cgroup only.",
)
def cleanup(bpffs: Path, cgroup: Path | None) -> None:
    """Remove every trace from this node: programs from interfaces and sockets, maps, pins,
    compiled programs.

    Connections through Services end. Stop the agent first: it would put back what it misses.
    Filters of others stay, and running it again does no harm.
    """
    from ebpf_lb.agent.host.process import be_the_only_one
    from ebpf_lb.datapath.cleanup import cleanup as remove

    with be_the_only_one(bpffs):
        removed = remove(bpffs, cgroup)
    if removed:
        click.echo(
            f"Removed {removed.filters} filters, {removed.xdp} XDP programs, "
            f"{removed.links} cgroup links, {removed.pins} pins, {removed.compiled} compiled "
            "builds."
        )
    else:
        click.echo("Nothing to remove.")
