"""Nanoseconds a packet of each program and path, over an empty program in the same run.

    python -m tests.bench [--quick] [--family ipv4|ipv6]        (`make bench`)

How it measures. BPF_PROG_TEST_RUN repeats a program in the kernel and tells the mean time of one
run, but gives it the same packet each time. So the programs are called by a small one that writes
the next flow's tuple into the packet first (feeder.c); followed by an empty program it costs what
the feeding and the repetition cost, and that is subtracted (from XDP's, that of an empty one at
XDP). Flow numbers go round in order, but the table's place is a hash of the tuple, so memory is
visited in random order, as by real flows. Every figure is the median of several rounds, the empty
and the measured program taking turns; `±` is half the distance between the quartiles. That all
packets took the path which the line names is checked by the programs' own counters; if some did
not, the line says how many.

How to read it. Code, and with one flow all data, are in the caches, and branches are well
predicted: that is the programs' own cost, without what the kernel spends around them. Subtraction
errs by a few ns, since stores of the feeder overlap with loads behind it; on a shared machine a
round can be disturbed, so differences below 3 ns mean nothing. Figures at many flows are the
memory's latency: one or two cold lines in the connection table, one in the Service's counters.

"stripped program" is the least that serves a Service (stripped.c), without anything else that
docs/semantics.md asks for: what its way of doing it costs at all.

What is over its budget is run once more under perf. With --quick nothing is written into the report
(report.py).

Budgets are those of docs/design.md. At up to 1,024 flows the one for an established packet counts,
above that the one for half a million flows.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

from ebpf_lb.datapath.libbpf import Program
from ebpf_lb.datapath.loader import ensure_loaded
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family
from tests.bench import (
    dump,
    many_services,
    monitor,
    profile,
    report,
    rivals,
    startup,
    startup_many,
    writer,
)
from tests.bench.paths import PORTS, Path, World
from tests.datapath.kernel import Kernel
from tests.datapath.node import entered_node


@dataclass(frozen=True)
class Scale:
    """How much is measured. packets: a round."""

    flows: tuple[int, ...]
    services: tuple[int, ...]
    packets: int
    rounds: int
    settings: Settings
    profiled: bool = False


FULL = Scale(
    (1, 1024, 16_384, 131_072, 524_288), (10, 10_000), 200_000, 7, Settings(xdp=True), profiled=True
)
PROFILED = ("established, TCP same port", "new flow", "XDP, to another node", "no Service's")
"""Of which paths it is looked at where the time goes, if they are over their budgets."""
PROFILED_NS = 500_000_000
# with so much room that chance pushes no flow out
QUICK = Scale(
    (1, 256), (10, 50), 5_000, 3, Settings(flows=1 << 14, affinity=1024, sockets=1024, xdp=True)
)


@dataclass(frozen=True)
class Figure:
    """A path's cost, in ns over the empty program; `off_path`: packets that took another one."""

    path: Path
    services: int
    over_empty_ns: float
    spread_ns: float
    off_path: int
    profile: tuple[tuple[str, float], ...] = ()
    """Of one that is over its budget: who takes how many ns of a packet."""

    @property
    def judgement(self) -> str:
        if self.path.budget_ns is None:
            return ""
        return "ok" if self.over_empty_ns <= self.path.budget_ns else "over"


