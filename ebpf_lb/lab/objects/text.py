"""The server's Tables as text, as kubectl prints them."""

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]


def render(table: Json, *, namespaces: bool, wide: bool) -> str:
    """An aligned table with a header. namespaces: with a column for them; wide: all columns."""
    shown = [
        index
        for index, column in enumerate(table["columnDefinitions"])
        if wide or not column["priority"]
    ]
    header = [table["columnDefinitions"][index]["name"].upper() for index in shown]
    rows = [[row["cells"][index] for index in shown] for row in table["rows"]]
    if namespaces:
        header.insert(0, "NAMESPACE")
        for cells, row in zip(rows, table["rows"], strict=True):
            cells.insert(0, row["object"]["metadata"]["namespace"])
    return align(header, rows)


def align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, three spaces between them."""
    lines = [header, *rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
