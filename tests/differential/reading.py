"""What a neighbour of the node has heard, in words that do not tell what a proxy may choose."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable

from ebpf_lb.model.values import Family
from tests.differential.cluster import HOST_PORT, NODE_PORTS, OTHER_PORT, PORT, TARGET_PORT
from tests.differential.own import tuple_of
from tests.differential.wire import WORLD
from tests.support.fragments import join
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
)

_KNOWN = {*NODE_PORTS.values(), HOST_PORT, PORT, OTHER_PORT, TARGET_PORT}
_FLAGS = {SYN: "SYN", ACK: "ACK", PSH: "PSH", FIN: "FIN", RST: "RST"}
_NAMES = {TCP: "TCP", UDP: "UDP", SCTP: "SCTP"}
_ERRORS = {
    (ICMP, 3, 4): "too big", (ICMP, 3, 3): "port unreachable", (ICMP, 3, 1): "host unreachable",
    (ICMP, 11, 0): "time exceeded", (ICMPV6, 2, 0): "too big", (ICMPV6, 1, 4): "port unreachable",
    (ICMPV6, 1, 3): "host unreachable", (ICMPV6, 3, 0): "time exceeded",
}  # fmt: skip


class Reader:
    """Of one node during one script. Ports that its NATs choose are numbered as they are seen.
    bridged: who asks itself there may be bridged or routed, a hop more or less."""

    def __init__(self, family: Family, *, bridged: bool = False) -> None:
        self._of = WORLD[family]
        self._bridged = bridged
        self._clients: set[int] = set()
        self._given: dict[tuple[int, tuple[str, int], tuple[str, int]], int] = {}
        self._first: dict[tuple[str, int, str, int], int] = {}

    def begins(self, packet: Packet) -> None:
        """A TCP connection of the node's own: its numbers count from here."""
        self._first[tuple_of(packet)] = packet.sequence

    def knows(self, port: int) -> None:
        """A client's own."""
        self._clients.add(port)

    def lines(
        self, heard: Iterable[tuple[str, bytes]], *, own_words: bool, by_router: bool = False
    ) -> list[str]:
        """Each packet in a line; sorted, for what comes at once comes in any order. own_words: an
        ICMP error can only be the node's own, and it may say it by any address of its own, or by
        the one that was asked. by_router: it is a router's; netfilter makes it the Service's word,
        and we leave it the router's (CO-20)."""
        speaker = "the node" if own_words else "a router" if by_router else ""
        frames: dict[object, list[tuple[str, bytes]]] = {}
        for whom, frame in heard:
            packet = parse(frame)
            pieces = (whom, packet.source, packet.destination, packet.identification)
            whole = packet.fragment is None
            frames.setdefault((len(frames), frame) if whole else pieces, []).append((whom, frame))
        found = []
        for group in frames.values():
            whom, frame = group[0]
            found.append(f"{whom}: {self._line([each for _, each in group], speaker)}")
        return sorted(found)

    def _line(self, group: list[bytes], speaker: str) -> str:
        packet = parse(group[0])
        pieces = ""
        if packet.fragment is not None:
            pieces = " in fragments"
            try:
                packet = join(group)
            except AssertionError:
                return f"pieces of {packet.source} > {packet.destination}: {len(group)}"
        broken = "" if packet.valid else " CHECKSUM"
        if packet.protocol in (ICMP, ICMPV6):
            return self._error(packet, speaker) + broken
        ends = self._ends(
            packet.protocol,
            (packet.source, packet.source_port),
            (packet.destination, packet.destination_port),
        )
        flags = "+".join(name for flag, name in _FLAGS.items() if packet.flags & flag)
        text = f"{_NAMES.get(packet.protocol, packet.protocol)} {ends} {flags}"
        if packet.protocol == TCP:
            sequence = packet.sequence - self._first.get(tuple_of(packet), 0) & 0xFFFFFFFF
            text += f" {sequence}/{packet.acknowledged if packet.flags & ACK else '-'}"
        if packet.protocol == SCTP:
            text += f"chunk {packet.payload[0]} of {packet.tag:x}"
        # a segment of the node's own has as many hops before it as the node likes
        untold = packet.flags & RST or (self._bridged and self._asks_itself(packet))
        hops = "" if untold else f" hops {packet.ttl}"
        return f"{text} {len(packet.payload)} bytes{pieces}{hops}{broken}"

    def _asks_itself(self, packet: Packet) -> bool:
        """A pod, by a Service: it hears the gateway ask, and itself answer by the Service."""
        pods = self._of.pods.values()
        return packet.destination in pods and packet.source not in pods

    def _ends(self, protocol: int, there: tuple[str, int], back: tuple[str, int]) -> str:
        """Ports that the node has chosen are numbered: each of its ends is one more, and so is the
        same port by another protocol, which a proxy may give or not."""
        return f"{self._end(protocol, there, back)} > {self._end(protocol, back, there)}"

    def _end(self, protocol: int, end: tuple[str, int], other: tuple[str, int]) -> str:
        address, port = end
        stands_for_others = address in (self._of.node, self._of.gateway)
        if stands_for_others:
            own = port in (*NODE_PORTS.values(), HOST_PORT) and other[1] != TARGET_PORT
        else:
            own = port in _KNOWN or port in self._clients
        if own:
            return f"{address}:{port}"
        number = self._given.setdefault((protocol, end, other), len(self._given))
        return f"{address}:#{number}"

    def _error(self, packet: Packet, speaker: str) -> str:
        kind, code = packet.payload[:2]
        quoted = packet.payload[8:]
        source = speaker or packet.source
        if packet.version == 4:
            protocol, at = quoted[9], (quoted[0] & 15) * 4
            ends = quoted[12:16], quoted[16:20]
        else:
            protocol, at = quoted[6], 40
            ends = quoted[8:24], quoted[24:40]
            if protocol == 44:
                protocol, at = quoted[40], 48
        source_port, port = struct.unpack_from("!HH", quoted, at)
        asked, for_ = (str(ipaddress.ip_address(end)) for end in ends)
        what = _ERRORS.get((packet.protocol, kind, code), f"ICMP {kind}/{code}")
        about = self._ends(protocol, (asked, source_port), (for_, port))
        return f"{what} by {source} to {packet.destination} about {protocol} {about}"
