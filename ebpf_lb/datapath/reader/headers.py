"""From the first bytes of a packet to who talks to whom."""

import struct
from typing import NamedTuple

from ebpf_lb.datapath.reader.view import protocol_name
from ebpf_lb.model.values import Family

_WITH_PORTS = (6, 17, 132)
_ICMP = {1: "ICMP", 58: "ICMPv6"}
_EXTENSIONS = (0, 43, 60)  # hop by hop, routing, destination options
_FRAGMENT = 44


class Headers(NamedTuple):
    """Ports are 0 where there are none, or where the packet does not say them (later fragments)."""

    protocol: str
    source: bytes
    source_port: int
    destination: bytes
    destination_port: int


def read_headers(packet: bytes, link_header: int, family: Family) -> Headers | None:
    """None if the bytes end before the addresses do."""
    data = packet[link_header:]
    try:
        if family is Family.IPV4:
            source, destination, protocol, at, first = _ipv4(data)
        else:
            source, destination, protocol, at, first = _ipv6(data)
    except (struct.error, IndexError):
        return None
    ports = (0, 0)
    if first and protocol in _WITH_PORTS and len(data) >= at + 4:
        ports = struct.unpack_from("!HH", data, at)
    name = _ICMP.get(protocol) or protocol_name(protocol)
    return Headers(name, source, ports[0], destination, ports[1])


def _ipv4(data: bytes) -> tuple[bytes, bytes, int, int, bool]:
    length, offset, protocol = (data[0] & 15) * 4, struct.unpack_from("!H", data, 6)[0], data[9]
    source, destination = struct.unpack_from("4s4s", data, 12)
    return source, destination, protocol, length, not offset & 0x1FFF


def _ipv6(data: bytes) -> tuple[bytes, bytes, int, int, bool]:
    protocol, (source, destination) = data[6], struct.unpack_from("16s16s", data, 8)
    at, first = 40, True
    while len(data) >= at + 8:
        if protocol in _EXTENSIONS:
            protocol, at = data[at], at + 8 * (data[at + 1] + 1)
        elif protocol == _FRAGMENT:
            first = not struct.unpack_from("!H", data, at + 2)[0] & 0xFFF8
            protocol, at = data[at], at + 8
        else:
            break
    return source, destination, protocol, at, first
