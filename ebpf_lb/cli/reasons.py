"""`ebpf-lb reasons`: why packets end as they do, and what can be done about it."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ebpf_lb.cli import names, output
from ebpf_lb.cli.options import bpffs_option
from ebpf_lb.model.values import Family

if TYPE_CHECKING:
    from ebpf_lb.datapath.layout import Reason

_COLOURS = {"forward": "green", "reject": "red", "drop": "red", "pass": "yellow"}


@click.command()
@click.argument("wanted", metavar="[REASON]...", nargs=-1, shell_complete=names.reasons)
@output.output_option
@bpffs_option
def reasons(wanted: tuple[str, ...], form: str, bpffs: Path) -> None:
    """List all reasons with what they mean, what to do, and how often each occurred here.

    Counters and events are named by them. Without a data path on this node nothing is counted.
    """
    from ebpf_lb.datapath.layout import load
    from ebpf_lb.datapath.reader import NothingPinned, open_views
    from ebpf_lb.datapath.reader.counters import reason_counts

    known = {one.name: one for one in load(Family.IPV4).reasons.values()}
    for name in wanted:
        if name.upper() not in known:
            raise click.BadParameter(
                f"there is no reason {name!r}; there are {', '.join(known)}.", param_hint="REASON"
            )
    chosen = [known[name.upper()] for name in wanted] or list(known.values())
    counted: dict[int, int] | None
    try:
        counted = dict.fromkeys((one.number for one in known.values()), 0)
        for view in open_views(bpffs, list(Family)):
            for count in reason_counts(view):
                counted[count.number] = counted.get(count.number, 0) + count.packets
    except NothingPinned:
        counted = None
    if form == "json":
        content = [
            {
                "reason": one.name,
                "number": one.number,
                "verdict": one.verdict.value,
                "sentence": one.sentence,
                "remedy": one.remedy or None,
                "packets": counted[one.number] if counted is not None else None,
            }
            for one in chosen
        ]
        output.say(output.as_json({"reasons": content}))
        return
    for one in chosen:
        output.say(_told(one, None if counted is None else counted[one.number]))


def _told(reason: "Reason", packets: int | None) -> str:
    count = "" if packets is None or not reason.number else f"{packets:,} packets"
    head = f"{reason.name:<22} {reason.verdict.value:<8} {count}".rstrip()
    width = max(output.columns(), 40)
    lines = [click.style(head, fg=_COLOURS[reason.verdict], bold=bool(packets))]
    lines += textwrap.wrap(
        f"{reason.sentence[0].upper()}{reason.sentence[1:]}.",
        width,
        initial_indent="    ",
        subsequent_indent="    ",
    )
    if reason.remedy:
        lines += textwrap.wrap(
            f"What to do: {reason.remedy}.",
            width,
            initial_indent="    ",
            subsequent_indent="    ",
        )
    return "\n".join(lines)
