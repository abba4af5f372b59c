"""What it costs a flow that there are 10,000 Services and not 10: the same flows, of the same ten
Services, by two loads of the programs that take turns."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path as FilePath

from ebpf_lb.datapath.loader import ensure_loaded
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family
from tests.bench.paths import Path, World
from tests.datapath.kernel import Kernel
from tests.datapath.node import entered_node

FEW, MANY = 10, 10_000
AT_MOST = 1.03
FLOWS = (1, 1024)


@dataclass(frozen=True)
class Ratio:
    family: Family
    path: str
    flows: int
    rounds: tuple[float, ...]
    few_ns: float

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def row(self) -> dict[str, object]:
        return {"family": self.family.directory, "path": self.path, "flows": self.flows,
                "few_ns": round(self.few_ns, 1),
                "ratios": [round(each, 3) for each in self.rounds]}  # fmt: skip

    def __str__(self) -> str:
        said = "ok" if round(self.median, 2) <= AT_MOST else "over"
        return (
            f"{self.family.directory} {self.path}, {self.flows:,} flows,"
            f" {MANY:,} Services ÷ {FEW}: {self.median:.3f}"
            f" ({min(self.rounds):.2f}-{max(self.rounds):.2f}) {said}"
        )


def ratios(
    families: Iterable[Family], rounds: int = 15, packets: int = 200_000, many: int = MANY
) -> Iterator[Ratio]:
    with ExitStack() as stack:
        roots = []
        for name in ("few", "many"):
            root = FilePath(f"/sys/fs/bpf/ebpf-lb-bench-{os.getpid()}-{name}")
            stack.callback(shutil.rmtree, root, ignore_errors=True)
            ensure_loaded(root, Settings(flows=1 << 16))
            roots.append(root)
        uplink = stack.enter_context(entered_node())
        for family in families:
            worlds = [World(Kernel(root, family), uplink) for root in roots]
            for world, services in zip(worlds, (FEW, many), strict=True):
                world.grow(services)
            for flows in FLOWS:
                pairs = zip(
                    *(world.established("TCP same port", flows, FEW) for world in worlds),
                    strict=True,
                )
                for few, other in pairs:
                    yield _ratio(family, worlds, (few, other), rounds, packets)


def _ratio(
    family: Family, worlds: list[World], paths: tuple[Path, Path], rounds: int, packets: int
) -> Ratio:
    for path in paths:
        path.prepare()

    def cost(world: World, path: Path) -> float:
        feeder, empty = world.feeder_of(path)
        base = feeder.run(empty, path.traffic, packets)
        return feeder.run(world.program(path.program), path.traffic, packets) - base

    few, found = [], []
    for number in range(rounds + 1):
        pairs = list(zip(worlds, paths, strict=True))
        costs = {}
        for at in (0, 1) if number % 2 else (1, 0):
            costs[at] = max(cost(*pairs[at]), 1)
        if number:  # the first one warms up
            few.append(costs[0])
            found.append(costs[1] / costs[0])
    return Ratio(
        family, paths[0].name, paths[0].traffic.flows, tuple(found), statistics.median(few)
    )
