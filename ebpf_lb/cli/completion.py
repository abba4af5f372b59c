"""`ebpf-lb completion`: what a shell must run so that names complete."""

import click
from click.shell_completion import get_completion_class

_HOW = {
    "bash": '# in ~/.bashrc:  eval "$(ebpf-lb completion bash)"',
    "zsh": '# in ~/.zshrc, after compinit:  eval "$(ebpf-lb completion zsh)"',
    "fish": "# ebpf-lb completion fish > ~/.config/fish/completions/ebpf-lb.fish",
}

# click's own takes words as bash cuts them, at colons too, and Services' names and addresses have
# these: bash wants what follows the last colon, and we want the whole word.
_BASH = """\
_ebpf_lb_completion() {
    local IFS=$'\\n' line=${COMP_LINE:0:COMP_POINT} word prefix="" kind value answer number
    word=${line##*[[:space:]]}
    local -a words
    IFS=$' \\t\\n' read -r -a words <<< "$line"
    number=${#words[@]}
    [[ -n $word ]] && number=$((number - 1))
    [[ $COMP_WORDBREAKS == *=* ]] && word=${word##*=}
    [[ $COMP_WORDBREAKS == *:* && $word == *:* ]] && prefix=${word%:*}:
    answer=$(COMP_WORDS=$line COMP_CWORD=$number _EBPF_LB_COMPLETE=bash_complete "$1" 2>/dev/null)
    COMPREPLY=()
    while IFS=',' read -r kind value; do
        case $kind in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            plain) COMPREPLY+=("${value#"$prefix"}") ;;
        esac
    done <<< "$answer"
    # an address or a port may follow what ends so
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *: ]] && compopt -o nospace
    return 0
}
complete -o nosort -F _ebpf_lb_completion ebpf-lb"""


@click.command()
@click.argument("shell", type=click.Choice(sorted(_HOW)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands, Services, Pods, backends, maps, reasons and labs.

    Names are this node's: they are read from its maps, so they complete for root.
    """
    click.echo(_HOW[shell])
    if shell == "bash":
        click.echo(_BASH)
        return
    kind = get_completion_class(shell)
    assert kind is not None
    complete = kind(ctx.find_root().command, {}, "ebpf-lb", "_EBPF_LB_COMPLETE")
    click.echo(complete.source_template % complete.source_vars())
