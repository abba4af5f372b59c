"""What must become of a frame, told from its bytes and a Service's tables alone.

Shares no code with the programs or the planner: it reads frames by itself and compares what went in
with what came out byte by byte, so that a rewrite is either exactly the one that was called for, or
named as wrong.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tests.support.packets import ICMP, ICMPV6, SCTP, TCP, UDP, checksum, crc32c

NEXT, SHOT, REDIRECT = 0xFFFFFFFF, 2, 7
LINK = 14
EXTENSIONS = (0, 43, 60)
FOLLOWED = 6  # extension headers that every implementation must follow here


@dataclass(frozen=True)
class Target:
    """Where a frontend's packets go: any of `backends` at `port`; no backend: refused."""

    backends: frozenset[bytes]
    port: int


Tables = dict[tuple[bytes, int, int], Target]
"""(address, port, protocol) of every frontend."""


@dataclass(frozen=True)
class Reading:
    """A frame's ends. `transport` is None for a later fragment; `whole`: nothing contradicts."""

    version: int
    source: bytes
    destination: bytes
    protocol: int
    transport: int | None
    source_port: int
    destination_port: int
    fragment: bool
    whole: bool


def read(frame: bytes) -> Reading | None:
    """None for a frame whose headers do not hold together so far that ports can be told."""
    if len(frame) < LINK + 20:
        return None
    version = {0x0800: 4, 0x86DD: 6}.get(struct.unpack_from("!H", frame, 12)[0])
    if version != frame[LINK] >> 4:
        return None
    fragment = later = False
    extensions = 0
    if version == 4:
        header = (frame[LINK] & 15) * 4
        total, flags = struct.unpack_from("!H2xH", frame, LINK + 2)
        source, destination = frame[LINK + 12 : LINK + 16], frame[LINK + 16 : LINK + 20]
        protocol, at, end = frame[LINK + 9], LINK + header, LINK + total
        fragment, later = bool(flags & 0x3FFF), bool(flags & 0x1FFF)
        if header < 20:
            return None
    elif version == 6 and len(frame) >= LINK + 40:
        length, protocol = struct.unpack_from("!HB", frame, LINK + 4)
        source, destination = frame[LINK + 8 : LINK + 24], frame[LINK + 24 : LINK + 40]
        at, end = LINK + 40, LINK + 40 + length
        while protocol in (*EXTENSIONS, 44) and not later:
            if at + 8 > len(frame):
                return None
            extensions += 1
            following = frame[at]
            if protocol == 44:
                offset = struct.unpack_from("!H", frame, at + 2)[0]
                fragment, later = bool(offset & 0xFFF9), bool(offset & 0xFFF8)
                at += 8
            else:
                at += (frame[at + 1] + 1) * 8
            protocol = following
    else:
        return None
    # BIG TCP: 16 bits cannot tell
    declared = struct.unpack_from("!H", frame, LINK + (2 if version == 4 else 4))[0]
    known = min(len(frame), end) if declared else len(frame)
    ports = (0, 0)
    whole = bool(declared) and at <= end <= len(frame) and extensions <= FOLLOWED and at < 600
    if protocol in (ICMP, ICMPV6) and not later:
        whole = whole and at + 8 <= end
    if protocol in (TCP, UDP, SCTP) and not later:
        size = {TCP: 20, UDP: 8, SCTP: 16}[protocol]
        if at + size > known:
            return None
        ports = struct.unpack_from("!HH", frame, at)
    return Reading(
        version, source, destination, protocol, None if later else at, *ports, fragment, whole
    )


def _words(frame: bytes, spans: list[tuple[int, int]]) -> int:
    """The sum, modulo 0xffff, of the bytes in these spans (each of even length)."""
    total = 0
    for first, last in spans:
        total += sum(struct.unpack_from(f"!{(last - first) // 2}H", frame, first))
    return total % 0xFFFF


def transport_is_right(frame: bytes, found: Reading) -> bool:
    """Whether the transport checksum of a whole, unfragmented packet is right."""
    at = found.transport
    assert at is not None
    if found.version == 4:
        body = frame[at : LINK + struct.unpack_from("!H", frame, LINK + 2)[0]]
    else:
        body = frame[at : LINK + 40 + struct.unpack_from("!H", frame, LINK + 4)[0]]
    if found.protocol == SCTP:
        return struct.unpack_from("<I", body, 8)[0] == crc32c(body[:8] + bytes(4) + body[12:])
    pseudo = found.source + found.destination + struct.pack("!II", len(body), found.protocol)
    return checksum(pseudo + body) == 0


