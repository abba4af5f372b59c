"""`ebpf-lb lab`: one file a command."""

import click

from ebpf_lb.cli.lab.agent import agent
from ebpf_lb.cli.lab.down import down
from ebpf_lb.cli.lab.exec import exec_
from ebpf_lb.cli.lab.kubeconfig import kubeconfig
from ebpf_lb.cli.lab.list import list_
from ebpf_lb.cli.lab.objects import COMMANDS
from ebpf_lb.cli.lab.route import route
from ebpf_lb.cli.lab.scenario import scenario
from ebpf_lb.cli.lab.status import status
from ebpf_lb.cli.lab.tutorial import tutorial
from ebpf_lb.cli.lab.up import up
from ebpf_lb.cli.lab.web import web


@click.group()
def lab() -> None:
    """A cluster of network namespaces on this machine.

    Every command takes --name (or EBPF_LB_LAB), so that several labs can run side by side.
    """


for command in (
    up,
    down,
    list_,
    exec_,
    status,
    agent,
    route,
    scenario,
    tutorial,
    web,
    kubeconfig,
    *COMMANDS,
):
    lab.add_command(command)
