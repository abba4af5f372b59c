"""A story as a drawing: machines side by side, time downwards, an arrow for each wire.

Every circle is a tap at which the packet was seen, with the number that it has in the text; an
arrow goes from the tap where it left a machine to the one where it came into the next. Each address
and port has a colour of its own, so that one sees who stands in whose place.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

from ebpf_lb.lessons.scenarios import words
from ebpf_lb.lessons.scenarios.canvas import FAINT, GREY, INK, PAPER, Canvas, mono_width, text_width
from ebpf_lb.lessons.scenarios.catalog import Scenario
from ebpf_lb.lessons.scenarios.frames import Endpoint
from ebpf_lb.lessons.scenarios.recording import Machine
from ebpf_lb.lessons.scenarios.way import Change, Story, Tap, Way

_TEXT = 12.0  # addresses' size
_TOWARDS, _BACK, _LOST = "#1971c2", "#2f9e44", "#e03131"
_MARK, _MARK_EDGE, _NOTE, _NOTE_EDGE = "#fff3bf", "#ffd43b", "#fff9db", "#f08c00"
_SOFT = "#495057"
_CLIENT, _SERVICE = "#1864ab", "#9c36b5"
_REPLACED = {"source": ("#d9480f", "#a61e4d"), "destination": ("#2b8a3e", "#0b7285")}
_GROUNDS = {"client": "#e7f5ff", "router": "#f1f3f5", "node": "#f8f9fa", "pod": "#ebfbee"}
_MARGIN, _HEAD, _RADIUS = 24.0, 54.0, 9.5
_NARROWEST, _PITCH, _GAP = 640.0, 180.0, 16.0


_CAPTURED = "Drawn from frames captured at every interface of every machine (AF_PACKET)."


def render(scenario: Scenario, story: Story, source: str = _CAPTURED) -> str:
    """The drawing of one connection as an SVG document. source: what it was drawn from."""
    return _Drawing(scenario, story, source).document()


def _width(text: object) -> float:
    return mono_width(text, _TEXT)


@dataclass
class _Group:
    """A machine, and the pods on it; lanes in the order in which packets first came to them."""

    lanes: list[Machine] = field(default_factory=list)
    left: float = 0.0
    right: float = 0.0


def _groups(story: Story) -> list[_Group]:
    groups: dict[str, _Group] = {}
    machines = {machine.name: machine for machine in story.machines}
    for way in (story.first, story.answer):
        for tap in way.taps if way else ():
            machine = machines[tap.machine]
            group = groups.setdefault(machine.node or machine.name, _Group())
            if machine not in group.lanes:
                group.lanes.append(machine)
    return list(groups.values())


def _colours(story: Story) -> dict[Endpoint, str]:
    """A colour for each address and port, by what it first was: the client's, the one that was
    asked, or what replaced one of them."""
    colours: dict[Endpoint, str] = {}
    for way in (story.first, story.answer):
        if way is None:
            continue
        packet = way.taps[0].packet
        asking = way is story.first
        if asking:
            colours.setdefault(packet.source, _CLIENT)
            colours.setdefault(story.connection.asked, _SERVICE)
            colours.setdefault(packet.destination, _REPLACED["destination"][0])
        for endpoint in packet.endpoints:
            colours.setdefault(endpoint, INK)
        for index in range(len(way.taps)):
            for change in way.changes(index):
                fresh = [c for c in _REPLACED[change.field] if c not in colours.values()]
                colours.setdefault(change.after, fresh[0] if fresh else INK)
    return colours


class _Drawing:
    """Draws from top to bottom; `_y` is where the next row begins."""

    def __init__(self, scenario: Scenario, story: Story, source: str):
        self._scenario, self._story, self._source = scenario, story, source
        self._colours = _colours(story)
        self._groups = _groups(story)
        self._canvas = Canvas()
        self._x: dict[str, float] = {}  # machine -> its lane
        self._right = self._place_lanes()
        self._y = _MARGIN

    def document(self) -> str:
        self._draw_title()
        top = self._y
        self._y += _HEAD + 30
        for way in (self._story.first, self._story.answer):
            if way is not None:
                self._draw_way(way)
        self._draw_lanes(top, self._y)
        self._y += 26
        self._draw_footer()
        title = f"{self._scenario.name}: {self._scenario.title}"
        return self._canvas.document(title, self._right, self._y + _MARGIN / 2)

    def _place_lanes(self) -> float:
        """Yields the drawing's width."""
        lanes = sum(len(group.lanes) for group in self._groups)
        addresses = max((_width(f"→ {endpoint}") for endpoint in self._colours), default=0.0)
        least = max(_NARROWEST, text_width(self._scenario.title, 19.0)) + 2 * _MARGIN
        pitch = max(_PITCH, addresses + 4 * _RADIUS + 24)
        pitch = max(pitch, (least - 2 * _MARGIN) / max(lanes, 1))
        heads = (self._head_width(m) for group in self._groups for m in group.lanes)
        pitch = max([pitch, *(width + _GAP for width in heads)])
        # below an arrow, interfaces' names stand beside its address
        names = (mono_width(self._interface(tap), 10.0) for tap in self._taps())
        pitch = max([pitch, *(width + addresses for width in names)])
        x = _MARGIN
        for group in self._groups:
            group.left = x
            for machine in group.lanes:
                self._x[machine.name] = x + pitch / 2
                x += pitch
            group.right = x - _GAP / 2
            x += _GAP / 2
        return max(x - _GAP / 2 + _MARGIN, least)

    # --- rows

    def _draw_title(self) -> None:
        connection = self._story.connection
        self._y += 14
        self._canvas.text(_MARGIN, self._y, self._scenario.title, size=19.0, bold=True)
        asked = f"{connection.machine} asked {connection.asked}: {words.outcome(self._story)}"
        self._y += 24
        self._canvas.text(_MARGIN, self._y, asked, size=13.0, fill=_SOFT)
        self._y += 22

    def _draw_way(self, way: Way) -> None:
        colour = _TOWARDS if way.towards_service else _BACK
        self._draw_heading(words.heading(way), colour)
        number, previous = 0, way.taps[0]
        while number < len(way.taps):
            tap = way.taps[number]
            changes = words.rewritings(self._story, way, number)
            self._draw_rewriting(tap, number, changes)
            following = way.taps[number + 1] if number + 1 < len(way.taps) else None
            if (
                following is not None
                and tap.outgoing
                and not following.outgoing
                and tap.machine != following.machine
            ):
                self._draw_arrow(tap, following, number, previous, colour)
                self._draw_rewriting(following, number + 1, way.changes(number + 1))
                previous, number = following, number + 2
            else:
                self._draw_passing(tap, number, colour)
                number += 1
        if ending := words.end(self._story, way):
            self._draw_loss(way.taps[-1], ending)
        self._y += 34

    def _draw_heading(self, heading: str, colour: str) -> None:
        label = f"{heading[0].upper()}{heading[1:]}"
        left, width = _MARGIN + 10, text_width(label, 12.5) + 30
        self._canvas.line(
            left, self._y - 14, self._right - _MARGIN - 10, self._y - 14, layer="behind",
            stroke=FAINT, stroke_dasharray="2 4",
        )  # fmt: skip
        self._canvas.rectangle(left, self._y - 25, width, 22, rx=11, fill=colour)
        self._canvas.text(
            left + width / 2, self._y - 9.5, label, fill=PAPER, bold=True, size=12.5,
            anchor="middle",
        )  # fmt: skip
        self._y += 18

    def _draw_arrow(self, tap: Tap, into: Tap, number: int, previous: Tap, colour: str) -> None:
        begin, end, y = self._x[tap.machine], self._x[into.machine], self._y + 22
        way = 1 if end > begin else -1
        self._canvas.arrow(begin + way * _RADIUS, end - way * (_RADIUS + 2), y, colour)
        for at, seen, shown in ((begin, tap, number), (end, into, number + 1)):
            self._canvas.circle(at, y, _RADIUS, colour, str(shown + 1))
            self._canvas.legible(at, y + 29, self._interface(seen))
        middle = (begin + end) / 2
        packet, before = tap.packet, previous.packet
        self._draw_endpoint(middle, y - 9, packet.source, packet.source != before.source)
        changed = packet.destination != before.destination
        self._draw_endpoint(middle, y + 19, packet.destination, changed, prefix="→ ")
        if packet.tunnel:
            inside = str(packet.tunnel)
            self._canvas.legible(middle, y + 44, inside)
            self._y += 16
        self._y += 66

    def _draw_endpoint(
        self, x: float, y: float, endpoint: Endpoint, marked: bool, prefix: str = ""
    ) -> None:
        """An address in its colour, on yellow where it has just been changed."""
        width = _width(f"{prefix}{endpoint}")
        left, colour = x - width / 2, self._colours.get(endpoint, INK)
        if marked:
            self._canvas.rectangle(
                left - 5, y - 12.5, width + 10, 17, rx=4, fill=_MARK, stroke=_MARK_EDGE
            )
        if prefix:
            self._canvas.text(left, y, prefix, size=_TEXT, mono=True, fill=GREY)
        self._canvas.text(
            left + _width(prefix), y, str(endpoint), size=_TEXT, mono=True, fill=colour, bold=marked
        )

    def _draw_passing(self, tap: Tap, number: int, colour: str) -> None:
        """A tap between two others of the same machine."""
        x, y = self._x[tap.machine], self._y + 9
        self._canvas.circle(x, y, _RADIUS, colour, str(number + 1))
        self._canvas.legible(x + _RADIUS + 6, y + 3.5, self._interface(tap), anchor="start")
        self._y += 28

    def _interface(self, tap: Tap) -> str:
        return words.interface(self._story, tap) + (" (on the wire)" if tap.on_wire else "")

    def _draw_rewriting(self, tap: Tap, number: int, changes: tuple[Change, ...]) -> None:
        if not changes:
            return
        canvas, arrow = self._canvas, _width("→ ")
        label = max(text_width(change.field, 11.0) for change in changes) + 8
        widest = max(_width(end) for change in changes for end in (change.before, change.after))
        width, height = 12 + label + arrow + widest + 14, 24 + 36.0 * len(changes)
        left = self._x[tap.machine] - width / 2
        left = min(max(left, _MARGIN + 6), self._right - _MARGIN - 6 - width)
        canvas.rectangle(
            left, self._y, width, height, rx=8, fill=_NOTE, stroke=_NOTE_EDGE, stroke_width=1.5
        )
        y, values = self._y + 17, left + 12 + label + arrow
        canvas.text(left + 12, y, words.rewriter(tap, number), size=11.5, bold=True, fill="#d9480f")
        for change in changes:
            old, new = (self._colours.get(end, INK) for end in (change.before, change.after))
            canvas.text(left + 12, y + 18, change.field, size=11.0, fill=GREY)
            canvas.text(values, y + 18, str(change.before), size=_TEXT, mono=True, fill=old)
            canvas.line(values - 2, y + 14, values + _width(change.before) + 2, y + 14, stroke=old)
            canvas.text(values - arrow, y + 34, "→", size=_TEXT, mono=True, fill=GREY)
            canvas.text(
                values, y + 34, str(change.after), size=_TEXT, mono=True, fill=new, bold=True
            )
            y += 36
        self._y += height + 12

    def _draw_loss(self, tap: Tap, ending: str) -> None:
        x = self._x[tap.machine]
        self._canvas.cross(x, self._y + 12, _LOST)
        self._y += 40
        lines = textwrap.wrap(ending, 46)
        width = max(text_width(line, 12.0) for line in lines)
        middle = min(max(x, _MARGIN + width / 2), self._right - _MARGIN - width / 2)
        for line in lines:
            self._canvas.legible(middle, self._y, line, size=12.0, fill=_LOST, bold=True)
            self._y += 17

    # --- behind and below

    def _draw_lanes(self, top: float, bottom: float) -> None:
        for group in self._groups:
            kind = "node" if any(m.kind == "pod" for m in group.lanes) else group.lanes[0].kind
            self._canvas.rectangle(
                group.left, top, group.right - group.left, bottom - top, layer="ground", rx=12,
                fill=_GROUNDS.get(kind, _GROUNDS["node"]), stroke=FAINT, stroke_width=1.5,
            )  # fmt: skip
            for machine in group.lanes:
                self._draw_lane(machine, top, bottom)

    def _draw_lane(self, machine: Machine, top: float, bottom: float) -> None:
        x, pod = self._x[machine.name], machine.kind == "pod"
        name, address = self._name(machine), self._address(machine)
        width = self._head_width(machine)
        self._canvas.line(
            x, top + _HEAD, x, bottom - 10, layer="behind", stroke="#ced4da", stroke_width=2
        )
        self._canvas.rectangle(
            x - width / 2, top + 9, width, _HEAD - 12, layer="behind", rx=8, stroke_width=1.5,
            fill=_GROUNDS["pod"] if pod else PAPER, stroke="#51cf66" if pod else "#adb5bd",
        )  # fmt: skip
        self._canvas.text(x, top + 27, name, size=14.0, bold=True, anchor="middle")
        self._canvas.text(x, top + 43, address, size=11.0, fill=GREY, mono=True, anchor="middle")

    def _head_width(self, machine: Machine) -> float:
        name, address = self._name(machine), self._address(machine)
        return max(text_width(name, 14.0), mono_width(address, 11.0)) + 30

    def _name(self, machine: Machine) -> str:
        return f"pod {machine.name.rpartition('/')[2]}" if machine.kind == "pod" else machine.name

    def _taps(self) -> Iterator[Tap]:
        for way in (self._story.first, self._story.answer):
            yield from way.taps if way else ()

    def _address(self, machine: Machine) -> str:
        """The one that the packets carry, else the machine's first of their family."""
        used = {endpoint.address for endpoint in self._colours}
        version6 = ":" in self._story.connection.asked.address
        ours = [a for a in machine.addresses if (":" in a) == version6]
        return next((a for a in ours if a in used), ours[0] if ours else "")

    def _draw_footer(self) -> None:
        x = _MARGIN
        for endpoint, role in self._roles():
            width = 26 + _width(endpoint) + text_width(role, 11.5) + 22
            if x + width > self._right - _MARGIN and x > _MARGIN:
                x, self._y = _MARGIN, self._y + 22
            colour = self._colours[endpoint]
            self._canvas.rectangle(x, self._y - 10, 12, 12, rx=3, fill=colour)
            self._canvas.text(x + 18, self._y, str(endpoint), size=_TEXT, mono=True, fill=colour)
            self._canvas.text(x + 26 + _width(endpoint), self._y, role, size=11.5, fill=GREY)
            x += width
        self._y += 26
        letters = int((self._right - 2 * _MARGIN) / text_width("x", 12.0))
        for sentence in words.remarks(self._story):
            for line in textwrap.wrap(sentence, letters):
                self._canvas.text(_MARGIN, self._y, line, fill=_SOFT)
                self._y += 18
        self._canvas.text(_MARGIN, self._y, self._source, size=11.0, fill=GREY)

    def _roles(self) -> Iterator[tuple[Endpoint, str]]:
        """Whose address each is, as the machines' own addresses say."""
        for endpoint in self._colours:
            owner = self._story.owner(endpoint.address)
            yield endpoint, owner or f"Service {self._scenario.service}"
