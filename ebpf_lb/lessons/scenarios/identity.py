"""Which of the captured packets are a connection's, and which are one packet at several places.

Addresses and ports change on the way, so a packet is known again by what does not: TCP's sequence
and acknowledgement numbers, a datagram's payload, SCTP's verification tags and chunks, the packet
that an ICMP error quotes. The client's first packet is found by its source port on its machine; all
else follows from its number.
"""

from collections.abc import Iterable
from typing import Protocol

from ebpf_lb.lessons.scenarios.frames import ACK, RST, SCTP, SYN, TCP, UDP, Packet
from ebpf_lb.lessons.scenarios.recording import Connection, Frame

_WINDOW = 1 << 24  # sequence numbers of one connection are this close to its first
_INIT, _INIT_ACK = 1, 2  # SCTP's chunks


class Known(Protocol):
    """What is known of a connection."""

    def identify(self, packet: Packet) -> tuple[object, ...] | None:
        """The same for one packet wherever it was seen: first its direction, `towards` or `back`.
        None for other connections' packets."""


def known(connection: Connection, packets: Iterable[tuple[Frame, Packet]]) -> Known:
    match connection.protocol:
        case "TCP":
            return _Tcp(connection, packets)
        case "SCTP":
            return _Sctp(connection, packets)
    return _Udp(connection, packets)


class _Tcp:
    def __init__(self, connection: Connection, packets: Iterable[tuple[Frame, Packet]]):
        self._first = self._answered = None
        for frame, packet in packets:
            if (
                packet.protocol == TCP
                and packet.flags & (SYN | ACK) == SYN
                and frame.machine == connection.machine
                and packet.source.port == connection.source_port
            ):
                self._first = packet.sequence
                break
        for _, packet in packets:
            if (
                self._first is not None
                and packet.protocol == TCP
                and packet.flags & (SYN | ACK) == SYN | ACK
                and packet.acknowledgement == _after(self._first)
            ):
                self._answered = packet.sequence
                break

    def identify(self, packet: Packet) -> tuple[object, ...] | None:
        if self._first is None:
            return None
        if packet.quoted is not None:
            quoted = packet.quoted
            ours = quoted.protocol == TCP and _near(quoted.sequence, self._first)
            return ("back", packet.icmp, quoted.sequence) if ours else None
        if packet.protocol != TCP:
            return None
        numbers = (
            packet.flags, packet.sequence, packet.acknowledgement, len(packet.payload)
        )  # fmt: skip
        if packet.flags & SYN and not packet.flags & ACK:
            return ("towards", *numbers) if packet.sequence == self._first else None
        if packet.flags & RST and packet.acknowledgement == _after(self._first):
            return ("back", *numbers)
        if self._answered is None:
            return None
        # of the client's packets the sequence number, of the answers the acknowledged one
        client, server = self._first, self._answered
        if _near(packet.sequence, client) and _near(packet.acknowledgement, server):
            return ("towards", *numbers)
        if _near(packet.sequence, server) and _near(packet.acknowledgement, client):
            return ("back", *numbers)
        return None


class _Udp:
    def __init__(self, connection: Connection, packets: Iterable[tuple[Frame, Packet]]):
        self._request, self._text = connection.request.encode(), connection.text.encode()
        self._ports = {
            packet.source.port
            for frame, packet in packets
            if frame.machine == connection.machine
            and packet.protocol == UDP
            and packet.payload == self._request
        }
        self._sent = bool(self._ports)

    def identify(self, packet: Packet) -> tuple[object, ...] | None:
        if not self._sent:
            return None
        if packet.quoted is not None:
            quoted = packet.quoted
            ours = quoted.protocol == UDP and self._request.startswith(quoted.payload)
            return ("back", packet.icmp) if ours else None
        if packet.protocol != UDP:
            return None
        if packet.payload == self._request:
            return ("towards", packet.payload)
        if self._text and packet.payload == self._text:
            return ("back", packet.payload)
        return None


class _Sctp:
    """Each end's packets carry the tag that the other end gave out in its INIT or INIT ACK."""

    def __init__(self, connection: Connection, packets: Iterable[tuple[Frame, Packet]]):
        self._client = self._server = None  # the tags that they gave out
        for frame, packet in packets:
            if (
                _given_out(packet, _INIT)
                and frame.machine == connection.machine
                and packet.source.port == connection.source_port
            ):
                self._client = _given_out(packet, _INIT)
                break
        for _, packet in packets:
            if self._client and packet.tag == self._client and _given_out(packet, _INIT_ACK):
                self._server = _given_out(packet, _INIT_ACK)
                break

    def identify(self, packet: Packet) -> tuple[object, ...] | None:
        if self._client is None:
            return None
        if packet.quoted is not None:
            quoted = packet.quoted
            ours = quoted.protocol == SCTP and self._sent(quoted)
            return ("back", packet.icmp, quoted.tag) if ours else None
        if packet.protocol != SCTP:
            return None
        if self._sent(packet):
            return ("towards", packet.tag, packet.payload)
        return ("back", packet.tag, packet.payload) if packet.tag == self._client else None

    def _sent(self, packet: Packet) -> bool:
        """Whether the client sent it; of an INIT that is cut short only its missing tag is seen."""
        if packet.tag:
            return packet.tag == self._server
        return not packet.payload or _given_out(packet, _INIT) == self._client


def _given_out(packet: Packet, chunk: int) -> int | None:
    """The tag in an INIT or INIT ACK."""
    if packet.protocol != SCTP or packet.payload[:1] != bytes([chunk]):
        return None
    return int.from_bytes(packet.payload[4:8])


def _after(number: int) -> int:
    return (number + 1) & 0xFFFFFFFF


def _near(number: int, first: int) -> bool:
    return (number - first) & 0xFFFFFFFF < _WINDOW
