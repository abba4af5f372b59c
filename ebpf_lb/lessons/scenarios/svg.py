"""Stories as a slide: machines side by side, an arrow for each wire, the request above and the
answer below it, in the shape of a screen (16:9), with letters that can be read from afar.

Every circle is a tap at which the packet was seen, with the number that it has in the text; an
arrow goes from the tap where it left a machine to the one where it came into the next. Each address
and port has a colour of its own, so that one sees who stands in whose place.
"""

import itertools
import textwrap
from collections.abc import Iterable, Sequence

from ebpf_lb.lessons.scenarios import lanes, words
from ebpf_lb.lessons.scenarios.canvas import FAINT, GREY, INK, PAPER, Canvas, mono_width, text_width
from ebpf_lb.lessons.scenarios.catalog import Scenario
from ebpf_lb.lessons.scenarios.frames import Endpoint
from ebpf_lb.lessons.scenarios.rows import (
    Rewriting,
    Row,
    Run,
    Station,
    lane_of,
    machine_of,
    runs,
)
from ebpf_lb.lessons.scenarios.way import Change, Story, Tap

_F = 28.0  # the letters' size; all else goes by it
_SMALL, _HEADING, _TITLE = 0.8 * _F, 0.92 * _F, 1.45 * _F
_MARGIN, _GAP, _RADIUS = 0.9 * _F, 0.9 * _F, 0.62 * _F
_NOTE_HEIGHT = 5.3 * _F
_HEAD = 2.9 * _F  # a machine's name and address
_SHAPE = 16 / 9
_TOWARDS, _BACK, _LOST = "#1864ab", "#2b8a3e", "#e03131"
_MARK, _MARK_EDGE, _NOTE, _NOTE_EDGE = "#fff3bf", "#ffd43b", "#fff9db", "#f08c00"
_SOFT, _REWRITER = "#495057", "#d9480f"
_CLIENT, _SERVICE = "#1864ab", "#9c36b5"
_REPLACED = {"source": ("#d9480f", "#a61e4d"), "destination": ("#2b8a3e", "#0b7285")}
_GROUNDS = {"client": "#e7f5ff", "router": "#f1f3f5", "node": "#f8f9fa", "pod": "#ebfbee"}

_CAPTURED = "Drawn from frames captured at every interface of every machine (AF_PACKET)."


def render(scenario: Scenario, story: Story, *more: Story, source: str = _CAPTURED) -> str:
    """One connection, there and back; of several, the way there of each. source: what it was drawn
    from."""
    connection = story.connection
    if more:
        stories = (story, *more)
        rows = [
            Row(one, one.first, f"connection {number}", brief=True)
            for number, one in enumerate(stories, 1)
            if one.first is not None
        ]
        asked = f"{connection.machine} asked {connection.asked} {len(stories)} times"
        remarks = _served(stories)
    else:
        ways = (way for way in (story.first, story.answer) if way is not None)
        rows = [Row(story, way, words.heading(way)) for way in ways]
        asked = f"{connection.machine} asked {connection.asked}: {words.outcome(story)}"
        remarks = words.remarks(story)
    return _Slide(scenario.title, asked, rows, remarks, source).document(scenario.name)


def render_beside(shown: Sequence[tuple[Scenario, Story]], source: str = _CAPTURED) -> str:
    """Connections of several lessons, to be compared: one below the other, there and back."""
    rows, remarks = [], []
    for scenario, story in shown:
        for way in (story.first, story.answer):
            if way is not None:
                what = "the answer" if way is story.answer else words.request(way)
                rows.append(Row(story, way, f"{scenario.name}: {what}", brief=True))
        remarks += [f"{scenario.name}: {one}" for one in words.remarks(story)[:1]]
    names = " beside ".join(scenario.name for scenario, _ in shown)
    asked = "; ".join(f"{one.title}" for one, _ in shown)
    return _Slide(names, asked, rows, remarks, source).document(names)


def _served(stories: Sequence[Story]) -> list[str]:
    served = [story.backend or "nobody" for story in stories]
    if len(set(served)) == 1:
        return [f"All {len(stories)} connections were served by {served[0]}."]
    listed = ", ".join(f"{number}: {name}" for number, name in enumerate(served, 1))
    return [f"Served by {listed}."]


