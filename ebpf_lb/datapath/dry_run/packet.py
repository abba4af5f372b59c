"""Made packets: the first of a connection, and its answer."""

import struct
from typing import NamedTuple

from ebpf_lb.datapath import crc32c
from ebpf_lb.model.values import Family, Protocol

End = tuple[bytes, int]

_MAC = bytes.fromhex("020000000001")
_ETHERNET = {Family.IPV4: 0x0800, Family.IPV6: 0x86DD}
_HEADER = {Family.IPV4: 20, Family.IPV6: 40}
_LINK = 14
_HOPS = 64
_SYN, _SYN_ACK = 0x02, 0x12
_INIT, _INIT_ACK = 1, 2


class Ends(NamedTuple):
    source: End
    destination: End


def opening(family: Family, protocol: Protocol, ends: Ends) -> bytes:
    """What begins a connection: a SYN, an INIT, a datagram."""
    return _frame(family, protocol, ends, answers=False)


def answer(family: Family, protocol: Protocol, ends: Ends) -> bytes:
    """What the other end says to that. `ends`: of what it has got."""
    return _frame(family, protocol, Ends(ends.destination, ends.source), answers=True)


def read_ends(family: Family, frame: bytes) -> Ends:
    """Of a frame that was made here, whatever programs have changed in it."""
    width = family.address_bytes
    at = _LINK + (12 if family is Family.IPV4 else 8)
    ports = struct.unpack_from("!HH", frame, _LINK + _HEADER[family])
    source, destination = frame[at : at + width], frame[at + width : at + 2 * width]
    return Ends((source, ports[0]), (destination, ports[1]))


def _frame(family: Family, protocol: Protocol, ends: Ends, *, answers: bool) -> bytes:
    (source, source_port), (destination, port) = ends
    ports = struct.pack("!HH", source_port, port)
    body = _TRANSPORT[protocol](ports, answers)
    if protocol is not Protocol.SCTP:
        at = 16 if protocol is Protocol.TCP else 6
        pseudo = source + destination + struct.pack("!II", len(body), protocol)
        body = body[:at] + struct.pack("!H", _checksum(pseudo + body) or 0xFFFF) + body[at + 2 :]
    if family is Family.IPV4:
        length = _HEADER[family] + len(body)
        head = struct.pack("!BBHHHBBH", 0x45, 0, length, 1, 1 << 14, _HOPS, protocol, 0)
        head += source + destination
        head = head[:10] + struct.pack("!H", _checksum(head)) + head[12:]
    else:
        head = struct.pack("!IHBB", 6 << 28, len(body), protocol, _HOPS) + source + destination
    return _MAC + _MAC + struct.pack("!H", _ETHERNET[family]) + head + body


def _tcp(ports: bytes, answers: bool) -> bytes:
    flags = _SYN_ACK if answers else _SYN
    return ports + struct.pack("!IIBBHHH", 1, 2 if answers else 0, 5 << 4, flags, 65535, 0, 0)


def _udp(ports: bytes, answers: bool) -> bytes:
    return ports + struct.pack("!HH", 12, 0) + bytes(4)


def _sctp(ports: bytes, answers: bool) -> bytes:
    chunk = struct.pack("!BBHIIHHI", _INIT_ACK if answers else _INIT, 0, 20, 7, 65535, 1, 1, 1)
    head = ports + struct.pack("!I", 7 if answers else 0)
    return head + struct.pack("<I", _crc32c(head + bytes(4) + chunk)) + chunk


_TRANSPORT = {Protocol.TCP: _tcp, Protocol.UDP: _udp, Protocol.SCTP: _sctp}


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def _crc32c(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (crc32c.POLYNOMIAL if register & 1 else 0)
    return register ^ 0xFFFFFFFF
