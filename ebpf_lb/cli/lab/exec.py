"""`ebpf-lb lab exec`."""

import os
import sys

import click

from ebpf_lb.cli.lab import names
from ebpf_lb.cli.lab.common import with_lab
from ebpf_lb.lab.cluster import Lab


@click.command(
    "exec",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("host", shell_complete=names.hosts)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@with_lab
def exec_(lab: Lab, host: str, command: tuple[str, ...]) -> None:
    """Run a command on a host: client, nodeN, router, control, a pod's name, or NAMESPACE/POD.

    The command replaces this process, so exit status, input and output are the command's own.
    """
    place = lab.place(host)
    # `lab exec HOST -- CMD`: click drops the first "--" only in front of everything
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise click.UsageError("what to run is missing: ebpf-lb lab exec HOST -- CMD…")
    place.enter()
    sys.stdout.flush()
    try:
        os.execvpe(words[0], words, place.full_environment())
    except FileNotFoundError:
        click.echo(f"Error: there is no command {words[0]!r}", err=True)
        raise SystemExit(127) from None
    except PermissionError:
        click.echo(f"Error: {words[0]!r} cannot be executed", err=True)
        raise SystemExit(126) from None
