"""The headers of a frame, one after the other, as far as they are known here."""

import ipaddress
import struct
from dataclasses import dataclass

from ebpf_lb.lab import udp_tunnel
from ebpf_lb.lessons.scenarios.frames import TCP, UDP, VXLAN_PORTS, Packet

_ETHERNET, _IPV4, _IPV6, _UDP, _VXLAN = 14, 20, 40, 8, 8
_NAMES = {TCP: "TCP", UDP: "UDP"}


@dataclass(frozen=True, slots=True)
class Layer:
    """A header. text: what of it tells something."""

    name: str
    size: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.name:8}  {self.size:3} bytes  {self.text}".rstrip()


def layers(frame: bytes) -> list[Layer]:
    """From the outermost on; those of a tunnel first. What is unknown ends the list."""
    if len(frame) < _ETHERNET:
        return []
    return [Layer("Ethernet", _ETHERNET), *_ip(frame[_ETHERNET:])]


def _ip(data: bytes) -> list[Layer]:
    if len(data) >= _IPV4 and data[0] >> 4 == 4:
        size, protocol, ends = (data[0] & 15) * 4, data[9], (data[12:16], data[16:20])
    elif len(data) >= _IPV6 and data[0] >> 4 == 6:
        size, protocol, ends = _IPV6, data[6], (data[8:24], data[24:40])
    else:
        return []
    source, destination = map(ipaddress.ip_address, ends)
    own = Layer(f"IPv{source.version}", size, f"{source} → {destination}")
    return [own, *_transport(protocol, data, size)]


def _transport(protocol: int, data: bytes, start: int) -> list[Layer]:
    rest = data[start:]
    if protocol not in _NAMES or len(rest) < _UDP:
        return []
    ports = struct.unpack_from("!HH", rest)
    text = f"port {ports[0]} → {ports[1]}"
    if protocol == UDP:
        own = Layer("UDP", _UDP, text)
        inside = rest[_UDP:]
        if ports[1] in VXLAN_PORTS and len(inside) >= _VXLAN:
            network = int.from_bytes(inside[4:7])
            return [own, Layer("VXLAN", _VXLAN, f"network {network}"), *layers(inside[_VXLAN:])]
        return [own, *(_ip(inside) if ports[1] == udp_tunnel.PORT else [])]
    packet = Packet.parse(data)
    name = f", {packet.name}" if packet else ""
    return [Layer("TCP", (rest[12] >> 4) * 4 if len(rest) > 12 else 0, f"{text}{name}")]
