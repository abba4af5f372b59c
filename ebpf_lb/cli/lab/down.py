"""`ebpf-lb lab down`."""

import click

from ebpf_lb.cli.lab.common import with_lab
from ebpf_lb.lab.cluster import Lab, all_labs


@click.command()
@with_lab
def down(lab: Lab) -> None:
    """Remove a lab and everything in it, also if it was only partly built."""
    if not lab.exists:
        others = ", ".join(other.name for other in all_labs())
        click.echo(
            f"There is no lab {lab.name!r}, so there is nothing to take down"
            + (f"; there are {others}." if others else "."),
            err=True,
        )
    lab.down()
