"""Plays a script on a node: sends what its steps say, and tells what was heard of it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ebpf_lb.model.values import Family
from ebpf_lb.plan.forwarding import Forwarding
from tests.differential import cluster, netfilter
from tests.differential.cluster import State
from tests.differential.own import OwnSocket
from tests.differential.reading import Reader
from tests.differential.script import (
    BACKEND,
    CLIENT,
    NODE,
    Complain,
    Endpoints,
    Filter,
    Forge,
    Open,
    Say,
    Step,
    Sticky,
    Swap,
)
from tests.differential.wire import WORLD, Wire
from tests.support.fragments import split
from tests.support.packets import (
    ACK,
    FIN,
    ICMP,
    ICMPV6,
    PSH,
    RST,
    SCTP,
    SYN,
    TCP,
    UDP,
    Packet,
    parse,
)  # fmt: skip

_FLAGS = {
    "SYN": SYN, "SYN-ACK": SYN | ACK, "ACK": ACK, "data": PSH | ACK, "FIN": FIN | ACK,
    "RST": RST | ACK,
}  # fmt: skip
_TYPES = {
    "too big": ((3, 4), (2, 0)), "port": ((3, 3), (1, 4)), "host": ((3, 1), (1, 3)),
    "time": ((11, 0), (3, 0)),
}  # fmt: skip
COMPLAINTS = tuple(_TYPES)
_PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
# of SCTP: who opens an association, and who answers
_CHUNKS = {
    CLIENT: {"SYN": 1, "SYN-ACK": 2, "ACK": 10, "data": 0, "FIN": 7, "RST": 6},
    BACKEND: {"SYN": 1, "SYN-ACK": 2, "ACK": 11, "data": 0, "FIN": 8, "RST": 6},
}
_INIT, _INIT_ACK = 1, 2
_TAG = 0xCAFE
_FAR = 0x40000000
_LARGE = 3000
_FIRST_PORT = 20000


class Proxy(Protocol):
    def begin(self, family: Family) -> None:
        """No packet has come yet, and there are no Services."""

    def program(self, state: State, plan: Sequence[Forwarding]) -> None:
        """The same twice: as the API server has it, and as an agent plans it, of this family."""


@dataclass
class Connection:
    """next_: of each end, the next sequence number. heard: what each end has last been sent, and
    where. own: the client's socket, if it is a process of the node."""

    place: str
    protocol: int
    source: str
    source_port: int
    destination: str
    destination_port: int
    first: dict[str, int]
    next_: dict[str, int] = field(default_factory=dict)
    heard: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    own: OwnSocket | None = None


def chunk(kind: int) -> bytes:
    """What opens an association tells both ends the tag of this one's packets."""
    body = struct.pack("!IIHHI", _TAG, 65536, 1, 1, 1) if kind in (_INIT, _INIT_ACK) else b"x" * 12
    return struct.pack("!BBH", kind, 3, 4 + len(body)) + body


