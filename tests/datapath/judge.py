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
    """A frame's ends. `transport` is None for a later fragment; `whole`: nothing contradicts.

    identification: what the fragments of one datagram have in common; it stands at identified_at.
    """

    version: int
    source: bytes
    destination: bytes
    protocol: int
    transport: int | None
    source_port: int
    destination_port: int
    fragment: bool
    whole: bool
    identification: bytes = b""
    identified_at: int = 0


def read(frame: bytes) -> Reading | None:
    """None for a frame whose headers do not hold together so far that ports can be told."""
    if len(frame) < LINK + 20:
        return None
    version = {0x0800: 4, 0x86DD: 6}.get(struct.unpack_from("!H", frame, 12)[0])
    if version != frame[LINK] >> 4:
        return None
    fragment = later = False
    extensions = 0
    identification, identified_at = b"", 0
    if version == 4:
        header = (frame[LINK] & 15) * 4
        total, flags = struct.unpack_from("!H2xH", frame, LINK + 2)
        source, destination = frame[LINK + 12 : LINK + 16], frame[LINK + 16 : LINK + 20]
        protocol, at, end = frame[LINK + 9], LINK + header, LINK + total
        identified_at, identification = LINK + 4, frame[LINK + 4 : LINK + 6]
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
                identified_at, identification = at + 4, frame[at + 4 : at + 8]
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
        version,
        source,
        destination,
        protocol,
        None if later else at,
        *ports,
        fragment,
        whole,
        identification,
        identified_at,
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
    return bool(checksum(pseudo + body) == 0)


def may_be_partial(frame: bytes, found: Reading) -> bool:
    """Whether the transport checksum is what a virtual device hands over for another to complete:
    the sum of the pseudo-header; SCTP's zero."""
    at = found.transport
    if at is None or found.protocol not in (TCP, UDP, SCTP):
        return False
    if found.protocol == SCTP:
        return frame[at + 8 : at + 12] == bytes(4)
    field = at + (16 if found.protocol == TCP else 6)
    return bytes(frame[field : field + 2]) == pseudo_sum(frame, found)


def pseudo_sum(frame: bytes, found: Reading) -> bytes:
    """Of addresses, protocol and length by the IP header, as it stands in a partial checksum."""
    pseudo = found.source + found.destination
    size, header = (4, 40) if found.version == 6 else (2, 0)
    declared = struct.unpack_from("!H", frame, LINK + size)[0] + header
    length = declared - (found.transport or 0) + LINK
    pseudo += struct.pack("!iI", length, found.protocol)
    return struct.pack("!H", 0xFFFF ^ checksum(pseudo))


@dataclass(frozen=True)
class End:
    """One end of a packet. The port says nothing about a later fragment."""

    address: bytes
    port: int


@dataclass(frozen=True)
class Change:
    """What is to become of a packet: new ends (None: as they are), hops taken, new MAC addresses
    (destination and source, 12 bytes; None: as they are), a new identification of a fragment."""

    source: End | None = None
    destination: End | None = None
    hops: int = 0
    macs: bytes | None = None
    identification: bytes | None = None


def _place(version: int) -> tuple[int, int, int]:
    """Where source and destination stand behind the IP header's first byte, and their size."""
    return (8, 24, 16) if version == 6 else (12, 16, 4)


def _with(frame: bytearray, at: int, version: int, transport: int | None, change: Change) -> None:
    """Writes a change's ends into the IP header at `at` and the ports at `transport`."""
    source, destination, size = _place(version)
    for end, where, port_at in (
        (change.source, source, 0),
        (change.destination, destination, 2),
    ):
        if end is None:
            continue
        frame[at + where : at + where + size] = end.address
        if transport is not None:
            frame[transport + port_at : transport + port_at + 2] = struct.pack("!H", end.port)


def _carried_out(sent: bytes, before: Reading, change: Change) -> bytearray:
    """The frame after a change, but for the checksums."""
    wanted = bytearray(sent)
    if change.macs is not None:
        wanted[:12] = change.macs
    if change.identification is not None:
        at = before.identified_at
        wanted[at : at + len(change.identification)] = change.identification
    wanted[LINK + (7 if before.version == 6 else 8)] -= change.hops
    has_ports = before.protocol in (TCP, UDP, SCTP)
    _with(wanted, LINK, before.version, before.transport if has_ports else None, change)
    return wanted


def _elsewhere(wanted: bytes | bytearray, got: bytes, sums: list[tuple[int, int]]) -> str:
    """What differs outside the checksums at these places."""
    if len(wanted) != len(got):
        return f"{len(got)} bytes came out and not {len(wanted)}"
    held = bytearray(got)
    for first, last in sums:
        held[first:last] = wanted[first:last]
    if held == wanted:
        return ""
    places = [i for i, (x, y) in enumerate(zip(wanted, held, strict=True)) if x != y]
    return f"bytes {places} are not as they should be"


