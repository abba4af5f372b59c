"""IP fragments of single packets: taken apart as a sender would, and put together again."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from tests.support.packets import Packet, checksum, parse


def split(packet: Packet, size: int) -> list[bytes]:
    """Frames whose IP payload is `size` bytes at most, a multiple of 8."""
    whole = packet.transport()
    return [
        _carrying(packet.but(fragment=(at, at + size < len(whole))), whole[at : at + size])
        for at in range(0, len(whole), size)
    ]


def join(frames: Iterable[bytes]) -> Packet:
    """The packet again, with `valid` as that of the whole. They must be of one datagram: from one
    source to one destination, with one identification, and complete."""
    pieces = sorted((parse(frame).fragment or (0, False), frame) for frame in frames)
    packets = [parse(frame) for _, frame in pieces]
    assert len({(p.source, p.destination, p.identification) for p in packets}) == 1, packets
    assert all(p.valid for p in packets)
    assert [more for (_, more), _ in pieces] == [True] * (len(pieces) - 1) + [False]
    body = b""
    for (offset, _), frame in pieces:
        assert offset == len(body), "a piece is missing, or twice there"
        body += _payload(frame)
    first = packets[0]
    frame = _carrying(first.but(fragment=None), body)
    return parse(frame).but(identification=first.identification)


def _header_bytes(frame: bytes) -> int:
    """Link and IP header, IPv6's fragment header included; no other extension headers."""
    if frame[12:14] == b"\x08\x00":
        return 14 + (frame[14] & 15) * 4
    return 14 + 40 + (8 if frame[20] == 44 else 0)


def _payload(frame: bytes) -> bytes:
    if frame[12:14] == b"\x08\x00":
        return frame[_header_bytes(frame) : 14 + struct.unpack_from("!H", frame, 16)[0]]
    return frame[_header_bytes(frame) : 54 + struct.unpack_from("!H", frame, 18)[0]]


def _carrying(packet: Packet, payload: bytes) -> bytes:
    """The packet's IP header before this payload, which is not looked at."""
    other = packet.but(fragment=packet.fragment and (8, packet.fragment[1]), payload=payload)
    if packet.fragment is None:  # a protocol without a header of its own to be made
        frame = bytearray(other.but(protocol=253).frame())
        frame[23 if packet.version == 4 else 20] = packet.protocol
    else:
        frame = bytearray(other.frame())
    offset, more = packet.fragment or (0, False)
    if packet.version == 4:
        frame[20:22] = struct.pack("!H", packet.dont_fragment << 14 | more << 13 | offset // 8)
        frame[24:26] = bytes(2)
        header = bytes(frame[14 : _header_bytes(frame)])
        frame[24:26] = struct.pack("!H", checksum(header))
    elif packet.fragment is not None:
        frame[56:58] = struct.pack("!H", offset | more)
    return bytes(frame)
