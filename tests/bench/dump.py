"""What `ebpf-lb maps dump` of all maps costs, from its start to its end, in CPU time."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from tests.bench.writer import line
from tests.datapath.pinned import pin_build, pins

ROUNDS, SETS = 5, 1 << 18
BUDGET_MS = 300.0


def lines(rounds: int = ROUNDS) -> Iterator[str]:
    """One: the median of some runs over a million places for flows."""
    with pins("bench-dump") as where:
        pin_build(where, entries={"flows": SETS})
        command = [sys.executable, "-m", "ebpf_lb", "maps", "dump", "--bpffs", str(where.root)]
        ms = median(_cpu_ms(command) for _ in range(rounds))
    yield line("both", "maps dump, the whole command", ms, BUDGET_MS)


def _cpu_ms(command: list[str]) -> float:
    before = _children_s()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return 1000 * (_children_s() - before)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