def measure(world: World, path: Path, scale: Scale) -> Figure:
    program, (feeder, empty) = world.program(path.program), world.feeder_of(path)
    path.prepare()
    few = path.traffic.flows <= scale.packets
    packets = scale.packets if few or path.fresh else path.traffic.flows
    if path.fresh:
        # with room for all rounds: a quarter of the table at most
        packets = min(packets, scale.settings.flows // 4 // (scale.rounds + 1))
    start, costs, before = 1 << 30 if path.fresh else 0, [], world.kernel.counters()
    for round_ in range(scale.rounds + 1):
        base = feeder.run(empty, path.traffic, packets, start)
        cost = feeder.run(program, path.traffic, packets, start) - base
        start += packets if path.fresh else 0
        if round_:  # the first one warms up
            costs.append(cost)
    counted = world.kernel.counters() - before
    wanted = packets * (scale.rounds + 1)
    on_path = counted[path.reason] if path.reason else wanted - sum(counted.values())
    quartiles = statistics.quantiles(costs, n=4)
    figure = Figure(
        path,
        path.traffic.services,
        statistics.median(costs),
        (quartiles[2] - quartiles[0]) / 2,
        wanted - on_path,
    )
    if not scale.profiled or not _profiled(figure, scale):
        return figure

    def again() -> None:
        nonlocal start
        for _ in range(1 if path.fresh else PROFILED_NS // (packets * 50)):
            times.append(feeder.run(program, path.traffic, packets, start))
            start += packets if path.fresh else 0

    times: list[int] = []
    shares = profile.of_this_process(again)
    whole = statistics.mean(times)
    told = sorted(shares.items(), key=lambda item: -item[1])[:7]
    return replace(
        figure, profile=tuple((symbol, round(share * whole, 1)) for symbol, share in told)
    )


def _profiled(figure: Figure, scale: Scale) -> bool:
    path = figure.path
    flows = path.fresh or path.traffic.flows in (scale.flows[0], scale.flows[-1])
    few = figure.services <= scale.services[0]
    return figure.judgement == "over" and path.name.startswith(PROFILED) and flows and few


def figures(world: World, scale: Scale) -> Iterator[Figure]:
    """Everything, at few Services and then at many."""
    few, many = scale.services
    world.grow(few)
    for flows in scale.flows:
        yield from (measure(world, path, scale) for path in world.foreign(flows))
    for flows in scale.flows:
        yield from (measure(world, path, scale) for path in world.stripped_established(flows))
    for kind in PORTS:
        for flows in scale.flows:
            yield from (measure(world, path, scale) for path in world.established(kind, flows))
    yield from (measure(world, path, scale) for path in world.rare(scale.settings.flows))
    yield from (measure(world, path, scale) for path in world.new(scale.settings.flows))
    for xdp in (False, True):
        for flows in scale.flows[:3]:
            for path in world.uplink(flows, scale.settings.flows, xdp=xdp):
                yield measure(world, path, scale)
        yield from (measure(world, path, scale) for path in world.uplink_rare(xdp=xdp))
    world.grow(many)
    for flows in scale.flows:
        for path in world.established("TCP same port", flows):
            yield measure(world, path, scale)
    yield from (measure(world, path, scale) for path in world.new(scale.settings.flows))


def row_of(family: Family, figure: Figure) -> dict[str, object]:
    """As the report has it."""
    path = figure.path
    return {
        "family": family.directory,
        "path": path.name,
        "flows": 0 if path.fresh else path.traffic.flows,
        "services": figure.services,
        "ns": round(figure.over_empty_ns, 1),
        "spread": round(figure.spread_ns, 1),
        "budget": path.budget_ns,
        "off_path": figure.off_path,
        "profile": figure.profile,
    }


HEADINGS = ("family", "path", "flows", "Services", "ns", "±", "budget", "")


def line(family: Family, figure: Figure) -> str:
    path = figure.path
    cells = (
        family.directory,
        path.name,
        "new" if path.fresh else f"{path.traffic.flows:,}",
        f"{figure.services:,}",
        f"{figure.over_empty_ns:.0f}",
        f"{figure.spread_ns:.1f}",
        "" if path.budget_ns is None else str(path.budget_ns),
        figure.judgement
        + (f"  ({figure.off_path} packets took another path)" if figure.off_path else ""),
    )
    return row(cells)


def row(cells: Iterable[str]) -> str:
    widths = (6, -36, 9, 9, 6, 6, 7, -6)
    return " ".join(
        cell.ljust(-width) if width < 0 else cell.rjust(width)
        for cell, width in zip(cells, widths, strict=True)
    ).rstrip()


def sizes(world: World) -> Iterator[str]:
    """Instructions of each program, as loaded."""
    for path in sorted(world.kernel.build.programs(world.family).iterdir()):
        with Program.open(path) as program:
            yield f"{path.name} {program.info().instructions}"


def run(scale: Scale, families: Iterable[Family]) -> list[tuple[Family, Figure]]:
    root = FilePath(f"/sys/fs/bpf/ebpf-lb-bench-{os.getpid()}")
    found = []
    try:
        ensure_loaded(root, scale.settings)
        print(row(HEADINGS), flush=True)
        with entered_node() as uplink:
            for family in families:
                world = World(Kernel(root, family), uplink)
                for figure in figures(world, scale):
                    print(line(family, figure), flush=True)
                    found.append((family, figure))
                print(f"{family.directory} instructions: {', '.join(sizes(world))}", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few packets: does it work at all?")
    parser.add_argument("--family", choices=[family.directory for family in Family])
    options = parser.parse_args(arguments)
    families = [f for f in Family if options.family in (None, f.directory)]
    found = run(QUICK if options.quick else FULL, families)
    over = sum(figure.judgement == "over" for _, figure in found)
    print(f"{len(found)} figures, {over} over budget")
    ratios = []
    for ratio in many_services.ratios(families):
        print(ratio, flush=True)
        ratios.append(ratio.row())
    listening = []
    for listened in monitor.ratios(families):
        print(listened, flush=True)
        listening.append(listened.row())
    others = []
    for each in itertools.chain(
        writer.lines(),
        rivals.lines(),
        dump.lines(),
        startup.lines(),
        startup_many.lines(),
        monitor.lines(),
    ):
        print(each, flush=True)
        others.append(each)
    if not options.quick:
        rows = [row_of(family, figure) for family, figure in found]
        report.save(
            "packets", {"rows": rows, "services": ratios, "monitor": listening, "others": others}
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