def wrong_rewrite(sent: bytes, got: bytes, change: Change) -> str:
    """What is wrong about a packet that this change was called for; "" if it is carried out byte by
    byte, and every checksum is right or wrong by exactly as much as before."""
    before = read(sent)
    if before is None:
        return "rewritten although its headers contradict each other"
    if sent[LINK + (7 if before.version == 6 else 8)] < change.hops:
        return "older than its hop limit allows"
    sums = []
    header = (LINK, LINK + (sent[LINK] & 15) * 4)
    if before.version == 4:
        sums.append((LINK + 10, LINK + 12))
    at = before.transport if before.protocol in (TCP, UDP, SCTP) else None
    if at is not None:
        field = at + {TCP: 16, UDP: 6, SCTP: 8}[before.protocol]
        sums.append((field, field + (4 if before.protocol == SCTP else 2)))
    fault = _elsewhere(_carried_out(sent, before, change), got, sums)
    if fault:
        return fault
    # the sum of a right header is zero, and of a wrong one what it was
    held = before.version == 4 and header[1] <= len(sent)
    if held and _words(sent, [header]) != _words(got, [header]):
        return "the IP header's checksum is off by another amount than before"
    if at is None:
        return ""
    if before.protocol == SCTP:
        return _wrong_sctp(sent, got, before, at)
    return _wrong_transport(sent, got, before, at)


def wrong_translation(sent: bytes, got: bytes, tables: Tables) -> str:
    """What is wrong about a frame translated towards a backend; "" if it is as called for."""
    before, after = read(sent), read(got)
    if before is None or after is None:
        return "translated although its headers contradict each other"
    if before.transport is None:
        if after.destination not in {b for target in tables.values() for b in target.backends}:
            return "a later fragment went to no backend"
    else:
        key = (before.destination, before.destination_port, before.protocol)
        target = tables.get(key)
        if target is None:
            return f"translated although no Service has {key}"
        if after.destination not in target.backends or after.destination_port != target.port:
            return f"went to {after.destination.hex()}:{after.destination_port}"
    end = End(after.destination, after.destination_port)
    return wrong_rewrite(sent, got, Change(destination=end))


def _body(frame: bytes, found: Reading) -> bytes:
    """Transport header and payload, as long as the IP header says."""
    size, header = (4, 40) if found.version == 6 else (2, 0)
    return frame[found.transport : LINK + header + struct.unpack_from("!H", frame, LINK + size)[0]]


def _wrong_sctp(sent: bytes, got: bytes, before: Reading, at: int) -> str:
    field = slice(at + 8, at + 12)
    if sent[field] == bytes(4):
        return "" if got[field] == bytes(4) else "an unwritten checksum was written"
    if sent[at : at + 4] == got[at : at + 4]:
        return "" if sent[field] == got[field] else "SCTP's checksum was changed without need"
    if before.fragment:
        return "the ports of an SCTP fragment were changed, whose checksum cannot be mended"
    if not before.whole:
        return ""  # over which bytes, is anybody's guess
    differences = []
    for frame in (sent, got):
        body = _body(frame, before)
        held = int.from_bytes(body[8:12], "little")
        differences.append(held ^ crc32c(body[:8] + bytes(4) + body[12:]))
    if differences[0] == differences[1]:
        return ""
    return "SCTP's checksum is off by another amount than before"


def _wrong_transport(sent: bytes, got: bytes, before: Reading, at: int) -> str:
    field = at + (16 if before.protocol == TCP else 6)
    if before.protocol == UDP and sent[field : field + 2] == bytes(2):
        return "" if got[field : field + 2] == bytes(2) else "a UDP checksum of 0 was filled in"
    if before.protocol == UDP and got[field : field + 2] == bytes(2):
        return "a UDP checksum became 0, which means none"
    source, _, size = _place(before.version)
    spans = [(LINK + source, LINK + source + 2 * size), (at, at + 4), (field, field + 2)]
    if _words(sent, spans) != _words(got, spans):
        return "the transport's checksum is off by another amount than before"
    return ""


@dataclass(frozen=True)
class Quotation:
    """The packet that an ICMP error quotes: where it begins, where its ports are, its ends."""

    at: int
    transport: int
    protocol: int
    source: End
    destination: End
    whole: bool  # all that was read is inside the error by its own account


