"""A story as lines of text."""

import textwrap
from collections.abc import Iterator

from ebpf_lb.lessons.scenarios import words
from ebpf_lb.lessons.scenarios.catalog import Scenario
from ebpf_lb.lessons.scenarios.way import Change, Story, Way

_WIDTH = 88
_BOLD, _RED, _RESET = "\033[1m", "\033[31m", "\033[0m"
_CHANGED = {"source": "\033[1;33m", "destination": "\033[1;32m"}


def render(scenario: Scenario, stories: list[Story], colour: bool = False) -> str:
    """The lesson, the first connection's way, and where the others went."""
    return "\n".join(_Painter(colour).lines(scenario, stories))


def first_way(story: Story) -> list[str]:
    """The way of the client's first packet alone; [] where nobody saw one."""
    return list(_Painter(False).way(story, story.first)) if story.first else []


def both_ways(story: Story) -> list[str]:
    """That, and the answer's."""
    ways = (way for way in (story.first, story.answer) if way)
    painter = _Painter(False)
    return [line for way in ways for line in ("", *painter.way(story, way))][1:]


def lesson(scenario: Scenario) -> str:
    """Title, text and question."""
    body = textwrap.fill(scenario.lesson, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    return f"{scenario.title}\n\n{body}\n\n  {scenario.question}."


class _Painter:
    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def _paint(self, code: str, text: str) -> str:
        return f"{code}{text}{_RESET}" if self._colour else text

    def lines(self, scenario: Scenario, stories: list[Story]) -> Iterator[str]:
        story = stories[0]
        title, _, rest = lesson(scenario).partition("\n")
        yield self._paint(_BOLD, title)
        yield rest
        yield ""
        yield f"  {story.connection.machine} asked {story.connection.asked}: {words.outcome(story)}"
        if not story.first:
            yield "  Nobody saw a packet of it."
        for way in (story.first, story.answer):
            if way:
                yield ""
                yield from self.way(story, way)
        if remarks := words.remarks(story):
            yield ""
            yield from (f"  {remark}" for remark in remarks)
        if len(stories) > 1:
            yield ""
            yield from self._table(stories)

    def way(self, story: Story, way: Way) -> Iterator[str]:
        heading = words.heading(way)
        yield "  " + self._paint(_BOLD, f"{heading[0].upper()}{heading[1:]}")
        machines = max(len(tap.machine) for tap in way.taps)
        places = [
            f"{words.interface(story, tap)} {'out' if tap.outgoing else 'in'}"
            + (" (on the wire)" if tap.on_wire else "")
            for tap in way.taps
        ]
        place_width = max(map(len, places))
        sources = max(len(str(tap.packet.source)) for tap in way.taps)
        for number, (tap, place) in enumerate(zip(way.taps, places, strict=True)):
            changes = words.rewritings(story, way, number)
            if changes:
                yield from self._rewriting(words.rewriter(story, way, number), way, changes)
            changed = {change.field for change in changes}
            source = self._endpoint("source", str(tap.packet.source), changed, sources)
            target = self._endpoint("destination", str(tap.packet.destination), changed)
            tunnel = tap.packet.tunnel
            inside = f"   {tunnel}" if tunnel else ""
            yield (
                f"  {number + 1:3}  {tap.machine:{machines}}  {place:{place_width}}  "
                f"{source} → {target}{inside}"
            )
        if ending := words.end(story, way):
            yield " " * 7 + self._paint(_RED, f"✕ {ending}")

    def _endpoint(self, field: str, text: str, changed: set[str], width: int = 0) -> str:
        padding = " " * (width - len(text))
        painted = self._paint(_CHANGED[field], text) if field in changed else text
        return painted + padding

    def _rewriting(self, who: str, way: Way, changes: tuple[Change, ...]) -> Iterator[str]:
        before = max(len(str(change.before)) for change in changes)
        for number, change in enumerate(changes):
            left = f"└ {who}" if number == 0 else ""
            after = self._paint(_CHANGED[change.field], str(change.after))
            yield (
                f"       {left:{len(who) + 2}}  {change.field:11}  "
                f"{change.before!s:{before}} → {after}  {words.translation(way, change)}"
            )

    def _table(self, stories: list[Story]) -> Iterator[str]:
        yield "  " + self._paint(_BOLD, f"All {len(stories)} connections")
        rows = []
        for story in stories:
            source = story.first.taps[0].packet.source if story.first else "no packet"
            rows.append((str(source), str(story.connection.asked), story.backend or "nobody"))
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for number, (source, asked, backend) in enumerate(rows, start=1):
            yield f"  {number:3}  {source:{widths[0]}} → {asked:{widths[1]}}   served by {backend}"
