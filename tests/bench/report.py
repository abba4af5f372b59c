"""The report: docs/reference/measurements.md and its plots, made of what runs have left in
measured/. Each run replaces its part and leaves the others' as they are."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench import goals
from tests.bench.plot import Bar, bars

PROJECT = Path(__file__).parents[2]
MEASURED = Path(__file__).with_name("measured")
PAGE = Path("docs/reference/measurements.md")
PLOTS = Path("docs/static")
FAMILIES = ("ipv4", "ipv6")
Part = Mapping[str, Any]

_INTRO = """\
# Measurements

Written by `make measure` (`make bench`, `make bench-path`) and `make floods`, not by hand. How each
figure comes about is said at the top of `tests/bench/__main__.py`, `end_to_end.py` and `floods.py`.
Figures of two machines cannot be compared; ratios, within a round of one run, can to some degree.
"""
_PATHS = """\
## Whole ways

A pod asks a pod of its node ("near") or of another ("far"), straight or by a ClusterIP; a machine
outside asks a NodePort whose pod is on another node. A ratio of rates says how many times as much
gets through as on the way beside it (straight; of NodePorts, netfilter's), so more is better; of
TCP connect, how many times as long it takes, so less is better. Medians over the rounds; the
range is from the lowest to the highest round. Nodes have no netfilter rules but the proxy's.
"""
_PACKETS = """\
## Single packets

Nanoseconds that a program takes for a packet, over an empty program: medians; ± is half the
distance between the quartiles.
"""
_FLOODS = """\
## Floods

Each flood goes on for the seconds given, from made-up clients, through the node that also serves
established connections, each asked again and again, and newcomers from other addresses. What is
answered is answered by real servers. Memory is the agent's own and its maps'.
"""


def save(name: str, part: Part) -> None:
    """Writes one run's results, and the report anew."""
    whole = {"machine": machine(), **part}
    MEASURED.mkdir(exist_ok=True)
    (MEASURED / f"{name}.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    for path, text in pages(parts()).items():
        (PROJECT / path).write_text(text)
    print(f"the report is {PAGE}")


def parts() -> dict[str, Part]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(MEASURED.glob("*.json"))}


def machine() -> str:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), os.uname().machine,
    )  # fmt: skip
    commit = subprocess.run(
        ["git", "-c", "safe.directory=*", "describe", "--always", "--dirty"],
        cwd=PROJECT, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    kernel = os.uname().release.split("-")[0]
    return f"{os.cpu_count()} CPUs, {model}; Linux {kernel}; commit {commit or 'unknown'}"


def pages(found: Mapping[str, Part]) -> dict[Path, str]:
    """Of each file, its text."""
    text = [_INTRO]
    files: dict[Path, str] = {}
    if paths := found.get("paths"):
        text += _goals(paths)
    if packets := found.get("packets"):
        text += _packet_goals(packets)
    if paths:
        text += [_PATHS, _about(paths, f"{paths['rounds']} rounds, {paths['services']} other "
                                f"Services, pods by {paths['pods']}; netfilter's part is "
                                f"{paths['proxy']}'s."), *_tables(paths)]  # fmt: skip
        for family in FAMILIES:
            if svg := _plot(paths, family):
                name = f"measured-paths-{family}.svg"
                files[PLOTS / name] = svg
                text.append(f"![Ratios of each way, {family}](../static/{name})\n")
    if packets:
        text += [_PACKETS, _about(packets, ""), *_packet_tables(packets)]
        name = "measured-packets.svg"
        files[PLOTS / name] = _packet_plot(packets)
        text.append(f"![Nanoseconds of an established packet](../static/{name})\n")
    if floods := found.get("floods"):
        text += [
            _FLOODS,
            _about(floods, f"{floods['seconds']:.0f} s each; {floods['way']}."),
            *_flood_table(floods),
        ]
    return {PAGE: "\n".join(text), **files}


def _about(part: Part, more: str) -> str:
    return f"{part['machine']}. {more}".strip() + "\n"


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    yield _row(head)
    yield _row("---" for _ in head)
    yield from (_row(each) for each in rows)
    yield ""


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2f}-{max(values):.2f}"