def wrong_translation(sent: bytes, got: bytes, tables: Tables) -> str:
    """What is wrong about a frame translated towards a backend; "" if it is as called for."""
    before, after = read(sent), read(got)
    if before is None or after is None or len(sent) != len(got):
        return "translated although its headers contradict each other"
    if before.transport is None:
        reached = {b for target in tables.values() for b in target.backends}
        if after.destination not in reached:
            return "a later fragment went to no backend"
    else:
        key = (before.destination, before.destination_port, before.protocol)
        target = tables.get(key)
        if target is None:
            return f"translated although no Service has {key}"
        if after.destination not in target.backends or after.destination_port != target.port:
            return f"went to {after.destination.hex()}:{after.destination_port}"
    address = 16 if before.version == 6 else 4
    place = LINK + (24 if before.version == 6 else 16)
    mutable = set(range(place, place + address))
    if before.version == 4:
        mutable |= {LINK + 10, LINK + 11}
        header = [(LINK, LINK + (sent[LINK] & 15) * 4)]
        # the sum of a right header is zero, and of a wrong one what it was
        if header[0][1] <= len(sent) and _words(sent, header) != _words(got, header):
            return "the IP header's checksum is off by another amount than before"
    at = before.transport
    if at is not None:
        mutable |= {at + 2, at + 3}
        field = at + {TCP: 16, UDP: 6, SCTP: 8}[before.protocol]
        mutable |= set(range(field, field + (4 if before.protocol == SCTP else 2)))
    changed = {i for i, (x, y) in enumerate(zip(sent, got, strict=True)) if x != y}
    if changed - mutable:
        return f"bytes {sorted(changed - mutable)} were changed"
    return _wrong_transport(sent, got, before) if at is not None else ""


def wrong_sctp(sent: bytes, got: bytes) -> str:
    """What is wrong about a translated SCTP packet's checksum: right stays so, and wrong too."""
    before, after = read(sent), read(got)
    if before is None or after is None or before.protocol != SCTP:
        return ""
    at = before.transport
    if at is None or not before.whole or before.fragment:
        return ""
    if sent[at + 8 : at + 12] == bytes(4):
        return "" if got[at + 8 : at + 12] == bytes(4) else "an unwritten checksum was written"
    if transport_is_right(sent, before) == transport_is_right(got, after):
        return ""
    return "SCTP's checksum became right or wrong"


def _wrong_transport(sent: bytes, got: bytes, before: Reading) -> str:
    at = before.transport
    assert at is not None
    if before.protocol == SCTP:
        return ""  # its sum is over the whole: wrong_sctp
    field = at + (16 if before.protocol == TCP else 6)
    if before.protocol == UDP and sent[field : field + 2] == bytes(2):
        return "" if got[field : field + 2] == bytes(2) else "a UDP checksum of 0 was filled in"
    if before.protocol == UDP and got[field : field + 2] == bytes(2):
        return "a UDP checksum became 0, which means none"
    size = 16 if before.version == 6 else 4
    first = LINK + (8 if before.version == 6 else 12)
    spans = [(first, first + 2 * size), (at, at + 4), (field, field + 2)]
    if _words(sent, spans) != _words(got, spans):
        return "the transport's checksum is off by another amount than before"
    return ""


def _header_is_right(frame: bytes) -> bool:
    return checksum(frame[LINK : LINK + (frame[LINK] & 15) * 4]) == 0


def wrong_answer(sent: bytes, got: bytes) -> str:
    """What is wrong about a refusal; "" if it is a right RST or port unreachable to the sender."""
    before, after = read(sent), read(got)
    if before is None or after is None:
        return "the answer cannot be read"
    if not after.whole or after.fragment:
        return "the answer's lengths contradict each other"
    if (after.source, after.destination) != (before.destination, before.source):
        return "the answer's addresses are not the refused packet's turned round"
    if (got[:6], got[6:12]) != (sent[6:12], sent[:6]):
        return "the answer's MAC addresses are not the refused packet's turned round"
    # a RST grows out of the segment's own header, and with it a wrong sum stays wrong
    right = after.protocol != TCP or _header_is_right(sent)
    if after.version == 4 and right and not _header_is_right(got):
        return "the answer's IP header has a wrong checksum"
    if after.protocol == TCP:
        assert after.transport is not None
        ports = (after.source_port, after.destination_port)
        if ports != (before.destination_port, before.source_port):
            return "the RST's ports are not the refused packet's turned round"
        if not got[after.transport + 13] & 4:
            return "an answer by TCP that is no RST"
        return "" if transport_is_right(got, after) else "the RST's checksum is wrong"
    if after.protocol != (ICMP if after.version == 4 else ICMPV6):
        return f"an answer by protocol {after.protocol}"
    at = after.transport
    assert at is not None
    if got[at : at + 2] != (b"\3\3" if after.version == 4 else b"\1\4"):
        return "the ICMP message is not port unreachable"
    body = got[at : LINK + struct.unpack_from("!H", got, LINK + 2)[0]]
    if after.version == 4:
        right = checksum(body) == 0
        quote = body[8:]
    else:
        right = transport_is_right(got, after)
        quote = got[at + 8 : LINK + 40 + struct.unpack_from("!H", got, LINK + 4)[0]]
    if not right:
        return "the ICMP checksum is wrong"
    known = min(len(quote), len(sent) - LINK)
    return "" if quote[:known] == sent[LINK : LINK + known] else "the quotation is not the packet's"


def turned(frame: bytes) -> bytes:
    """The frame with its addresses and ports changing places; all sums stay what they are."""
    found = read(frame)
    if found is None:
        return frame
    first = LINK + (12 if found.version == 4 else 8)
    size = len(found.source)
    result = bytearray(frame)
    result[first : first + 2 * size] = found.destination + found.source
    if found.transport is not None and found.protocol in (TCP, UDP, SCTP):
        at = found.transport
        result[at : at + 4] = frame[at + 2 : at + 4] + frame[at : at + 2]
    return bytes(result)
