"""`ebpf-lb lab down`."""

import click

from ebpf_lb.cli.lab.common import with_lab
from ebpf_lb.lab.cluster import Lab


@click.command()
@with_lab
def down(lab: Lab) -> None:
    """Remove a lab and everything in it; also one that was built only half."""
    lab.down()
