"""How commands print: tables that fit the terminal, JSON for scripts, colours for eyes alone."""

import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

SCHEMA_VERSION = 1
"""Of all JSON that commands print: one more when a field changes its meaning or goes away."""

SCREEN = 20
"""Rows of a table that are shown unless somebody wants more."""

_GAP = "  "
_NARROWEST = (6, 16, 0)  # columns of texts, of addresses, of numbers are not cut to less
_ADDRESSES = ("CLIENT", "ASKED", "VIP", "BACKEND", "ADDRESS", "ANSWERS ON", "SNAT ADDRESS")
_NEVER = 2  # is such a column cut
_EXACT = 1 << 53  # beyond, readers of JSON round

F = TypeVar("F", bound=Callable[..., Any])


def output_option(command: F) -> F:
    """-o table|json."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="A table for people, or JSON for scripts.",
    )(command)


def limit_option(command: F) -> F:
    """--limit; 0: everything."""
    return click.option(
        "--limit",
        type=click.IntRange(min=0),
        help=f"Rows to show; 0: all.  [default: {SCREEN} in a table, all in JSON]",
    )(command)


def wide_option(command: F) -> F:
    return click.option("--wide", is_flag=True, help="Cut nothing, however wide the table gets.")(
        command
    )


def watch_option(command: F) -> F:
    """-w: again and again."""
    return click.option("-w", "--watch", is_flag=True, help="Show it again every second.")(command)


def rows_wanted(limit: int | None, form: str) -> int | None:
    """How many rows; None for all."""
    if limit is None:
        return SCREEN if form == "table" else None
    return limit or None


def as_json(content: Mapping[str, Any]) -> str:
    """With the schema's version; a number that readers would round is a text."""
    return json.dumps({"schemaVersion": SCHEMA_VERSION} | _exact(content), indent=2)


def _exact(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(key): _exact(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_exact(one) for one in content]
    if isinstance(content, int) and not isinstance(content, bool) and abs(content) > _EXACT:
        return str(content)
    return content


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    wide: bool = False,
    indent: str = "",
) -> str:
    """Columns as wide as needed, and no wider in all than the terminal: else texts are cut, and
    where that is not enough, the last columns are left out. Both is said.

    right: titles of columns with numbers.
    """
    left_out: list[str] = []
    while not wide and len(header) > 1 and not _can_fit(header, rows, right, indent):
        *header, last = header
        left_out.insert(0, last)
        rows = [row[:-1] for row in rows]
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    room = columns() - len(indent) - len(_GAP) * (len(header) - 1)
    cut = set() if wide else _narrow(widths, room, [_worth(title, right) for title in header])
    shown = []
    for number, line in enumerate(lines):
        cells = [
            _cell(text, width, title in right)
            for text, width, title in zip(line, widths, header, strict=True)
        ]
        text = indent + _GAP.join(cells).rstrip()
        shown.append(click.style(text, bold=True) if number == 0 else text)
    said = [f"{', '.join(header[column] for column in sorted(cut))} cut to fit"] if cut else []
    said += [f"no room for {', '.join(left_out)}"] if left_out else []
    if said:
        shown.append(
            click.style(wrapped(f"({'; '.join(said)}: --wide shows all)", indent), dim=True)
        )
    return "\n".join(shown)


def _can_fit(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str], indent: str
) -> bool:
    """If all is cut that may be."""
    least = 0
    for column, title in enumerate(header):
        widest = max(len(row[column]) for row in (header, *rows))
        worth = _worth(title, right)
        least += widest if worth == _NEVER else min(widest, _NARROWEST[worth])
    return least <= columns() - len(indent) - len(_GAP) * (len(header) - 1)


def wrapped(text: str, indent: str = "", following: str | None = None) -> str:
    """A sentence on as many lines as it takes; `following`: the indent of all but the first."""
    return textwrap.fill(
        text,
        columns(),
        initial_indent=indent,
        subsequent_indent=indent if following is None else following,
        break_on_hyphens=False,
    )


def _worth(title: str, right: Sequence[str]) -> int:
    """What is cut later."""
    return _NEVER if title in right else int(title in _ADDRESSES)


def _narrow(widths: list[int], room: int, worth: Sequence[int]) -> set[int]:
    """Takes from the widest columns of the least worth; which were cut."""
    cut: set[int] = set()
    for sacrificed in (0, 1):
        while sum(widths) > room:
            able = [
                column
                for column, width in enumerate(widths)
                if width > _NARROWEST[worth[column]] and worth[column] <= sacrificed
            ]
            if not able:
                break
            widest = max(able, key=lambda column: widths[column])
            widths[widest] -= 1
            cut.add(widest)
    return cut


def _cell(text: str, width: int, right: bool) -> str:
    if len(text) > width:
        # both ends tell one name, one address with its port, from another
        end = (width - 1) // 2
        text = text[: width - 1 - end] + "…" + text[len(text) - end :]
    return text.rjust(width) if right else text.ljust(width)


def columns() -> int:
    """Of the terminal; 80 where there is none."""
    return shutil.get_terminal_size().columns


def more(shown: int, total: int | None) -> str:
    """A line under a table that does not show everything; "" where it does."""
    if total is None:
        return click.style("(there are more: --limit 0 shows all)", dim=True)
    if total <= shown:
        return ""
    return click.style(f"({total - shown:,} more: --limit 0 shows all)", dim=True)


def say(*paragraphs: str) -> None:
    """Those that are not empty. click takes the colours out where no terminal is."""
    for text in paragraphs:
        if text:
            click.echo(text)


def has_colours() -> bool:
    """Where click does not see to it: whether standard output is to have any."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def repeat(show: Callable[[], None], watch: bool) -> None:
    """Once, or every second until interrupted."""
    while True:
        if watch and sys.stdout.isatty():
            click.clear()
        show()
        if not watch:
            return
        time.sleep(1)
        if not sys.stdout.isatty():
            click.echo()