def _width(text: object) -> float:
    return mono_width(text, _F)


def _bold_width(text: str, size: float) -> float:
    return 1.15 * text_width(text, size)


def _colours(rows: Sequence[Row]) -> dict[Endpoint, str]:
    """A colour for each address and port, by what it first was: the client's, the one that was
    asked, or what replaced one of them."""
    colours: dict[Endpoint, str] = {}
    for row in rows:
        way, packet = row.way, row.way.taps[0].packet
        if way.towards_service:
            colours.setdefault(packet.source, _CLIENT)
            colours.setdefault(row.story.connection.asked, _SERVICE)
            colours.setdefault(packet.destination, _REPLACED["destination"][0])
        for endpoint in packet.endpoints:
            colours.setdefault(endpoint, INK)
        for index in range(len(way.taps)):
            for change in way.changes(index):
                fresh = [c for c in _REPLACED[change.field] if c not in colours.values()]
                kept = _REPLACED[change.field][0]
                colours.setdefault(change.after, fresh[0] if fresh else kept)
    return colours


def _groups(rows: Sequence[Row]) -> list[lanes.Group]:
    """Lanes in the order in which packets first came to them."""
    groups: dict[str, lanes.Group] = {}
    for row in rows:
        machines = {machine.name: machine for machine in row.story.machines}
        for tap in row.way.taps:
            machine, lane = machines[tap.machine], lane_of(row.story, tap.machine)
            group = groups.setdefault(machine.node or machine.name, lanes.Group())
            if lane not in group.lanes:
                group.lanes.append(lane)
    return list(groups.values())


