"""What the agent's writes cost at 10,000 Services of 10 endpoints, in CPU time: what others do on
the machine meanwhile counts little. Budgets are those of docs/design.md."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median, quantiles

from ebpf_lb.datapath.writer import FamilyMaps, FamilyWriter
from ebpf_lb.model.values import Family
from tests.datapath.pinned import pin_build, pins
from tests.datapath.test_writer_kernel import CAPACITIES, ENDPOINTS, SERVICES, forwarding

CHANGES = 500
START_MS, CHANGE_MS, SLOW_CHANGE_MS = 1000 / 2, 0.3, 2.0  # both families share a start's second


def lines(services: int = SERVICES, changes: int = CHANGES) -> Iterator[str]:
    """One a figure and family."""
    for family in Family:
        with pins("bench-writer") as where:
            maps = FamilyMaps.open(pin_build(where, entries=CAPACITIES), family)
            writer = FamilyWriter(maps, time.monotonic, 8)
            writer.adopt()
            wanted = [forwarding(family, number) for number in range(services)]
            began = time.process_time()
            writer.set_all(wanted)
            yield line(
                family.directory, f"{services:,} Services written", _since_ms(began), START_MS
            )
            taken = []
            for number in range(changes):
                change = forwarding(family, number, shift=1)
                began = time.process_time()
                writer.set(change)
                taken.append(_since_ms(began))
            what = f"one of {ENDPOINTS} endpoints changed"
            yield line(family.directory, f"{what}, median", median(taken), CHANGE_MS)
            slowest = quantiles(taken, n=100)[-1]
            yield line(family.directory, f"{what}, 99th percentile", slowest, SLOW_CHANGE_MS)


def _since_ms(began: float) -> float:
    return 1000 * (time.process_time() - began)


def line(family: str, what: str, ms: float, budget_ms: float) -> str:
    """A figure and what it should be."""
    verdict = "ok" if ms <= budget_ms else "over"
    return f"{family:6} {what:50} {ms:8.2f} ms  budget {budget_ms:6.1f}  {verdict}"