def read_quotation(frame: bytes, outer: Reading) -> Quotation | None:
    """None if the packet is not an ICMP error, or quotes nothing whose ports can be read."""
    if outer.transport is None or outer.protocol != (ICMP if outer.version == 4 else ICMPV6):
        return None
    kind, at = frame[outer.transport : outer.transport + 1], outer.transport + 8
    if kind == b"\x89" and outer.version == 6:
        at = _redirected(frame, outer.transport + 40)
    errors = (3, 4, 5, 11, 12) if outer.version == 4 else (*range(128), 137)
    if not kind or kind[0] not in errors or len(frame) < at + (20 if outer.version == 4 else 40):
        return None
    if frame[at] >> 4 != outer.version:
        return None
    if outer.version == 4:
        transport, protocol = at + (frame[at] & 15) * 4, frame[at + 9]
        if transport < at + 20 or struct.unpack_from("!H", frame, at + 6)[0] & 0x1FFF:
            return None
        end = LINK + struct.unpack_from("!H", frame, LINK + 2)[0]
    else:
        transport, protocol = at + 40, frame[at + 6]
        end = LINK + 40 + struct.unpack_from("!H", frame, LINK + 4)[0]
    if protocol not in (TCP, UDP, SCTP) or len(frame) < transport + 8:
        return None
    source, destination, size = _place(outer.version)
    ports = struct.unpack_from("!HH", frame, transport)
    return Quotation(
        at,
        transport,
        protocol,
        End(frame[at + source : at + source + size], ports[0]),
        End(frame[at + destination : at + destination + size], ports[1]),
        outer.whole and transport + 8 <= end,
    )


def _redirected(frame: bytes, at: int) -> int:
    """Where IPv6's redirect has its quotation: in an option, which the target's link address may
    come before (RFC 4861). Beyond the frame's end if it has none."""
    for _ in range(2):
        if len(frame) < at + 2:
            break
        if frame[at] == 4:
            return at + 8
        at += frame[at + 1] * 8
    return len(frame)


def wrong_error(sent: bytes, got: bytes, change: Change, quoted: Change) -> str:
    """What is wrong about an ICMP error, of which these changes were called for, outside and in the
    quotation; "" if they are carried out byte by byte and all sums kept. (The quotation's transport
    checksum stays: it covers what is not there.)"""
    before = read(sent)
    quotation = read_quotation(sent, before) if before else None
    if before is None or quotation is None or before.transport is None:
        return "rewritten although it is not an ICMP error that quotes anything"
    wanted = _carried_out(sent, before, change)
    _with(wanted, quotation.at, before.version, quotation.transport, quoted)
    icmp = before.transport
    sums = [(icmp + 2, icmp + 4)]
    if before.version == 4:
        sums += [(LINK + 10, LINK + 12), (quotation.at + 10, quotation.at + 12)]
    fault = _elsewhere(wanted, got, sums)
    if fault:
        return fault
    if before.version == 4:
        for header in (
            (LINK, LINK + (sent[LINK] & 15) * 4),
            (quotation.at, quotation.at + 20),
        ):
            if _words(sent, [header]) != _words(got, [header]):
                return "an IP header's checksum is off by another amount than before"
    source, _, size = _place(before.version)
    bodies = [_body(frame, before) for frame in (sent, got)]
    if before.version == 6:
        ends = slice(LINK + source, LINK + source + 2 * size)
        bodies = [f[ends] + body for f, body in zip((sent, got), bodies, strict=True)]
    there, here = (body + bytes(len(body) % 2) for body in bodies)
    if _words(there, [(0, len(there))]) != _words(here, [(0, len(here))]):
        return "the ICMP checksum is off by another amount than before"
    return ""


def _header_is_right(frame: bytes) -> bool:
    return checksum(frame[LINK : LINK + (frame[LINK] & 15) * 4]) == 0


PORT_UNREACHABLE = (b"\3\3", b"\1\4")  # type and code, of ICMP and of ICMPv6
TIME_EXCEEDED = (b"\x0b\0", b"\3\0")


def wrong_answer(sent: bytes, got: bytes, wanted: tuple[bytes, bytes] = PORT_UNREACHABLE) -> str:
    """What is wrong about an answer; "" if it is a right one to the sender: the wanted ICMP error,
    or, instead of port unreachable, a RST."""
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
            return "an answer by TCP that is not a RST"
        if wanted != PORT_UNREACHABLE:
            return "a RST, which tells something else"
        return "" if transport_is_right(got, after) else "the RST's checksum is wrong"
    if after.protocol != (ICMP if after.version == 4 else ICMPV6):
        return f"an answer by protocol {after.protocol}"
    at = after.transport
    assert at is not None
    if got[at : at + 2] != wanted[after.version == 6]:
        return "the ICMP message is of another type or code"
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
