"""`ebpf-lb lab agent`."""

import click

from ebpf_lb.cli.lab.common import with_lab
from ebpf_lb.lab.cluster import Lab


@click.command()
@click.argument("node")
@click.option("--stop", "action", flag_value="stop", help="Ask it to end (SIGTERM), and wait.")
@click.option("--kill", "action", flag_value="kill", help="End it as a crash would (SIGKILL).")
@click.option("--start", "action", flag_value="start", help="Start it, and wait until it serves.")
@click.option("--restart", "action", flag_value="restart", help="Stop it and start it.")
@with_lab
def agent(lab: Lab, node: str, action: str | None) -> None:
    """Stop, kill, start or restart a node's agent; without an option, say how it is."""
    if action in ("stop", "restart"):
        lab.stop_agent(node)
    elif action == "kill":
        lab.kill_agent(node)
    if action in ("start", "restart"):
        lab.start_agent(node)
        lab.wait_for_agents(only=node)
    if action is None:
        process = lab.agent_process(node)
        state = "does not run" if process is None else f"runs as process {process.pid}"
        health = ", healthy" if process and lab.agent_healthy(node) else ""
        click.echo(f"the agent on {node} {state}{health}")
