"""What is to be reached, and whether it is: of ways (end_to_end.py) and of single packets
(__main__.py)."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
RATES = {"rr": "UDP request rate", "crr": "connections a second", "stream": "TCP throughput",
         "newflow": "rate of new UDP flows", "flood": "UDP packets a second"}  # fmt: skip
TIMES = {"connect": "TCP connect, median"}


class Paths:
    """What came out of end_to_end.py. A ratio is of rates where a rate is meant (more is better),
    else of times."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = {(row["family"], row["mode"], row["way"]): row for row in rows}

    def times(self, family: str, mode: str, way: str) -> list[float]:
        return list(self._rows[family, mode, way]["times_us"])

    def ways(self, family: str, mode: str) -> Iterator[tuple[str, str]]:
        """And the one that each is compared with."""
        for (its_family, its_mode, way), row in self._rows.items():
            if (its_family, its_mode) == (family, mode):
                yield way, row["base"]

    def ratios(self, family: str, mode: str, way: str, base: str) -> list[float]:
        pairs = zip(self.times(family, mode, way), self.times(family, mode, base), strict=True)
        return [mine / its if mode in TIMES else its / mine for mine, its in pairs]

    def base(self, family: str, mode: str, way: str) -> str:
        return str(self._rows[family, mode, way]["base"])

    def has(self, family: str, mode: str, way: str) -> bool:
        return (family, mode, way) in self._rows


@dataclass(frozen=True)
class PathGoal:
    way: str
    family: str
    mode: str
    ratio: float

    @property
    def what(self) -> str:
        return (RATES | TIMES)[self.mode]

    @property
    def name(self) -> str:
        return f"{self.way}: {self.what}, {self.family}"


@dataclass(frozen=True)
class Judged:
    goal: PathGoal
    base: str
    ratios: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool:
        at_most = self.goal.mode in TIMES
        rounded = round(self.median, 2)
        return rounded <= self.goal.ratio if at_most else rounded >= self.goal.ratio

    def __str__(self) -> str:
        sign = "≤" if self.goal.mode in TIMES else "≥"
        spread = f"{min(self.ratios):.2f}-{max(self.ratios):.2f}"
        said = "met" if self.met else "MISSED"
        return (
            f"{self.goal.name} ÷ {self.base}: {self.median:.2f} ({spread}), goal "
            f"{sign} {self.goal.ratio:.2f}: {said}"
        )


_GOALS = (
    ("ebpf-lb past the stack, near", {"rr": 1.05, "connect": 1.00, "crr": 1.00, "stream": 1.03}),
    ("ebpf-lb, near", {"rr": 0.89}),
    ("ebpf-lb, NodePort", {"rr": 1.10, "crr": 1.10}),
)


def judged_paths(paths: Paths, families: Iterable[str], modes: Iterable[str]) -> list[Judged]:
    found = []
    for family in families:
        for way, wanted in _GOALS:
            for mode, ratio in wanted.items():
                if mode in modes and paths.has(family, mode, way):
                    base = paths.base(family, mode, way)
                    ratios = paths.ratios(family, mode, way, base)
                    found.append(Judged(PathGoal(way, family, mode, ratio), base, ratios))
    return found
