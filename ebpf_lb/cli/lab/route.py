"""`ebpf-lb lab route`."""

import ipaddress

import click

from ebpf_lb.cli.lab import names
from ebpf_lb.cli.lab.common import with_lab
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.objects.text import align


@click.command()
@click.argument("address", required=False)
@click.argument("node", metavar="[nodeN|auto]", required=False, shell_complete=names.nodes)
@with_lab
def route(lab: Lab, address: str | None, node: str | None) -> None:
    """Show or pin the router's ways to LoadBalancers' addresses and externalIPs.

    Without arguments, all ways. The router spreads connections over the nodes that are eligible;
    with a node, everything for ADDRESS goes to that one, whether it is eligible or not, until
    `auto` gives the choice back.
    """
    if address is None:
        routes = lab.routes()
        if not routes:
            click.echo("No Service has an external address.", err=True)
            return
    else:
        if node is None:
            raise click.UsageError("say where to: lab route ADDRESS nodeN (or auto)")
        try:
            address = str(ipaddress.ip_address(address))
        except ValueError:
            raise click.BadParameter(
                f"{address!r} is not an IP address", param_hint="ADDRESS"
            ) from None
        routes = {address: lab.route(address, None if node == "auto" else node)[address]}
    rows = [
        [address, ", ".join(way["nodes"]) or "nowhere", "pinned" if way["pinned"] else "by flow"]
        for address, way in routes.items()
    ]
    click.echo(align(["ADDRESS", "NODES", "CHOICE"], rows))
