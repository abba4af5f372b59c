"""What the programs have counted: by reason, by Service, and what became of connections."""

from collections.abc import Iterator
from typing import NamedTuple

from ebpf_lb.datapath.layout import Reason
from ebpf_lb.datapath.reader.view import View

_EVICTED = "EVICTED_"
_BEING_WRITTEN = ("FREE", "CLAIMED", "TENTATIVE")


class ReasonCount(NamedTuple):
    """`reason` is None for a number that this version does not know."""

    number: int
    reason: Reason | None
    packets: int
    bytes: int


class ServiceCount(NamedTuple):
    """Of a Service port; packets and bytes of both directions."""

    service_id: int
    service: str
    protocol: str
    connections: int
    packets: int
    bytes: int


class ServiceDrops(NamedTuple):
    """Packets that were dropped or refused on the way to a Service port; `service` is None where it
    was not known, or where there was none."""

    service_id: int
    service: str | None
    protocol: str | None
    reason: Reason
    packets: int


class Outcome(NamedTuple):
    """What became of a backend's connections that have ended, since the maps were made or its
    number was another's."""

    answered: int
    refused: int
    unanswered: int


NO_OUTCOME = Outcome(0, 0, 0)


class FlowEvent(NamedTuple):
    """`evicted`: the state of connections that gave their place to a new one; "" for all else."""

    name: str
    evicted: str
    times: int


class Census(NamedTuple):
    """Entries of the connection table as the last complete sweep found them."""

    by_state: dict[str, int]
    signposts: int

    @property
    def total(self) -> int:
        return sum(self.by_state.values()) + self.signposts


def reason_counts(view: View) -> Iterator[ReasonCount]:
    """All reasons, those at zero too; and numbers unknown to us that were counted."""
    reasons = view.layout.reasons
    for number, copies in view.rows("counters"):
        packets = sum(copy.packets for copy in copies)
        reason = reasons.get(number)
        if reason or packets:
            yield ReasonCount(number, reason, packets, sum(copy.bytes for copy in copies))


def service_counts(view: View) -> Iterator[ServiceCount]:
    """Service ports for which nothing was counted are left out."""
    opened, unpack = view.map("service_counters"), view.layout.struct("service_counter").unpack
    if opened is None or not view.names:
        return
    values = _elements(view, "service_counters", max(view.names) + 1)
    for number, name in view.names.items():
        data = values.get(number)
        if data is None:
            continue
        copies = [unpack(copy) for copy in opened.copies(data)]
        yield ServiceCount(
            number,
            name.service,
            name.protocol,
            sum(copy.connections for copy in copies),
            sum(copy.packets for copy in copies),
            sum(copy.bytes for copy in copies),
        )


def service_drops(view: View) -> Iterator[ServiceDrops]:
    """By Service and reason."""
    reasons = view.layout.reasons
    found = []
    for key, copies in view.rows("service_drops"):
        name = view.names.get(key.service_id)
        if key.reason in reasons and (name or not key.service_id):
            found.append(
                ServiceDrops(
                    key.service_id,
                    name.service if name else None,
                    name.protocol if name else None,
                    reasons[key.reason],
                    sum(copies),
                )
            )
    yield from sorted(found, key=lambda one: (one.service or "", one.service_id, one.reason.number))


def outcomes(view: View) -> dict[int, tuple[int, bytes, int, Outcome]]:
    """By the backend's number: its Service, address and port then, and what was counted."""
    if view.map("outcomes") is None:
        return {}
    unpack, kinds = view.layout.struct("outcome").unpack, view.short("outcome_kind")
    places = (kinds["ANSWERED"], kinds["REFUSED"], kinds["UNANSWERED"])
    found = {}
    for number, data in view.used_elements("outcomes"):
        value = unpack(data)
        counts = Outcome(*(value.counts[place] for place in places))
        found[number] = (value.service_id, value.address, value.port, counts)
    return found


def flow_events(view: View) -> Iterator[FlowEvent]:
    names = {number: name for name, number in view.short("flow_event").items()}
    for number, copies in view.rows("flow_events"):
        if number in names:
            name = names[number]
            evicted = name.removeprefix(_EVICTED) if name.startswith(_EVICTED) else ""
            yield FlowEvent(name, evicted, sum(copies))


def census(view: View) -> Census | None:
    """None before a first sweep has been through the whole table."""
    states = {number: name for name, number in view.short("flow_state").items()}
    for _, value in view.rows("census"):
        if value.passes:
            signposts = value.counted[view.layout.defines["CENSUS_SIGNPOSTS"] :]
            by_state = {
                name: value.counted[number]
                for number, name in sorted(states.items())
                if name not in _BEING_WRITTEN
            }
            return Census(by_state, sum(signposts))
    return None


def _elements(view: View, name: str, count: int) -> dict[int, bytes]:
    """The values of an array's first `count` elements that are not all zero."""
    opened = view.map(name)
    assert opened is not None
    found: dict[int, bytes] = {}
    step = 1024
    for first in range(0, min(count, opened.max_entries), step):
        here = min(step, opened.max_entries - first)
        data = opened.slice(first, here)
        width = len(data) // here
        if not any(data):
            continue
        for index in range(here):
            value = data[index * width : (index + 1) * width]
            if any(value):
                found[first + index] = value
    return found