# --- whole ways


def _goals(part: Part) -> Iterator[str]:
    paths = goals.Paths(part["rows"])
    modes = list(dict.fromkeys(row["mode"] for row in part["rows"]))
    families = [f for f in FAMILIES if any(row["family"] == f for row in part["rows"])]
    judged = goals.judged_paths(paths, families, modes)
    yield "## Goals\n"
    yield "### Whole ways\n"
    yield from _table(
        ("way", "what", "family", "÷", "goal", "median", "range", ""),
        (
            (
                each.goal.way, each.goal.what, each.goal.family, each.base,
                f"{'≤' if each.goal.mode in goals.TIMES else '≥'} {each.goal.ratio:.2f}",
                f"**{each.median:.2f}**", _range(each.ratios), "met" if each.met else "missed",
            )
            for each in judged
        ),
    )  # fmt: skip
    for each in judged:
        if not each.met:
            yield _missed(part, paths, each)


def _missed(part: Part, paths: goals.Paths, each: goals.Judged) -> str:
    goal = each.goal
    mine, its = (
        statistics.median(paths.times(goal.family, goal.mode, way)) for way in (goal.way, each.base)
    )
    by = abs(each.median - goal.ratio)
    text = f"- **{goal.name}**: missed by {by:.2f}; {mine:.2f} µs, and {its:.2f} µs {each.base}."
    told = part.get("profiles", {}).get(goal.name)
    if told:
        whose = ", ".join(f"`{symbol}` {us:.2f}" for symbol, us in told)
        text += f" More than there, in µs of each time: {whose}."
    return text + "\n"


def _tables(part: Part) -> Iterator[str]:
    paths = goals.Paths(part["rows"])
    for mode in dict.fromkeys(row["mode"] for row in part["rows"]):
        what = (goals.RATES | goals.TIMES)[mode]
        yield f"### {what[0].upper()}{what[1:]} (`{mode}`)\n"
        head = ["way"]
        names: dict[str, list[str]] = {}
        for family in FAMILIES:
            found = list(paths.ways(family, mode))
            if not found:
                continue
            head += [f"{family}, µs", "ratio", "range"]
            for way, base in found:
                ratios = paths.ratios(family, mode, way, base)
                time = statistics.median(paths.times(family, mode, way))
                names.setdefault(way, []).extend(
                    (f"{time:.2f}", f"{statistics.median(ratios):.2f}", _range(ratios))
                )
        yield from _table(head, ((way, *cells) for way, cells in names.items()))


def _plot(part: Part, family: str) -> str:
    paths = goals.Paths(part["rows"])
    groups = []
    for mode in dict.fromkeys(row["mode"] for row in part["rows"]):
        each = [
            Bar(way, paths.ratios(family, mode, way, base))
            for way, base in paths.ways(family, mode)
            if way != base
        ]
        if each:
            groups.append(((goals.RATES | goals.TIMES)[mode], each))
    return bars(f"Ratios to the way beside, {family}", groups) if groups else ""


# --- single packets


