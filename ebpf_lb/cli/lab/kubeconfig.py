"""`ebpf-lb lab kubeconfig`."""

import click

from ebpf_lb.cli.lab import names
from ebpf_lb.cli.lab.common import with_lab
from ebpf_lb.lab.cluster import Lab


@click.command()
@click.argument("node", required=False, shell_complete=names.nodes)
@with_lab
def kubeconfig(lab: Lab, node: str | None) -> None:
    """Print a kubeconfig for the lab's API server; it works inside the lab (`lab exec`)."""
    click.echo(lab.kubeconfig(node), nl=False)
