"""What it costs a packet that a monitor listens: the same flows with and without one, in turns; and
what a monitor that has nothing to tell takes of a processor.

Nobody listening: an established flow's packet asks nothing, and a new flow, a drop or a refusal
looks at one word. A monitor of drops (`ebpf-lb monitor`, as it is left running) changes nothing for
packets that are forwarded. One of new connections writes an event for each, which has its price.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath

from ebpf_lb.datapath.loader import ensure_loaded
from ebpf_lb.datapath.reader import View
from ebpf_lb.datapath.reader.events import Listener
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family
from tests.bench.paths import Path, World
from tests.datapath.kernel import Kernel
from tests.datapath.node import entered_node

SETTINGS = Settings(flows=1 << 18, affinity=1024, sockets=1024)
AT_MOST = 1.01
FLOWS = 1024
KINDS = {"drops": {"drops": True, "new": False}, "new": {"drops": True, "new": True}}
"""What a monitor listens to, as Listener.listen() has it."""


@dataclass(frozen=True)
class Ratio:
    """Of a packet's cost while a monitor of that kind listens to that while nobody does."""

    family: Family
    path: str
    kind: str
    rounds: tuple[float, ...]
    nobody_ns: float
    told: int

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def judged(self) -> bool:
        """A monitor of new connections is nothing that is left running."""
        return self.kind == "drops"

    def row(self) -> dict[str, object]:
        return {"family": self.family.directory, "path": self.path, "monitor": self.kind,
                "nobody_ns": round(self.nobody_ns, 1), "told": self.told,
                "ratios": [round(each, 3) for each in self.rounds]}  # fmt: skip

    def __str__(self) -> str:
        said = "" if not self.judged else " ok" if round(self.median, 2) <= AT_MOST else " over"
        return (
            f"{self.family.directory} {self.path}, a monitor of {self.kind} ÷ nobody:"
            f" {self.median:.3f} ({min(self.rounds):.2f}-{max(self.rounds):.2f}){said}"
        )


def ratios(
    families: Iterable[Family],
    rounds: int = 15,
    packets: int = 200_000,
    settings: Settings = SETTINGS,
) -> Iterator[Ratio]:
    root = FilePath(f"/sys/fs/bpf/ebpf-lb-bench-{os.getpid()}-monitor")
    try:
        ensure_loaded(root, settings)
        with entered_node() as uplink:
            for family in families:
                world = World(Kernel(root, family), uplink)
                world.grow(10)
                fresh = next(world.new(settings.flows))
                for path in (*world.established("TCP same port", FLOWS), fresh):
                    path.prepare()
                    few = settings.flows // 4 // (2 * rounds + 2) if path.fresh else packets
                    for kind in KINDS:
                        if path.fresh:
                            path.prepare()
                        yield _ratio(world, path, kind, rounds, min(packets, few))
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _ratio(world: World, path: Path, kind: str, rounds: int, packets: int) -> Ratio:
    feeder, empty = world.feeder_of(path)
    program = world.program(path.program)
    start = 0

    def cost(listener: Listener, listens: bool) -> float:
        nonlocal start
        listener.listen(**(KINDS[kind] if listens else {"drops": True, "new": True}),
                        for_s=60 if listens else 0)  # fmt: skip
        base = feeder.run(empty, path.traffic, packets, start)
        spent = feeder.run(program, path.traffic, packets, start) - base
        start += packets if path.fresh else 0
        return max(spent, 1)

    nobody, found, told = [], [], 0
    with Listener(View(world.kernel.build, world.family)) as listener:
        for number in range(rounds + 1):
            turns = (False, True) if number % 2 else (True, False)
            costs = {listens: cost(listener, listens) for listens in turns}
            told += len(listener.take()) + listener.lost
            if number:  # the first one warms up
                nobody.append(costs[False])
                found.append(costs[True] / costs[False])
        listener.listen(drops=True, new=True, for_s=0)
    return Ratio(world.family, path.name, kind, tuple(found), statistics.median(nobody), told)


def lines(for_s: float = 5.0) -> Iterator[str]:
    """Of the command itself, on a node where nothing is dropped."""
    root = FilePath(f"/sys/fs/bpf/ebpf-lb-bench-{os.getpid()}-watched")
    try:
        ensure_loaded(root, SETTINGS)
        words = ["-m", "ebpf_lb", "monitor", "--bpffs", str(root)]
        running = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
        try:
            time.sleep(2)  # to start
            before = _processor_s(running.pid)
            time.sleep(for_s)
            spent = _processor_s(running.pid) - before
        finally:
            running.terminate()
            running.wait()
        yield f"a monitor with nothing to tell: {spent / for_s:.1%} of one processor"
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _processor_s(pid: int) -> float:
    fields = FilePath(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
