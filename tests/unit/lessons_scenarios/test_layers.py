"""A frame's headers, from its bytes."""

import ipaddress
import struct

from ebpf_lb.lessons.scenarios.layers import layers

SYN = struct.pack("!HHIIBBHHH", 40000, 80, 1, 0, 6 << 4, 2, 0, 0, 0) + bytes(4)
ETHERNET = bytes(12) + b"\x08\x00"


def ip(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    ends = [ipaddress.ip_address(address).packed for address in (source, destination)]
    if ":" in source:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + b"".join(ends) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    return head + b"".join(ends) + payload


def udp(port: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", 5555, port, 8 + len(payload), 0) + payload


def text(frame: bytes) -> list[str]:
    return [f"{layer.name} {layer.size} {layer.text}".strip() for layer in layers(frame)]


INNER = ip("10.0.0.1", "10.0.0.2", 6, SYN)


def test_a_packet_as_it_is() -> None:
    assert text(ETHERNET + INNER) == [
        "Ethernet 14",
        "IPv4 20 10.0.0.1 → 10.0.0.2",
        "TCP 24 port 40000 → 80, SYN",
    ]


def test_vxlan() -> None:
    inside = struct.pack("!II", 0x08000000, 7 << 8) + ETHERNET + INNER
    assert text(ETHERNET + ip("fd00::1", "fd00::2", 17, udp(8472, inside))) == [
        "Ethernet 14",
        "IPv6 40 fd00::1 → fd00::2",
        "UDP 8 port 5555 → 8472",
        "VXLAN 8 network 7",
        "Ethernet 14",
        "IPv4 20 10.0.0.1 → 10.0.0.2",
        "TCP 24 port 40000 → 80, SYN",
    ]


def test_ip_in_udp() -> None:
    found = text(ETHERNET + ip("1.0.0.1", "1.0.0.2", 17, udp(8285, INNER)))
    assert found[2:4] == ["UDP 8 port 5555 → 8285", "IPv4 20 10.0.0.1 → 10.0.0.2"]


def test_what_is_unknown_or_cut_short_ends_the_list() -> None:
    assert text(b"") == []
    assert text(ETHERNET + b"\x00" * 60) == ["Ethernet 14"]
    assert len(text(ETHERNET + ip("1.0.0.1", "1.0.0.2", 47, bytes(20)))) == 2
    assert len(text(ETHERNET + ip("1.0.0.1", "1.0.0.2", 17, udp(53, bytes(40))))) == 3
    assert len(text(ETHERNET + ip("1.0.0.1", "1.0.0.2", 17, udp(8472, bytes(8))))) == 4
    for end in range(len(ETHERNET + INNER)):
        layers((ETHERNET + INNER)[:end])
