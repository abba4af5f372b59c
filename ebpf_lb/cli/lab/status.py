"""`ebpf-lb lab status`."""

import json
from typing import Any

import click

from ebpf_lb.cli.lab.common import with_lab
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.objects.text import align


def _agent(node: dict[str, Any]) -> str:
    """`healthy, native XDP on eth0`."""
    ways = (("no" if mode == "tc" else mode, name) for name, mode in node["xdp"].items())
    return ", ".join([node["agent"], *(f"{way} XDP on {name}" for way, name in ways)])


@click.command()
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table")
@with_lab
def status(lab: Lab, output: str) -> None:
    """Show nodes, pods, Services and their health.

    The exit status is 1 if something is not well; what it is, and in which log more is said, stands
    at the end.
    """
    found = lab.status()
    if output == "json":
        click.echo(json.dumps(found, indent=2))
    else:
        _print(found)
    if problems := found["problems"]:
        for one in problems:
            click.echo(f"Not well: {one['problem']}; see {one['log']}", err=True)
        raise SystemExit(1)


def _print(found: dict[str, Any]) -> None:
    click.echo(
        f"lab {found['name']}: " + ", ".join(f"{k} {v}" for k, v in found["options"].items())
    )
    click.echo("client  " + ", ".join(found["clients"]["client1"]))
    click.echo(f"API server  {found['api_server']['url']}  {found['api_server']['health']}")
    click.echo(f"kubelet  {found['kubelet']}")
    click.echo(f"cloud  {found['cloud']}\n")
    click.echo(
        align(
            ["NODE", "ADDRESSES", "PODS' NETWORKS", "ZONE", "AGENT"],
            [
                [
                    node["name"],
                    ", ".join(node["addresses"]),
                    ", ".join(node["pod_cidrs"]),
                    node["zone"],
                    _agent(node),
                ]
                for node in found["nodes"]
            ],
        )
    )
    click.echo()
    click.echo(
        align(
            ["NAMESPACE", "POD", "NODE", "ADDRESSES", "STATE"],
            [
                [
                    pod["namespace"],
                    pod["name"],
                    pod["node"],
                    ", ".join(pod["addresses"]),
                    pod["state"],
                ]
                for pod in found["pods"]
            ],
        )
    )
    click.echo()
    click.echo(
        align(
            ["NAMESPACE", "SERVICE", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORTS", "ENDPOINTS"],
            [
                [
                    service["namespace"],
                    service["name"],
                    service["type"],
                    ", ".join(service["cluster_ips"]),
                    ", ".join(service["external_ips"]),
                    ", ".join(service["ports"]),
                    f"{service['ready_endpoints']} ready",
                ]
                for service in found["services"]
            ],
        )
    )