class _Slide:
    """Draws from top to bottom; `_y` is where the next part begins."""

    def __init__(
        self, title: str, asked: str, rows: list[Row], remarks: list[str], source: str
    ) -> None:
        self._title, self._asked, self._rows = title, asked, rows
        self._remarks, self._source = remarks, source
        self._colours = _colours(rows)
        self._groups = _groups(rows)
        self._order = [lane for group in self._groups for lane in group.lanes]
        self._lines = [(row, row.lines(self._order)) for row in rows]
        self._kinds = {lane: machine_of(row.story, lane).kind for row, lane in self._seen()}
        self._heads = {lane: self._head_width(lane) for lane in self._order}
        self._canvas, self._y = Canvas(), 0.0
        self._lanes = self._place(0.0)
        self._right = self._lanes.width

    def document(self, name: str) -> str:
        """Once to see how high it gets, and once more in the shape of a screen."""
        for _ in range(2):
            height = self._draw(0.0)
            self._lanes = self._place(max(self._lanes.width, height * _SHAPE))
        height = self._draw(0.0)
        width = max(self._lanes.width, height * _SHAPE)
        spare = width / _SHAPE - height
        self._draw(spare / max(1, len(self._rows) + 1))
        return self._canvas.document(f"{name}: {self._title}", width, width / _SHAPE)

    def _draw(self, spare: float) -> float:
        """spare: what is left between rows. Returns the height."""
        self._canvas, self._y, self._right = Canvas(), _MARGIN, self._lanes.width
        self._draw_title()
        top = self._y
        self._y += _HEAD + 0.7 * _F + spare / 2
        for row, lines in self._lines:
            self._draw_row(row, lines)
            self._y += spare + 0.45 * _F
        self._draw_lanes(top, self._y)
        self._y += 1.2 * _F
        self._draw_footer()
        return self._y

    # --- how much room

    def _place(self, least: float) -> lanes.Lanes:
        titles = (text_width(self._title, _TITLE), text_width(self._asked, _F * 0.95))
        least = max([least, *(width + 2 * _MARGIN for width in titles)])
        wanted, beyond = self._wanted(), self._beyond()
        return lanes.place(self._groups, self._heads, wanted, _MARGIN, _GAP, least, beyond)

    def _beyond(self) -> tuple[float, float]:
        """What stands beside the outermost lanes: see `_turns_at`."""
        room = [0.0, 0.0]
        for row, lines in self._lines:
            for number, line in enumerate(lines):
                for note in row.rewritings(line):
                    side = self._turns_at(row, lines, number, note)
                    if side:
                        width = self._away(row, line, note) + self._note_width(note) + 0.3 * _F
                        room[side > 0] = max(room[side > 0], width)
        return room[0], room[1]

    def _turns_at(self, row: Row, lines: list[list[Station]], number: int, note: Rewriting) -> int:
        """1 or -1 where a packet turns round at the outermost lane on the right or left, so that a
        note has room beside it; else 0."""
        ends = {line[at].lane for line, at in self._turns(lines)}
        if row.brief or note.lane not in ends:
            return 0
        return {self._order[-1]: 1, self._order[0]: -1}.get(note.lane, 0)

    def _turns(self, lines: list[list[Station]]) -> Iterable[tuple[list[Station], int]]:
        yield from ((line, -1) for line in lines[:-1])
        yield from ((line, 0) for line in lines[1:])

    def _wanted(self) -> Iterable[lanes.Wanted]:
        """Labels between the lanes that they are between; notes of neighbours side by side."""
        for row, lines in self._lines:
            for line in lines:
                for run in runs(line):
                    ends = [self._order.index(line[n].lane) for n in (run.first, run.last)]
                    between = self._label_width(run.tap) + self._beside(row, line, run)
                    yield lanes.Wanted(min(ends), max(ends), between)
                notes = [] if row.brief else row.rewritings(line)
                for one, other in itertools.pairwise(notes):
                    ends = [self._order.index(each.lane) for each in (one, other)]
                    if ends[0] != ends[1]:
                        width = (self._note_width(one) + self._note_width(other)) / 2 + _GAP
                        yield lanes.Wanted(min(ends), max(ends), width)

    def _beside(self, row: Row, line: list[Station], run: Run) -> float:
        """What stands at both ends of a label."""
        ends = (line[run.first], line[run.last])
        circles = sum(self._station_width(one) for one in ends) / 2 + 0.8 * _F
        names = 0.0
        if row.brief:
            names = max(self._pill_width(row, one) for one in ends)
        return max(circles, names + 0.6 * _F)

    def _station_width(self, station: Station) -> float:
        return len(station.seen) * (2 * _RADIUS + 0.15 * _F)

    def _label_width(self, tap: Tap) -> float:
        packet = tap.packet
        found = [_width(packet.source), _width(f"→ {packet.destination}")]
        if packet.tunnel:
            found.append(mono_width(packet.tunnel, _SMALL))
        return max(found)

    def _seen(self) -> Iterable[tuple[Row, str]]:
        for row in self._rows:
            for tap in row.way.taps:
                yield row, lane_of(row.story, tap.machine)

    def _head_width(self, lane: str) -> float:
        words_ = [_bold_width(lane, _F * 1.05), mono_width(self._address(lane), _SMALL)]
        names = [
            mono_width(self._interfaces(row, station), _SMALL * 0.9)
            for row, lines in self._lines
            for line in lines
            for station in line
            if station.lane == lane and not row.brief
        ]
        return max([*words_, *names]) + 0.9 * _F

    def _address(self, lane: str) -> str:
        """The one that the packets carry, else the machine's first of their family; "" where the
        stories do not agree."""
        used = {endpoint.address for endpoint in self._colours}
        found = set()
        for row, seen in self._seen():
            if seen == lane:
                version6 = ":" in row.story.connection.asked.address
                ours = [a for a in machine_of(row.story, lane).addresses if (":" in a) == version6]
                found.add(next((a for a in ours if a in used), ours[0] if ours else ""))
        return found.pop() if len(found) == 1 else ""

    # --- rows

    def _draw_title(self) -> None:
        self._y += 0.9 * _F
        self._canvas.text(_MARGIN, self._y, self._title, size=_TITLE, bold=True)
        self._y += 1.45 * _F
        self._canvas.text(_MARGIN, self._y, self._asked, size=_F * 0.95, fill=_SOFT)
        self._y += 0.8 * _F

    def _draw_row(self, row: Row, lines: list[list[Station]]) -> None:
        colour = _TOWARDS if row.way.towards_service else _BACK
        self._draw_heading(row.heading, colour)
        for number, line in enumerate(lines):
            notes = [] if row.brief else row.rewritings(line)
            beside = [(one, self._turns_at(row, lines, number, one)) for one in notes]
            top = self._y
            self._draw_line(row, line, colour, [one for one, side in beside if not side])
            for note, side in beside:
                if side:
                    self._draw_beside(row, line, note, side, top)
        if ending := words.end(row.story, row.way):
            self._draw_loss(lines[-1][-1].lane, ending)

    def _draw_heading(self, heading: str, colour: str) -> None:
        named = ": " in heading  # a scenario's name stays as it is
        label = heading if named else f"{heading[0].upper()}{heading[1:]}"
        left, width = _MARGIN + 0.4 * _F, _bold_width(label, _HEADING) + _F
        self._canvas.line(
            left, self._y, self._right - _MARGIN - 0.4 * _F, self._y, layer="behind",
            stroke="#ced4da", stroke_width=2, stroke_dasharray="4 8",
        )  # fmt: skip
        self._canvas.rectangle(left, self._y - 0.7 * _F, width, 1.4 * _F, rx=0.7 * _F, fill=colour)
        self._canvas.text(
            left + width / 2, self._y + 0.33 * _F, label, fill=PAPER, bold=True, size=_HEADING,
            anchor="middle",
        )  # fmt: skip
        self._y += 0.85 * _F

    def _away(self, row: Row, line: list[Station], note: Rewriting) -> float:
        """How far from its lane's middle a note stands beside it."""
        station = next(one for one in line if one.lane == note.lane)
        names = mono_width(self._interfaces(row, station), _SMALL * 0.9)
        return max(self._station_width(station), names) / 2 + 0.5 * _F

    def _draw_beside(
        self, row: Row, line: list[Station], note: Rewriting, side: int, top: float
    ) -> None:
        """`top`: of the line, which is as high as its notes at least."""
        width, away = self._note_width(note), self._away(row, line, note)
        x = self._lanes.x[note.lane]
        self._draw_note(note, x + away if side > 0 else x - away - width, top + 0.2 * _F)
        self._y = max(self._y, top + 0.2 * _F + _NOTE_HEIGHT + 0.3 * _F)

    def _draw_line(
        self, row: Row, line: list[Station], colour: str, notes: list[Rewriting]
    ) -> None:
        y = self._y + 1.95 * _F
        places = {id(station): self._circles(line, number) for number, station in enumerate(line)}
        for one, other in itertools.pairwise(line):
            begin, end = places[id(one)][-1], places[id(other)][0]
            way = 1 if end > begin else -1
            self._canvas.arrow(
                begin + way * _RADIUS, end - way * (_RADIUS + 2), y, colour, width=0.12 * _F
            )
        for station in line:
            for (number, _), x in zip(station.seen, places[id(station)], strict=True):
                self._canvas.circle(x, y, _RADIUS, colour, str(number + 1))
        tunnelled = False
        for run in runs(line):
            begin = places[id(line[run.first])][-1]
            end = places[id(line[run.last])][0]
            tunnelled = self._draw_label((begin + end) / 2, y, run) or tunnelled
        self._y = y + (2.0 if tunnelled else 0.8) * _F
        if row.brief:
            self._draw_pills(row, line, y)
            self._y += 1.15 * _F
            return
        self._y += 1.75 * _F
        for station in line:
            names = self._interfaces(row, station)
            x = self._lanes.x[station.lane]
            self._canvas.legible(x, self._y, names, size=_SMALL * 0.9, fill=_SOFT)
        self._y += 0.5 * _F
        self._draw_notes(notes)

    def _circles(self, line: list[Station], number: int) -> list[float]:
        """Where a station's circles are, in the order of its taps."""
        station = line[number]
        other = line[number + 1] if number + 1 < len(line) else line[number - 1]
        ahead = self._lanes.x[other.lane] - self._lanes.x[station.lane]
        way = -1.0 if (ahead < 0) == (number + 1 < len(line)) else 1.0
        step, count = 2 * _RADIUS + 0.15 * _F, len(station.seen)
        middle = self._lanes.x[station.lane]
        return [middle + way * step * (n - (count - 1) / 2) for n in range(count)]

    def _draw_label(self, x: float, y: float, run: Run) -> bool:
        """Whether it has a third line, of a tunnel."""
        packet, before = run.tap.packet, run.before.packet
        self._draw_endpoint(x, y - 0.95 * _F, packet.source, packet.source != before.source)
        changed = packet.destination != before.destination
        self._draw_endpoint(x, y + 1.5 * _F, packet.destination, changed, prefix="→ ")
        if packet.tunnel:
            self._canvas.legible(x, y + 2.6 * _F, str(packet.tunnel), size=_SMALL, fill=_SOFT)
        return packet.tunnel is not None

    def _draw_endpoint(
        self, x: float, y: float, endpoint: Endpoint, marked: bool, prefix: str = ""
    ) -> None:
        """An address in its colour, on yellow where it has just been changed."""
        width = _width(f"{prefix}{endpoint}")
        left, colour = x - width / 2, self._colours.get(endpoint, INK)
        if marked:
            self._canvas.rectangle(
                left - 0.25 * _F, y - 0.92 * _F, width + 0.5 * _F, 1.22 * _F, rx=6,
                fill=_MARK, stroke=_MARK_EDGE,
            )  # fmt: skip
        if prefix:
            self._canvas.text(left, y, prefix, size=_F, mono=True, fill=GREY)
        self._canvas.text(
            left + _width(prefix), y, str(endpoint), size=_F, mono=True, fill=colour, bold=marked
        )

    def _interfaces(self, row: Row, station: Station) -> str:
        """In the order of its taps, one after the other."""
        names: list[str] = []
        for _, tap in station.seen:
            name = words.interface(row.story, tap) + (" (XDP)" if tap.on_wire else "")
            if not names or names[-1] != name:
                names.append(name)
        return " → ".join(names)

    def _pill(self, row: Row, station: Station) -> str:
        (*found,) = row.rewritings([station])
        named = list(dict.fromkeys(name for one in found for name, _ in one.changes))
        if not named:
            return ""
        undone = " undone" if named[0].endswith(" undone") else ""
        where = " at XDP" if any("XDP" in one.who for one in found) else ""
        return " + ".join(name.removesuffix(undone) for name in named) + undone + where

    def _pill_width(self, row: Row, station: Station) -> float:
        text = self._pill(row, station)
        return _bold_width(text, _HEADING) + 0.6 * _F if text else 0.0

    def _draw_pills(self, row: Row, line: list[Station], y: float) -> None:
        for station in line:
            text = self._pill(row, station)
            if not text:
                continue
            x, width = self._lanes.x[station.lane], self._pill_width(row, station)
            left = min(max(x - width / 2, _MARGIN), self._right - _MARGIN - width)
            self._canvas.rectangle(
                left, y + 0.72 * _F, width, 1.2 * _F, rx=6, fill=_NOTE, stroke=_NOTE_EDGE,
                stroke_width=2,
            )  # fmt: skip
            self._canvas.text(
                left + width / 2, y + 1.62 * _F, text, size=_HEADING, bold=True,
                fill=_REWRITER, anchor="middle",
            )  # fmt: skip

    def _note_width(self, note: Rewriting) -> float:
        columns = sum(self._column_width(*one) for one in note.changes)
        gaps = (len(note.changes) - 1) * _F
        return max(columns + gaps, text_width(note.who, _HEADING)) + _F

    def _column_width(self, name: str, change: Change) -> float:
        return max(text_width(name, _HEADING), _width(change.before), _width(f"→ {change.after}"))

    def _draw_notes(self, notes: list[Rewriting]) -> None:
        if not notes:
            return
        for note in notes:
            width = self._note_width(note)
            left = self._lanes.x[note.lane] - width / 2
            left = min(max(left, _MARGIN + 0.3 * _F), self._right - _MARGIN - 0.3 * _F - width)
            self._draw_note(note, left, self._y)
        self._y += _NOTE_HEIGHT + 0.3 * _F

    def _draw_note(self, note: Rewriting, left: float, top: float) -> None:
        width = self._note_width(note)
        self._canvas.rectangle(
            left, top, width, _NOTE_HEIGHT, rx=10, fill=_NOTE, stroke=_NOTE_EDGE, stroke_width=2
        )
        x, y = left + _F / 2, top + 1.1 * _F
        self._canvas.text(x, y, f"{note.who}:", size=_HEADING, fill=_SOFT)
        for name, change in note.changes:
            self._draw_change(x, y + 1.2 * _F, name, change)
            x += self._column_width(name, change) + _F

    def _draw_change(self, x: float, y: float, name: str, change: Change) -> None:
        canvas = self._canvas
        old, new = (self._colours.get(end, INK) for end in (change.before, change.after))
        canvas.text(x, y, name, size=_HEADING, bold=True, fill=_REWRITER)
        y += 1.25 * _F
        canvas.text(x, y, str(change.before), size=_F, mono=True, fill=old)
        canvas.line(
            x - 3, y - 0.3 * _F, x + _width(change.before) + 3, y - 0.3 * _F, stroke=old,
            stroke_width=2,
        )  # fmt: skip
        y += 1.25 * _F
        canvas.text(x, y, "→ ", size=_F, mono=True, fill=GREY)
        canvas.text(x + _width("→ "), y, str(change.after), size=_F, mono=True, fill=new, bold=True)

    def _draw_loss(self, lane: str, ending: str) -> None:
        lines = textwrap.wrap(ending, 56)
        width = max(_bold_width(line, _HEADING) for line in lines)
        x = self._lanes.x[lane]
        left = min(max(x - width / 2, _MARGIN), self._right - _MARGIN - width - 0.3 * _F)
        self._y += 0.9 * _F
        self._canvas.cross(x, self._y - 0.3 * _F, _LOST, size=0.45 * _F)
        self._y += 0.3 * _F
        for line in lines:
            self._y += 1.1 * _F
            self._canvas.legible(
                left, self._y - 0.2 * _F, line, size=_HEADING, fill=_LOST, bold=True,
                anchor="start",
            )  # fmt: skip
        self._y += 0.5 * _F

    # --- behind and below

    def _draw_lanes(self, top: float, bottom: float) -> None:
        for group, (left, right) in zip(self._lanes.groups, self._lanes.borders, strict=True):
            kinds = [self._kinds[lane] for lane in group.lanes]
            kind = "node" if "pod" in kinds else kinds[0]
            self._canvas.rectangle(
                left, top, right - left, bottom - top, layer="ground", rx=14,
                fill=_GROUNDS.get(kind, _GROUNDS["node"]), stroke=FAINT, stroke_width=2,
            )  # fmt: skip
            for lane in group.lanes:
                self._draw_lane(lane, top, bottom)

    def _draw_lane(self, lane: str, top: float, bottom: float) -> None:
        x, pod, address = self._lanes.x[lane], self._kinds[lane] == "pod", self._address(lane)
        width = self._heads[lane]
        self._canvas.line(
            x, top + _HEAD, x, bottom - 0.4 * _F, layer="ground", stroke=FAINT, stroke_width=3
        )
        self._canvas.rectangle(
            x - width / 2, top + 0.35 * _F, width, _HEAD - 0.55 * _F, layer="behind", rx=10,
            stroke_width=2, fill=_GROUNDS["pod"] if pod else PAPER,
            stroke="#51cf66" if pod else "#adb5bd",
        )  # fmt: skip
        y = top + (1.4 if address else 1.75) * _F
        self._canvas.text(x, y, lane, size=_F * 1.05, bold=True, anchor="middle")
        if address:
            self._canvas.text(
                x, top + 2.3 * _F, address, size=_SMALL, fill=_SOFT, mono=True, anchor="middle"
            )

    def _draw_footer(self) -> None:
        letters = int((self._right - 2 * _MARGIN) / text_width("x", _HEADING))
        for sentence in self._remarks:
            for line in textwrap.wrap(sentence, letters):
                self._canvas.text(_MARGIN, self._y, line, fill=INK, size=_HEADING)
                self._y += 1.15 * _F
        for line in textwrap.wrap(self._source, int(letters * _HEADING / (_SMALL * 0.9))):
            self._canvas.text(_MARGIN, self._y, line, size=_SMALL * 0.9, fill=GREY)
            self._y += _F