class Player:
    """One node, by one proxy."""

    def __init__(self, wire: Wire, proxy: Proxy, family: Family) -> None:
        self._wire, self._proxy, self._family = wire, proxy, family
        self._of = WORLD[family]
        self._reader = Reader(family, bridged=wire.bridged)
        self._state = State()
        self._connections: list[Connection] = []
        self._filtered: frozenset[str] = frozenset()
        self._steps = 0
        wire.close_sockets()
        proxy.begin(family)
        netfilter.forget_connections(wire, family)
        wire.drop(frozenset())
        self._program()

    def take(self, step: Step) -> list[str]:
        """What the node's neighbours hear when this is done, and its own processes."""
        self._steps += 1
        heard = self._take(step)
        for number, connection in enumerate(self._connections):
            if connection.own:
                heard += [f"the node's {number}: {line}" for line in connection.own.told()]
        return heard

    def _take(self, step: Step) -> list[str]:
        match step:
            case Endpoints(service, pods):
                return self._become(self._state.with_endpoints(service, pods))
            case Sticky():
                return self._become(self._state.but(sticky=not self._state.sticky))
            case Swap():
                return self._become(self._state.but(swapped=not self._state.swapped))
            case Filter(whose):
                self._filtered ^= {self._of.of(whose)}
                self._wire.drop(self._filtered)
                return []
            case Open():
                return self._open(step)
        if not self._connections:
            return []
        connection = self._connections[step.flow % len(self._connections)]
        match step:
            case Say():
                return self._say(connection, step)
            case Forge(_, end, segment):
                if connection.own and end == CLIENT:
                    return []
                packet = self._packet(connection, end, segment)
                if packet is None or packet.protocol != TCP:
                    return []
                forged = packet.but(sequence=packet.sequence + _FAR & 0xFFFFFFFF)
                return self._send(connection, end, [forged.frame()])
            case Complain():
                return self._complain(connection, step)
        raise TypeError(step)

    def _become(self, state: State) -> list[str]:
        self._state = state
        self._program()
        return self._reader.lines(self._hears(self._wire.quiet()), own_words=True)

    def _open(self, step: Open) -> list[str]:
        destination, port = cluster.address_of(self._family, step.target, self._state)
        if step.client == NODE:
            return self._open_own(step, destination, port)
        place = self._of.behind(step.client)
        number = self._steps
        source_port = step.port or _FIRST_PORT + number
        self._reader.knows(source_port)
        connection = Connection(
            place, _PROTOCOLS[step.protocol],
            self._of.of(step.client), source_port, destination, port,
            {CLIENT: 100_000 * number, BACKEND: 0x10000000 + 100_000 * number},
        )  # fmt: skip
        self._connections.append(connection)
        return self._say(connection, Say(0, CLIENT, "SYN"))

    def _open_own(self, step: Open, destination: str, port: int) -> list[str]:
        protocol = _PROTOCOLS[step.protocol]
        own = self._wire.own_socket(protocol, (destination, port), step.connected)
        first = {CLIENT: 0, BACKEND: 0x10000000 + 100_000 * self._steps}
        connection = Connection(
            NODE, protocol, self._of.node, 0, destination, port, first, own=own
        )  # fmt: skip
        self._connections.append(connection)
        own.open()
        return self._own_says(connection, self._hears(self._wire.quiet()))

    def _own_says(self, connection: Connection, heard: list[tuple[str, bytes]]) -> list[str]:
        assert connection.own
        for whom, frame in heard:
            packet = parse(frame)
            if packet.protocol != connection.protocol:
                continue
            if packet.protocol == TCP and packet.flags & (SYN | ACK) == SYN:
                self._reader.begins(packet)
            connection.own.begins(packet)
            connection.heard[BACKEND] = whom, frame
            length = len(packet.payload) + bool(packet.flags & (SYN | FIN))
            connection.next_[CLIENT] = packet.sequence + length & 0xFFFFFFFF
        return self._reader.lines(heard, own_words=True)

    def _hears(self, heard: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Without what a socket of the node's says again: that comes when the kernel likes."""
        own = [each.own for each in self._connections if each.own]
        if not own:
            return heard
        return [
            (whom, frame)
            for whom, frame in heard
            if not any(each.said_before(parse(frame)) for each in own)
        ]

    def _say(self, connection: Connection, step: Say) -> list[str]:
        if connection.own and step.end == CLIENT:
            connection.own.say(step.segment)
            return self._own_says(connection, self._hears(self._wire.quiet()))
        packet = self._packet(connection, step.end, step.segment)
        if packet is None:
            return []
        if packet.protocol == TCP:
            after = packet.sequence + len(packet.payload) + bool(packet.flags & (SYN | FIN))
            connection.next_[step.end] = max(after, connection.next_.get(step.end, 0))
        if step.large and packet.protocol == UDP:
            return self._send(connection, step.end, split(packet.but(payload=bytes(_LARGE)), 1400))
        return self._send(connection, step.end, [packet.frame()])

    def _packet(self, connection: Connection, end: str, segment: str) -> Packet | None:
        """None: who has heard nothing says nothing."""
        c = connection
        source, source_port = c.source, c.source_port
        destination, destination_port = c.destination, c.destination_port
        if end == BACKEND:
            if BACKEND not in c.heard:
                return None
            heard = parse(c.heard[BACKEND][1])
            source, source_port = heard.destination, heard.destination_port
            destination, destination_port = heard.source, heard.source_port
        other = BACKEND if end == CLIENT else CLIENT
        flags = _FLAGS[segment]
        payload = b"x" * 24 if segment == "data" or c.protocol == UDP else b""
        if c.protocol == SCTP:
            payload = chunk(_CHUNKS[end][segment])
        sequence = c.next_.get(end, c.first[end])
        if flags & SYN:
            sequence = c.first[end]
        return Packet(
            source, destination, source_port, destination_port, c.protocol,
            flags=flags, sequence=sequence,
            acknowledged=c.next_.get(other, 0) if flags & ACK else 0,
            payload=payload, identification=self._steps,
            # an association that is asked for has none yet
            tag=0 if payload[:1] == bytes([_INIT]) else _TAG,
        )  # fmt: skip

    def _send(self, connection: Connection, end: str, frames: list[bytes]) -> list[str]:
        place = connection.place if end == CLIENT else connection.heard[BACKEND][0]
        heard = [each for frame in frames for each in self._hears(self._wire.send(place, frame))]
        if connection.own:
            return self._own_says(connection, heard)
        other = BACKEND if end == CLIENT else CLIENT
        if end == BACKEND and self._is_the_cnis(connection):
            # the node answers what is out of place there with a RST, whoever serves Services
            heard = [(w, f) for w, f in heard if w != place or not parse(f).flags & RST]
        for whom, frame in heard:
            packet = parse(frame)
            if packet.protocol == connection.protocol and packet.fragment in (None, (0, True)):
                answered = end == CLIENT and packet.destination == connection.source
                answered &= packet.destination_port == connection.source_port
                answered &= packet.source == connection.destination
                connection.heard[end if answered else other] = whom, frame
        return self._reader.lines(heard, own_words=True)

    def _is_the_cnis(self, connection: Connection) -> bool:
        """Does the CNI masquerade it: a pod's, to what is not a pod?"""
        to = parse(connection.heard[BACKEND][1]).destination
        pods = {
            address
            for name, address in (self._of.pods | self._of.far_pods).items()
            if name != "host2"
        }
        return connection.source in pods and to not in pods

    def _complain(self, connection: Connection, step: Complain) -> list[str]:
        if step.end not in connection.heard:
            return []
        place, frame = connection.heard[step.end]
        about = parse(frame)
        kinds = _TYPES[step.about]
        if about.version == 4:
            (kind, code), protocol, most = kinds[0], ICMP, 28
            more = struct.pack("!HH", 0, 1400 if step.about == "too big" else 0)
        else:
            (kind, code), protocol, most = kinds[1], ICMPV6, 100
            more = struct.pack("!I", 1400 if step.about == "too big" else 0)
        source = about.destination
        if step.router and place not in self._of.pods:
            source = self._of.router
        body = bytes([kind, code, 0, 0]) + more + frame[14:][:most]
        packet = Packet(source, about.source, protocol=protocol, payload=body).with_icmp_checksum()
        heard = self._hears(self._wire.send(place, packet))
        return self._reader.lines(heard, own_words=False, by_router=source == self._of.router)

    def _program(self) -> None:
        plan = cluster.plan(self._state)
        self._proxy.program(self._state, [one for one in plan if one.family is self._family])
