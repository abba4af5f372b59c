"""`ebpf-lb status`: whether this node is well, on one screen."""

import errno
import os
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ebpf_lb.cli import output
from ebpf_lb.cli.options import address_option, bpffs_option

if TYPE_CHECKING:
    from ebpf_lb.cli.node_status import NodeStatus

WELL, UNWELL, CANNOT_TELL = 0, 1, 2

_SHOWN = 8  # interfaces, drops and problems each


@click.command()
@output.output_option
@output.watch_option
@address_option
@bpffs_option
@click.pass_context
def status(ctx: click.Context, form: str, watch: bool, agent: tuple[str, int], bpffs: Path) -> None:
    """Tell whether this node is well: programs, Services, maps, drops, and what is wrong.

    Exit status: 0 well, 1 unwell, 2 it cannot be told. Works while no agent runs.
    """
    from ebpf_lb.cli.node_status import look
    from ebpf_lb.errors import UserError

    code = CANNOT_TELL

    def show() -> None:
        nonlocal code
        try:
            found = look(bpffs, agent)
        except UserError as error:
            code = UNWELL if not bpffs.exists() or not (bpffs / "current").exists() else CANNOT_TELL
            _cannot(str(error), form, code)
            return
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES) and os.geteuid() != 0:
                raise
            code = CANNOT_TELL
            _cannot(f"The kernel does not tell: {error.strerror or error}.", form, code)
            return
        code = WELL if found.well else UNWELL
        if form == "json":
            output.say(output.as_json(_row(found)))
        else:
            output.say(_screen(found))

    try:
        output.repeat(show, watch)
    except OSError as error:
        raise _NoRights(ctx.command_path) from error
    ctx.exit(code)


class _NoRights(click.ClickException):
    exit_code = CANNOT_TELL

    def __init__(self, command: str) -> None:
        super().__init__(f"`{command}` needs root: run it with sudo.")


def _cannot(sentence: str, form: str, code: int) -> None:
    well = None if code == CANNOT_TELL else False
    if form == "json":
        output.say(output.as_json({"well": well, "problems": [sentence]}))
    else:
        output.say(sentence)


def _screen(found: "NodeStatus") -> str:
    word = click.style("well", fg="green") if found.well else click.style("unwell", fg="red")
    kernel = os.uname()
    lines = [
        f"This node is {word}.",
        f"  version     {version('ebpf-lb')}, {kernel.sysname} {kernel.release}, "
        f"build {found.build[:12]}",
        f"  agent       {_agent(found)}",
        *_watches(found),
        f"  Services    ports: {found.services:,}{_not_programmed(found)}",
        *textwrap.wrap(
            f"  sockets     {', '.join(found.socket_hooks) or 'no program: served at TC only'}",
            output.columns(),
            subsequent_indent=" " * 14,
        ),
    ]
    for title, sentences, colour in (
        ("Problems", found.problems, "red"),
        ("Remarks", found.remarks, "yellow"),
    ):
        if sentences:
            lines.append(click.style(f"{title}:", fg=colour))
            lines += _bullets(sentences)
    lines += ["Interfaces:", _interfaces(found)]
    lines += ["Maps, in use and room:", _maps(found)]
    lines += _drops(found)
    return "\n".join(lines)


def _agent(found: "NodeStatus") -> str:
    from ebpf_lb.cli.node_status import duration

    agent = found.agent
    if not agent.runs:
        return "does not run"
    if agent.status is None:
        return "runs, and does not answer"
    synced = f", last sync {duration(agent.last_sync_s)} ago" if agent.last_sync_s else ""
    state = "all is in the maps" if agent.status.get("complete") else "not complete"
    return f"runs, {state}{synced}"


def _watches(found: "NodeStatus") -> list[str]:
    """When each was last heard: bookmarks come every minute or so."""
    from ebpf_lb.cli.node_status import duration

    ages = (found.agent.status or {}).get("watches") or {}
    if not ages:
        return []
    told = [
        f"{name} {'not yet' if age is None else f'{duration(age)} ago'}"
        for name, age in ages.items()
    ]
    return textwrap.wrap(
        f"  heard of    {', '.join(told)}", output.columns(), subsequent_indent=" " * 14
    )


