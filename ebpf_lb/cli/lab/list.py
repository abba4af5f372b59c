"""`ebpf-lb lab list`."""

import click

from ebpf_lb.errors import UserError
from ebpf_lb.lab.cluster import Lab, all_labs
from ebpf_lb.lab.objects.text import align
from ebpf_lb.lab.state import StrangeStateError


@click.command("list")
def list_() -> None:
    """Name the labs on this machine."""
    labs = all_labs()
    if not labs:
        click.echo("There is no lab: `ebpf-lb lab up` starts one.", err=True)
        return
    header = ["NAME", "STATE", "NODES", "FAMILY", "NETWORK", "PROXY", "MADE BY"]
    click.echo(align(header, [_row(lab) for lab in labs]))


def _row(lab: Lab) -> list[str]:
    try:
        options = lab.options
    except StrangeStateError:
        return [lab.name, "another version's", "", "", "", "", ""]
    except UserError:
        return [lab.name, "half-built", "", "", "", "", ""]
    state = "up" if lab.running else "half-built"
    shown = [str(options.nodes), options.family, options.network, options.proxy]
    return [lab.name, state, *shown, lab.made_by or "hand"]
