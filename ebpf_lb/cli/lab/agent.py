"""`ebpf-lb lab agent`."""

import click

from ebpf_lb.cli.lab import names
from ebpf_lb.cli.lab.common import with_lab
from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import XDP_MODES


@click.command()
@click.argument("node", shell_complete=names.nodes)
@click.option("--stop", "action", flag_value="stop", help="Ask it to end (SIGTERM), and wait.")
@click.option("--kill", "action", flag_value="kill", help="End it as a crash would (SIGKILL).")
@click.option("--start", "action", flag_value="start", help="Start it, and wait until it serves.")
@click.option("--restart", "action", flag_value="restart", help="Stop it and start it.")
@click.option(
    "--xdp", type=click.Choice(XDP_MODES), help="Start it with another --xdp than the lab's."
)
@with_lab
def agent(lab: Lab, node: str, action: str | None, xdp: str | None) -> None:
    """Stop, kill, start or restart a node's agent; without an option, say how it is."""
    if xdp and action not in ("start", "restart"):
        raise click.UsageError("--xdp goes with --start or --restart")
    if action in ("stop", "restart"):
        lab.stop_agent(node)
    elif action == "kill":
        lab.kill_agent(node)
    if action in ("start", "restart"):
        lab.start_agent(node, xdp)
        lab.wait_for_agents(only=node)
    if action is None:
        process = lab.agent_process(node)
        state = "does not run" if process is None else f"runs as process {process.pid}"
        health = ", healthy" if process and lab.agent_healthy(node) else ""
        click.echo(f"the agent on {node} {state}{health}")