def _not_programmed(found: "NodeStatus") -> str:
    missing = len((found.agent.status or {}).get("notProgrammed", []))
    return f", {missing} not as they should be" if missing else ""


def _bullets(sentences: list[str]) -> list[str]:
    lines = []
    for sentence in sentences[:_SHOWN]:
        lines += textwrap.wrap(
            sentence, output.columns(), initial_indent="  - ", subsequent_indent="    "
        )
    if len(sentences) > _SHOWN:
        lines.append(f"  … and {len(sentences) - _SHOWN} more: -o json has them all")
    return lines


def _interfaces(found: "NodeStatus") -> str:
    if not found.hooks:
        return "  none is served"
    rows = [[one.name, one.way, ", ".join(one.programs) or "-"] for one in found.hooks[:_SHOWN]]
    text = output.table(["INTERFACE", "WAY", "PROGRAMS"], rows, indent="  ")
    if len(found.hooks) > _SHOWN:
        text += f"\n  … and {len(found.hooks) - _SHOWN} more: -o json has them all"
    return text


def _maps(found: "NodeStatus") -> str:
    names = list(dict.fromkeys(one.map for maps in found.levels.values() for one in maps))
    rows = []
    for name in names:
        row, room = [name], ""
        for maps in found.levels.values():
            level = next((one for one in maps if one.map == name), None)
            row.append(f"{level.used:,} ({level.share:.0%})" if level else "")
            room = f"{level.room:,}" if level else room
        rows.append([*row, room])
    header = ["MAP", *(family.upper() for family in found.levels), "ROOM"]
    return output.table(header, rows, right=header[1:], indent="  ")


def _drops(found: "NodeStatus") -> list[str]:
    recent = found.agent.status is not None and "dropsLastMinute" in found.agent.status
    span = "in the last minute" if recent else "since the maps were made"
    if not found.drops:
        return [f"Nothing was dropped or refused {span}."]
    rows = [
        [one["reason"], one["verdict"], one["service"] or "-", one["family"], f"{packets:,}"]
        for one, packets in ((_drop(ending), packets) for ending, packets in found.drops[:_SHOWN])
    ]
    header = ["REASON", "VERDICT", "SERVICE", "FAMILY", "PACKETS"]
    lines = [
        f"Dropped or refused {span}:",
        output.table(header, rows, right=["PACKETS"], indent="  "),
    ]
    if len(found.drops) > _SHOWN:
        lines.append(f"  … and {len(found.drops) - _SHOWN} more: -o json has them all")
    return lines


def _drop(ending: Any) -> dict[str, Any]:
    """An Ending of the reader's, or a row of the agent's."""
    if isinstance(ending, dict):
        return ending
    return {
        "family": ending.family,
        "reason": ending.reason.name,
        "verdict": ending.reason.verdict.value,
        "service": ending.service or None,
        "protocol": ending.protocol or None,
    }


def _row(found: "NodeStatus") -> dict[str, Any]:
    agent = found.agent
    return {
        "well": found.well,
        "problems": found.problems,
        "remarks": found.remarks,
        "version": version("ebpf-lb"),
        "kernel": os.uname().release,
        "build": found.build,
        "agent": {
            "runs": agent.runs,
            "lastSignOfLifeSecondsAgo": agent.silent_s,
            "lastSyncSecondsAgo": agent.last_sync_s,
            "watches": (agent.status or {}).get("watches"),
            "status": agent.status,
        },
        "servicePorts": found.services,
        "socketHooks": found.socket_hooks,
        "interfaces": [
            {"name": one.name, "way": one.way, "programs": list(one.programs)}
            for one in found.hooks
        ],
        "maps": {
            family: [{"map": one.map, "used": one.used, "room": one.room} for one in maps]
            for family, maps in found.levels.items()
        },
        "drops": [_drop(ending) | {"packets": packets} for ending, packets in found.drops],
    }
