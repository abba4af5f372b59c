"""The maps' rows as aligned text."""

from collections.abc import Mapping

from ebpf_lb.cli import output
from ebpf_lb.datapath.dump import Row

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


def as_tables(dumped: Mapping[str, Mapping[str, list[Row]]], limit: int | None, wide: bool) -> str:
    """One paragraph a map."""
    return "\n\n".join(
        _paragraph(f"{name} ({where})", name, rows, limit, wide)
        for where, maps in dumped.items()
        for name, rows in maps.items()
    )


def overview(dumped: Mapping[str, Mapping[str, list[Row]]]) -> str:
    """One line a map: how much there is to see."""
    names = list(dict.fromkeys(name for maps in dumped.values() for name in maps))
    header = ["MAP", *(where.upper() for where in dumped)]
    lines = [
        [name, *(f"{len(maps[name]):,}" if name in maps else "" for maps in dumped.values())]
        for name in names
    ]
    return output.table(header, lines, right=header[1:])


def _paragraph(title: str, name: str, rows: list[Row], limit: int | None, wide: bool) -> str:
    if not rows:
        return f"{title}: empty"
    shown = rows[:limit]
    cells = [_cells(name, row) for row in shown]
    titles = {column: column.removesuffix("_s").replace("_", " ").upper() for column in cells[0]}
    ports = _ENDPOINTS.get(name, {})
    numbers = [
        title
        for column, title in titles.items()
        if column not in ports and all(_is_number(row.get(column)) for row in shown)
    ]
    table = output.table(
        list(titles.values()),
        [[row.get(column, "-") for column in titles] for row in cells],
        right=numbers,
        wide=wide,
        indent="  ",
    )
    rest = output.more(len(shown), len(rows))
    return f"{title}: {len(rows)}\n{table}" + (f"\n  {rest}" if rest else "")


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
