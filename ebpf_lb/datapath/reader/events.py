"""What programs tell while somebody listens: the map `events`, a ring that overwrites its oldest.

A listener renews its wish (the map `listening`) while it lives, and sees by the events' numbers
what it was too slow for. Several may listen at once; nobody waits for any.
"""

import struct
from enum import Enum
from typing import NamedTuple, Self

from ebpf_lb.datapath import clock
from ebpf_lb.datapath.layout import Reason
from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.reader.headers import read_headers
from ebpf_lb.datapath.reader.view import View, protocol_name
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Family

_WISH_S = 3.0
_TICKS = 1 << 32


class Place(Enum):
    """Where something happened (enum event_place)."""

    TC = "TC"
    XDP = "XDP"
    SOCKET = "SOCKET"


class Event(NamedTuple):
    """A packet that was dropped, refused or left alone for a reason, or a new connection.

    At sockets there is no packet, and the source is not known. `backend` is None where none was
    chosen. `time_ns`: of CLOCK_MONOTONIC.
    """

    number: int
    time_ns: int
    family: Family
    reason: Reason
    service_id: int
    service: str | None
    place: Place
    ifindex: int
    protocol: str
    source: bytes | None
    source_port: int
    destination: bytes | None
    destination_port: int
    backend: bytes | None
    backend_port: int
    packet_bytes: int
    link_header: int
    packet: bytes


class Listener:
    """Listens to one family's programs, for `with`."""

    def __init__(self, view: View) -> None:
        """Starts with what happens from now on. UserError where the build tells nothing."""
        self._view = view
        self._listening = _writable(view, "listening")
        self._events = _writable(view, "events")
        self._wish = view.layout.struct("listening")
        self._event = view.layout.struct("event")
        self._places = {number: Place(name[9:]) for name, number in _places(view).items()}
        self._clock = view.program("clock")
        self._next = self._told()
        self.lost = 0
        """Events that were overwritten before they were read."""

    def listen(self, *, drops: bool, new: bool, for_s: float = _WISH_S) -> None:
        """Call it again before `for_s` is over."""
        until = (clock.now(self._clock) + round(for_s * clock.ticks_per_second())) % _TICKS or 1
        # in place, half a word each: the programs count in the same element
        with self._listening.mapped(writable=True) as mapped:
            at = self._wish.offset("drops_until")
            one, two = struct.unpack_from("=II", mapped.data, at)
            struct.pack_into("=II", mapped.data, at, until if drops else one, until if new else two)

    def take(self) -> list[Event]:
        """What has happened since the last time, in order."""
        told, room = self._told(), self._events.max_entries
        if told - self._next > room:
            self.lost += told - self._next - room
            self._next = told - room
        found = []
        if told != self._next:
            with self._events.mapped(writable=False) as mapped:
                for number in range(self._next, told):
                    data = mapped.element(number % room, self._event.size)
                    event = self._read(number, data)
                    if event is not None:
                        found.append(event)
        self._next = told
        return found

    def _read(self, number: int, data: bytes) -> Event | None:
        one = self._event.unpack(data)
        reason = self._view.layout.reasons.get(one.reason)
        if one.number != number + 1 or reason is None:
            self.lost += 1  # being written, by a program that was interrupted, or overwritten
            return None
        packet = one.packet[: one.kept_bytes]
        socket = self._places[one.place] is Place.SOCKET
        headers = None if socket else read_headers(packet, one.link_header, self._view.family)
        return Event(
            one.number,
            one.time_ns,
            self._view.family,
            reason,
            one.service_id,
            self._view.service(one.service_id),
            self._places[one.place],
            one.ifindex,
            headers.protocol if headers else protocol_name(one.protocol),
            headers.source if headers else None,
            headers.source_port if headers else 0,
            headers.destination if headers else one.frontend if socket else None,
            headers.destination_port if headers else one.frontend_port,
            one.backend if any(one.backend) else None,
            one.backend_port,
            one.packet_bytes,
            one.link_header,
            packet,
        )

    def _told(self) -> int:
        """How many events there were. Read in place: programs count on."""
        with self._listening.mapped(writable=False) as mapped:
            return mapped.load(0, self._wish.offset("told"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listening, self._events, self._clock):
            one.close()


def _places(view: View) -> dict[str, int]:
    return view.layout.enum("event_place")


def _writable(view: View, name: str) -> Map:
    """The kernel maps only what is open for writing, even for reading."""
    opened = view.open(name, read_only=False)
    if opened is None:
        raise UserError(
            "The programs on this node are of a version that tells nothing: restart the agent with "
            "this version."
        )
    return opened