def _packet_goals(part: Part) -> Iterator[str]:
    yield "### Single packets\n"
    rows = [row for row in part["rows"] if row["budget"] is not None]
    over = [row for row in rows if row["ns"] > row["budget"]]
    yield (
        f"{len(rows) - len(over)} of {len(rows)} figures are within their budgets. Where the time"
        " goes in those over them, in ns of a packet, the measurement's own feeding included; the"
        " others are in the table below:\n"
    )
    for row in over:
        if row["profile"]:
            whose = ", ".join(f"`{symbol}` {ns:.0f}" for symbol, ns in row["profile"])
            yield (
                f"- **{_path(row)}**: {row['ns']:.0f} (± {row['spread']:.0f}), "
                f"{row['ns'] - row['budget']:.0f} more than {row['budget']}: {whose}."
            )
    yield ""
    yield "### 10,000 Services ÷ 10, the same flows\n"
    yield from _table(
        ("path", "family", "flows", "10 Services, ns", "median", "range", "goal ≤ 1.03"),
        (
            (row["path"], row["family"], f"{row['flows']:,}", row["few_ns"],
             f"**{statistics.median(row['ratios']):.3f}**", _range(row["ratios"]),
             "met" if round(statistics.median(row["ratios"]), 2) <= 1.03 else "missed")
            for row in part["services"]
        ),
    )  # fmt: skip
    yield "### A monitor that listens ÷ nobody, the same flows\n"
    yield (
        "`ebpf-lb monitor` tells drops unless it is asked for more: that is what may be left"
        " running, and is judged. One of new connections (`--new`, `--all`) writes an event for"
        " each; established packets do not ask either of them.\n"
    )
    yield from _table(
        ("path", "family", "monitor of", "nobody, ns", "median", "range", "goal ≤ 1.01"),
        (
            (row["path"], row["family"], row["monitor"], row["nobody_ns"],
             f"**{statistics.median(row['ratios']):.3f}**", _range(row["ratios"]),
             "" if row["monitor"] != "drops" else
             "met" if round(statistics.median(row["ratios"]), 2) <= 1.01 else "missed")
            for row in part.get("monitor", ())
        ),
    )  # fmt: skip


def _path(row: Part) -> str:
    flows = f"{row['flows']:,} flow{'s' * (row['flows'] > 1)}, " if row["flows"] else ""
    return f"{row['path']}, {flows}{row['services']:,} Services, {row['family']}"


def _packet_tables(part: Part) -> Iterator[str]:
    cells: dict[tuple[str, int, int], dict[str, Part]] = {}
    for row in part["rows"]:
        cells.setdefault((row["path"], row["flows"], row["services"]), {})[row["family"]] = row
    families = [f for f in FAMILIES if any(f in each for each in cells.values())]
    yield from _table(
        ("path", "flows", "Services", *(word for f in families for word in (f"{f}, ns", "±")),
         "budget"),
        (
            (path, f"{flows:,}" if flows else "new", f"{services:,}",
             *(word for f in families for word in
               ((f"{each[f]['ns']:.0f}", each[f]["spread"]) if f in each else ("", ""))),
             next(iter(each.values()))["budget"] or "")
            for (path, flows, services), each in cells.items()
        ),
    )  # fmt: skip
    yield "What the agent does, in milliseconds of CPU time:\n"
    yield "```text"
    yield from part["others"]
    yield "```\n"


def _packet_plot(part: Part) -> str:
    groups: dict[str, list[Bar]] = {}
    for row in part["rows"]:
        if row["path"].startswith("established, TCP") and row["services"] <= 10:
            quarter = row["spread"]
            values = [row["ns"] - quarter, row["ns"], row["ns"] + quarter]
            groups.setdefault(f"{row['path']}, {row['family']}", []).append(
                Bar(f"{row['flows']:,} flows", values)
            )
    return bars("An established packet, ns over an empty program", groups.items(), mark=45)


# --- floods


def _flood_table(part: Part) -> Iterator[str]:
    yield from _table(
        ("flood", "packets", "a second", "established", "lost", "new ones tried",
         "new ones succeeded", "entries that gave way", "packets that found no room",
         "memory before, MiB", "after, MiB"),
        (
            (row["flood"], f"{row['packets']:,}", f"{row['rate']:,}",
             row["established"], row["lost"], row["tried"], row["succeeded"],
             f"{row['evicted']:,}", f"{row['without_room']:,}", row["before_mib"], row["after_mib"])
            for row in part["rows"]
        ),
    )  # fmt: skip
