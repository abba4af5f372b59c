"""The `ebpf-lb` command: finds subcommands without importing them, and turns errors into sentences.

Only the subcommand that runs is imported: `maps dump` is used in loops and over slow consoles, and
must not pay for the agent's libraries.
"""

import errno
import importlib.util
import os
from typing import Any, NamedTuple

import click

from ebpf_lb.errors import UserError


class Subcommand(NamedTuple):
    """Where a subcommand is, and its line in `ebpf-lb --help`, which imports none of them."""

    target: str
    help: str


SUBCOMMANDS = {
    "affinity": Subcommand(
        "ebpf_lb.cli.affinity:affinity", "List the clients that keep to a backend."
    ),
    "agent": Subcommand("ebpf_lb.cli.agent:agent", "Run on a node: watch the API, program eBPF."),
    "cleanup": Subcommand("ebpf_lb.cli.cleanup:cleanup", "Remove every trace from this node."),
    "backends": Subcommand(
        "ebpf_lb.cli.backends:backends", "List endpoints, and which of them answer."
    ),
    "bundle": Subcommand(
        "ebpf_lb.cli.bundle:bundle", "Write the node's whole state into one file."
    ),
    "completion": Subcommand(
        "ebpf_lb.cli.completion:completion", "Print a shell's completion script."
    ),
    "config": Subcommand("ebpf_lb.cli.config:config", "Show the agent's configuration."),
    "doctor": Subcommand(
        "ebpf_lb.cli.doctor.command:doctor", "Check whether a node is fit for ebpf-lb."
    ),
    "explain": Subcommand(
        "ebpf_lb.cli.explain.command:explain", "Say what happens to a new connection, and why."
    ),
    "flows": Subcommand("ebpf_lb.cli.flows:flows", "List the connections that are translated."),
    "lab": Subcommand("ebpf_lb.cli.lab:lab", "A cluster of network namespaces on this machine."),
    "maps": Subcommand("ebpf_lb.cli.maps:maps", "Show what the kernel's maps hold."),
    "monitor": Subcommand(
        "ebpf_lb.cli.monitor:monitor", "Show drops, refusals and new connections live."
    ),
    "reasons": Subcommand(
        "ebpf_lb.cli.reasons:reasons", "List why packets end as they do, and what to do."
    ),
    "services": Subcommand(
        "ebpf_lb.cli.services:services", "List the Services that this node forwards."
    ),
    "status": Subcommand("ebpf_lb.cli.status:status", "Tell whether this node is well."),
    "verify": Subcommand(
        "ebpf_lb.cli.verify:verify", "Compare the kernel with the API, entry by entry."
    ),
}


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(SUBCOMMANDS[name].target.partition(":")[0]) is not None


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Those that are installed: the agent's image has no lab."""
        return [name for name in sorted(SUBCOMMANDS) if _is_installed(name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS or not _is_installed(cmd_name):
            return None
        module, attribute = SUBCOMMANDS[cmd_name].target.split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, SUBCOMMANDS[name].help) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            # without rights, the kernel's "Operation not permitted" comes from wherever a command
            # first needs them; what helps is the same everywhere
            if error.errno in (errno.EPERM, errno.EACCES) and os.geteuid() != 0:
                command = f"{ctx.command_path} {ctx.invoked_subcommand}"
                raise click.ClickException(f"`{command}` needs root: run it with sudo.") from error
            raise


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ebpf-lb", prog_name="ebpf-lb")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Kubernetes Service load balancing in eBPF, in kube-proxy's place beside any CNI."""
    if os.environ.get("NO_COLOR"):  # https://no-color.org
        ctx.color = False
