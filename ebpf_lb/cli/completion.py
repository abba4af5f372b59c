"""`ebpf-lb completion`: what a shell must run so that names complete."""

import click
from click.shell_completion import get_completion_class

_HOW = {
    "bash": '# in ~/.bashrc:  eval "$(ebpf-lb completion bash)"',
    "zsh": '# in ~/.zshrc, after compinit:  eval "$(ebpf-lb completion zsh)"',
    "fish": "# ebpf-lb completion fish > ~/.config/fish/completions/ebpf-lb.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(sorted(_HOW)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands, Services, backends, maps and reasons.

    Names are this node's: they are read from its maps, so they complete for root.
    """
    root = ctx.find_root().command
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(_HOW[shell])
    # what click makes asks bash for its version first, by running it
    click.echo(_script(kind(root, {}, "ebpf-lb", "_EBPF_LB_COMPLETE")))


def _script(complete: click.shell_completion.ShellComplete) -> str:
    return complete.source_template % complete.source_vars()
