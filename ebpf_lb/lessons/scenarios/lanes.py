"""Where machines stand on a slide: side by side, a node's pods next to it, each lane as far from
the next as what is written between them needs."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Wanted(NamedTuple):
    """So much room from the middle of one lane to that of another, by their places in the order."""

    first: int
    last: int
    width: float


@dataclass(slots=True)
class Group:
    """A machine, and the pods on it."""

    lanes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Lanes:
    """`x`: of each lane's middle. `borders`: left and right of each group. `width`: of all."""

    groups: tuple[Group, ...]
    x: dict[str, float]
    borders: tuple[tuple[float, float], ...]
    width: float


def place(
    groups: Sequence[Group],
    heads: dict[str, float],
    wanted: Iterable[Wanted],
    margin: float,
    gap: float,
    least: float,
    beyond: tuple[float, float] = (0.0, 0.0),
) -> Lanes:
    """heads: the width of what stands on top of each lane. least: the width of the whole, which is
    made up by wider gaps. beyond: room from the middles of the first lane and of the last outwards.
    """
    order = [lane for group in groups for lane in group.lanes]
    last_of = {group.lanes[-1] for group in groups}
    steps = [
        (heads[one] + heads[other]) / 2 + gap + (gap if one in last_of else 0)
        for one, other in itertools.pairwise(order)
    ]
    for start, end, width in sorted(wanted, key=lambda one: one.last - one.first):
        missing = width - sum(steps[start:end])
        if missing > 0:
            for number in range(start, end):
                steps[number] += missing / (end - start)
    first, last = (
        max(heads[lane] / 2 if lane else 0.0, room)
        for lane, room in zip((order[0], order[-1]) if order else ("", ""), beyond, strict=True)
    )
    natural = sum(steps) + first + last + 2 * (margin + gap / 2)
    more = max(0.0, least - natural) / (len(steps) + 1)
    x, at = {}, margin + gap / 2 + first + more / 2
    for number, lane in enumerate(order):
        x[lane] = at
        at += steps[number] + more if number < len(steps) else 0.0
    width = max(natural, least)
    borders = _borders(groups, x, heads, margin, gap, width)
    return Lanes(tuple(groups), x, borders, width)


def _borders(
    groups: Sequence[Group],
    x: dict[str, float],
    heads: dict[str, float],
    margin: float,
    gap: float,
    width: float,
) -> tuple[tuple[float, float], ...]:
    """From the page's margins on; between two groups in the middle of what their heads leave."""
    edges = [margin]
    for one, other in itertools.pairwise(groups):
        left = x[one.lanes[-1]] + heads[one.lanes[-1]] / 2
        right = x[other.lanes[0]] - heads[other.lanes[0]] / 2
        edges.append((left + right) / 2)
    edges.append(width - margin)
    return tuple(
        (edges[n] + (gap / 4 if n else 0), edges[n + 1] - (gap / 4 if n + 1 < len(groups) else 0))
        for n in range(len(groups))
    )
