"""Ethernet frames taken apart, as far as a connection's way can be seen in them."""

import ipaddress
import struct
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from ebpf_lb.lab import udp_tunnel

TCP, UDP, SCTP, ICMP, ICMPV6 = 6, 17, 132, 1, 58
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
_IPV4, _IPV6, _VLAN = 0x0800, 0x86DD, 0x8100
VXLAN_PORTS = (4789, 8472)
_CHUNKS = {0: "data", 1: "INIT", 2: "INIT-ACK", 3: "SACK", 6: "ABORT", 7: "SHUTDOWN",
           8: "SHUTDOWN-ACK", 10: "COOKIE-ECHO", 11: "COOKIE-ACK"}  # fmt: skip
# ICMP messages that quote the packet they are about (RFC 792, RFC 4443)
_ERRORS = {
    ICMP: {3: "unreachable", 11: "time exceeded"},
    ICMPV6: {1: "unreachable", 2: "packet too big", 3: "time exceeded"},
}


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """An address, and a port where the protocol has ports."""

    address: str
    port: int | None = None

    def __str__(self) -> str:
        if self.port is None:
            return self.address
        return (
            f"[{self.address}]:{self.port}"
            if ":" in self.address
            else (f"{self.address}:{self.port}")
        )


class Tunnel(NamedTuple):
    """The outer addresses of a packet in a tunnel, and what is around it."""

    source: str
    destination: str
    kind: str

    def __str__(self) -> str:
        return f"in {self.kind} {self.source} → {self.destination}"


@dataclass(frozen=True, slots=True)
class Packet:
    """An IP packet. flags, sequence and acknowledgement are TCP's, tag is SCTP's verification tag.

    payload: what the transport protocol carries, of SCTP its chunks; an ICMP error's `quoted`
    packet may be cut short.
    tunnel: where it travelled in one, VXLAN or the lab's own.
    """

    protocol: int
    source: Endpoint
    destination: Endpoint
    flags: int = 0
    sequence: int = 0
    acknowledgement: int = 0
    payload: bytes = b""
    quoted: "Packet | None" = None
    icmp: str = ""
    tunnel: Tunnel | None = None
    tag: int = 0

    @property
    def endpoints(self) -> tuple[Endpoint, Endpoint]:
        return self.source, self.destination

    @property
    def name(self) -> str:
        """As people call it: SYN, SYN-ACK, datagram, INIT, ICMP unreachable."""
        if self.protocol == TCP:
            named = (SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (ACK, "ACK")
            parts = [text for flag, text in named if self.flags & flag]
            if self.payload:
                return "data"
            if "RST" in parts:
                return "RST"
            return "-".join(parts)
        if self.protocol == SCTP and self.payload:
            return _CHUNKS.get(self.payload[0], "SCTP packet")
        return f"ICMP {self.icmp}" if self.icmp else "datagram"

    @classmethod
    def parse_frame(cls, data: bytes) -> Self | None:
        """The packet in an Ethernet frame, the inner one of a tunnel; None for anything else."""
        offset = 12
        while data[offset : offset + 2] == struct.pack("!H", _VLAN):
            offset += 4
        if len(data) < offset + 2:
            return None
        kind = int.from_bytes(data[offset : offset + 2])
        return cls.parse(data[offset + 2 :]) if kind in (_IPV4, _IPV6) else None

    @classmethod
    def parse(cls, data: bytes) -> Self | None:
        """An IP packet that may be cut short; None for others than ICMP errors without ports."""
        if len(data) >= 20 and data[0] >> 4 == 4:
            header, protocol = (data[0] & 15) * 4, data[9]
            source, destination = data[12:16], data[16:20]
            if int.from_bytes(data[6:8]) & 0x1FFF:
                return None  # a later fragment
            end = int.from_bytes(data[2:4])
        elif len(data) >= 40 and data[0] >> 4 == 6:
            header, protocol = 40, data[6]
            source, destination = data[8:24], data[24:40]
            end = 40 + int.from_bytes(data[4:6])
        else:
            return None
        names = str(ipaddress.ip_address(source)), str(ipaddress.ip_address(destination))
        return cls._parse_transport(protocol, names, data[header:end])

    @classmethod
    def _parse_transport(cls, protocol: int, names: tuple[str, str], data: bytes) -> Self | None:
        if protocol in _ERRORS and data[:1] and data[0] in _ERRORS[protocol]:
            quoted, what = cls.parse(data[8:]), _ERRORS[protocol][data[0]]
            if (protocol, data[0], data[1]) in ((ICMP, 3, 3), (ICMPV6, 1, 4)):
                what = "port unreachable"
            ends = Endpoint(names[0]), Endpoint(names[1])
            return cls(protocol, *ends, quoted=quoted, icmp=what) if quoted else None
        if protocol not in (TCP, UDP, SCTP) or len(data) < 8:
            return None
        ports = struct.unpack_from("!HH", data)
        ends = Endpoint(names[0], ports[0]), Endpoint(names[1], ports[1])
        if protocol == UDP:
            if ports[1] in VXLAN_PORTS and (inner := cls.parse_frame(data[16:])):
                return inner.in_tunnel(Tunnel(*names, "VXLAN"))
            if ports[1] == udp_tunnel.PORT and (inner := cls.parse(data[8:])):
                return inner.in_tunnel(Tunnel(*names, "UDP"))
            return cls(protocol, *ends, payload=data[8:])
        [sequence] = struct.unpack_from("!I", data, 4)
        if protocol == SCTP:
            return cls(protocol, *ends, payload=data[12:], tag=sequence)
        if len(data) < 20:  # quoted by an ICMP error
            return cls(protocol, *ends, sequence=sequence)
        acknowledgement, offset, flags = struct.unpack_from("!IBB", data, 8)
        return cls(
            protocol,
            *ends,
            flags=flags,
            sequence=sequence,
            acknowledgement=acknowledgement,
            payload=data[(offset >> 4) * 4 :],
        )

    def in_tunnel(self, outer: Tunnel) -> Self:
        return replace(self, tunnel=outer)
