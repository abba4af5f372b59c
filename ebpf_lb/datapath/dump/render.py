"""Rows as aligned text, or as JSON."""

import json
from collections.abc import Mapping

from ebpf_lb.datapath.dump.decoders import Row

# what a person reads as one: column -> (address, port)
_ENDPOINTS = {
    "flows": {
        "client": "client_port",
        "vip": "vip_port",
        "backend": "backend_port",
        "snat_address": "snat_port",
    },
    "frontends": {"address": "port"},
    "backends": {"address": "port"},
    "sockets": {"vip": "vip_port", "backend": "backend_port"},
    "fragments": {"source": "source_port", "destination": "destination_port"},
}
_SHOWN = 8  # of a list, in a table
_ARROWS = {"flows": ("client", "vip", "backend"), "sockets": ("vip", "backend")}


def as_json(dumped: Mapping[str, Mapping[str, list[Row]]]) -> str:
    """`{family: {map: [row, …]}}`."""
    return json.dumps(dumped, indent=2)


def as_table(dumped: Mapping[str, Mapping[str, list[Row]]]) -> str:
    """One paragraph a map."""
    paragraphs = []
    for family, maps in dumped.items():
        for name, rows in maps.items():
            title = f"{name} ({family})"
            paragraphs.append(_paragraph(title, name, rows) if rows else f"{title}: empty")
    return "\n\n".join(paragraphs)


def _paragraph(title: str, name: str, rows: list[Row]) -> str:
    cells = [_cells(name, row) for row in rows]
    header = {column: column.removesuffix("_s").replace("_", " ").upper() for column in cells[0]}
    table = [header, *cells]
    columns = list(header)
    widths = {column: max(len(row[column]) for row in table) for column in columns}
    numbers = {column for column in columns if all(_is_number(row.get(column)) for row in rows)}
    lines = [f"{title}: {len(rows)}"]
    for row in table:
        parts = [
            row[column].rjust(widths[column])
            if column in numbers
            else row[column].ljust(widths[column])
            for column in columns
        ]
        lines.append("  " + "  ".join(parts).rstrip())
    return "\n".join(lines)


def _cells(name: str, row: Row) -> dict[str, str]:
    ports = _ENDPOINTS.get(name, {})
    cells = {}
    for column, value in row.items():
        if column in ports:
            cells[column] = _endpoint(value, row[ports[column]])
        elif column not in ports.values():
            cells[column] = _text(column, value)
    arrows = _ARROWS.get(name, ())
    for column in arrows[1:]:
        cells[column] = f"-> {cells[column]}"
    return cells


def _endpoint(address: str | None, port: int | None) -> str:
    if address is None:
        return f":{port}" if port else "-"
    shown = f"[{address}]" if ":" in address else address
    return f"{shown}:{port}" if port else address


def _text(column: str, value: object) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, list | tuple):
        shown = ["-" if item is None else str(item) for item in value[:_SHOWN]]
        if len(value) > _SHOWN:
            shown.append(f"… ({len(value)})")
        return ", ".join(shown)
    if column.endswith("_s"):
        return f"{value}s"
    return str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
