"""What a slide shows below the machines: rows, each with one packet on its way.

A packet is drawn from left to right, or back; where it turns round, a new line begins below.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ebpf_lb.lessons.scenarios import words
from ebpf_lb.lessons.scenarios.recording import Machine
from ebpf_lb.lessons.scenarios.way import Change, Story, Tap, Way


class Seen(NamedTuple):
    """A tap, with its number in the text."""

    number: int
    tap: Tap


@dataclass(slots=True)
class Station:
    """A machine on the way, and where in it the packet was seen, one after the other."""

    lane: str
    seen: list[Seen] = field(default_factory=list)


class Run(NamedTuple):
    """Where a packet is the same from station to station: one label is enough. `first`, `last`:
    stations of the line."""

    first: int
    last: int
    tap: Tap
    before: Tap


class Rewriting(NamedTuple):
    """`who` did it, and in which lane; each change with what it is called."""

    lane: str
    who: str
    changes: tuple[tuple[str, Change], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """`brief`: without what was rewritten into what, and without interfaces."""

    story: Story
    way: Way
    heading: str
    brief: bool = False

    def lines(self, order: Sequence[str]) -> list[list[Station]]:
        """order: the lanes from left to right."""
        lines: list[list[Station]] = []
        line: list[Station] = []
        direction = 0
        for station in self._stations():
            if line:
                step = order.index(station.lane) - order.index(line[-1].lane)
                turned = direction * step < 0
                if turned:
                    lines.append(line)
                    # where it turns, it comes in by the upper line and leaves by the lower one
                    line, direction = [_leaving(line[-1])], 0
                direction = direction or step
            line.append(station)
        return [*lines, line]

    def _stations(self) -> Iterator[Station]:
        at: Station | None = None
        for number, tap in enumerate(self.way.taps):
            lane = lane_of(self.story, tap.machine)
            if at is None or at.lane != lane:
                if at is not None:
                    yield at
                at = Station(lane)
            at.seen.append(Seen(number, tap))
        if at is not None:
            yield at

    def rewritings(self, line: list[Station]) -> list[Rewriting]:
        found = []
        for station in line:
            for number, _tap in station.seen:
                changes = words.rewritings(self.story, self.way, number)
                if changes:
                    named = [(words.translation(self.way, one), one) for one in changes]
                    who = words.rewriter(self.story, self.way, number)
                    found.append(Rewriting(station.lane, who, tuple(sorted(named, key=_first))))
        return found


def runs(line: list[Station]) -> list[Run]:
    found: list[Run] = []
    for number in range(len(line) - 1):
        tap = line[number].seen[-1].tap
        before = line[number].seen[0].tap
        if found and _same(found[-1].tap, tap) and _same(found[-1].tap, before):
            found[-1] = found[-1]._replace(last=number + 1)
        else:
            found.append(Run(number, number + 1, tap, found[-1].tap if found else before))
    return found


def lane_of(story: Story, machine: str) -> str:
    """One name for a machine in all stories of a slide: pods of several runs bear one name."""
    kind = next((one.kind for one in story.machines if one.name == machine), "")
    return f"pod {machine.rpartition('/')[2]}" if kind == "pod" else machine


def machine_of(story: Story, lane: str) -> Machine:
    return next(one for one in story.machines if lane_of(story, one.name) == lane)


def _same(one: Tap, other: Tap) -> bool:
    return (one.packet.endpoints, one.packet.tunnel) == (
        other.packet.endpoints,
        other.packet.tunnel,
    )


def _first(named: tuple[str, Change]) -> str:
    return named[0]  # DNAT comes before SNAT


def _leaving(station: Station) -> Station:
    """The part of a station that belongs to the next line; the other part stays."""
    at = next(
        (number for number, one in enumerate(station.seen) if one.tap.outgoing), len(station.seen)
    )
    leaving = Station(station.lane, station.seen[at:])
    del station.seen[at:]
    return leaving
