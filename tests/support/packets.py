"""Ethernet frames for single-packet tests: built with right checksums, and read back.

Everything here is independent of the project's own code, so that it can judge it.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, field, replace

TCP, UDP, SCTP, ICMP, ICMPV6 = 6, 17, 132, 1, 58
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16

CLIENT_MAC = bytes.fromhex("02000000c11e")
GATEWAY_MAC = bytes.fromhex("020000006a7e")


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _crc32c_of_byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC32C = [_crc32c_of_byte(value) for value in range(256)]


def crc32c(data: bytes) -> int:
    """Castagnoli's, byte by byte (RFC 9260, appendix A)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


@dataclass(frozen=True)
class Packet:
    """One packet. `payload` is what follows the transport header (of other protocols: everything).

    fragment: (offset in bytes, more to come) or None. extensions: IPv6 extension headers, ready
    made, each with the number that announces it. udp_checksum False: zero on the wire.
    """

    source: str
    destination: str
    source_port: int = 0
    destination_port: int = 0
    protocol: int = TCP
    flags: int = SYN  # TCP's; 0 with others
    sequence: int = 1000
    acknowledged: int = 0
    payload: bytes = b""
    ttl: int = 63
    identification: int = 0x1234
    fragment: tuple[int, bool] | None = None
    options: bytes = b""
    extensions: tuple[tuple[int, bytes], ...] = ()
    udp_checksum: bool = True
    tag: int = 0xCAFE  # SCTP's
    dont_fragment: bool = False  # IPv4's bit
    source_mac: bytes = CLIENT_MAC
    destination_mac: bytes = GATEWAY_MAC
    valid: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        if self.protocol != TCP:
            for name in ("flags", "sequence", "acknowledged"):
                object.__setattr__(self, name, 0)
        if self.version == 6:
            object.__setattr__(self, "dont_fragment", False)  # routers never do
            if self.fragment is None:
                object.__setattr__(self, "identification", 0)  # has no place on the wire

    @property
    def version(self) -> int:
        return ipaddress.ip_address(self.source).version

    def but(self, **changes: object) -> Packet:
        return replace(self, **changes)  # type: ignore[arg-type]

    def with_icmp_checksum(self) -> Packet:
        """The payload is an ICMP message with an empty checksum; here it is filled in."""
        pseudo = b"" if self.version == 4 else self._pseudo(len(self.payload))
        right = struct.pack("!H", checksum(pseudo + self.payload))
        return self.but(payload=self.payload[:2] + right + self.payload[4:])

    def reply(self, **changes: object) -> Packet:
        """What the receiver would answer: ends swapped, a SYN-ACK to a SYN."""
        turned = replace(
            self,
            source=self.destination,
            destination=self.source,
            source_port=self.destination_port,
            destination_port=self.source_port,
            flags=0 if self.protocol != TCP else SYN | ACK if self.flags == SYN else ACK,
            source_mac=self.destination_mac,
            destination_mac=self.source_mac,
        )
        return turned.but(**changes)

    def _pseudo(self, length: int) -> bytes:
        ends = packed(self.source) + packed(self.destination)
        if self.version == 4:
            return ends + struct.pack("!BBH", 0, self.protocol, length)
        return ends + struct.pack("!IHBB", length, 0, 0, self.protocol)

    def transport(self) -> bytes:
        """Transport header and payload, with its checksum."""
        if self.fragment is not None and self.fragment[0]:
            return self.payload
        ports = struct.pack("!HH", self.source_port, self.destination_port)
        if self.protocol == TCP:
            head = ports + struct.pack(
                "!IIBBH", self.sequence, self.acknowledged, 5 << 4, self.flags, 8192
            )
            body = head + b"\0\0\0\0" + self.payload
            value = checksum(self._pseudo(len(body)) + body)
            return head + struct.pack("!HH", value, 0) + self.payload
        if self.protocol == UDP:
            head = ports + struct.pack("!H", 8 + len(self.payload))
            body = head + b"\0\0" + self.payload
            value = checksum(self._pseudo(len(body)) + body) or 0xFFFF
            return head + struct.pack("!H", value if self.udp_checksum else 0) + self.payload
        if self.protocol == SCTP:
            head = ports + struct.pack("!I", self.tag)
            value = crc32c(head + b"\0\0\0\0" + self.payload)
            return head + struct.pack("<I", value) + self.payload
        return self.payload

    def frame(self) -> bytes:
        body = self.transport()
        if self.version == 4:
            offset, more = self.fragment or (0, False)
            head = struct.pack(
                "!BBHHHBBH4s4s",
                0x45 + len(self.options) // 4,
                0,
                20 + len(self.options) + len(body),
                self.identification,
                self.dont_fragment << 14 | more << 13 | offset // 8,
                self.ttl,
                self.protocol,
                0,
                packed(self.source),
                packed(self.destination),
            )
            head += self.options
            head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
            kind = 0x0800
        else:
            headers = list(self.extensions)
            if self.fragment is not None:
                offset, more = self.fragment
                headers.append((44, struct.pack("!xxHI", offset | more, self.identification)))
            following = [*(number for number, _ in headers), self.protocol][1:]
            chain = b"".join(
                bytes([after]) + data[1:]
                for (_, data), after in zip(headers, following, strict=True)
            )
            head = struct.pack(
                "!IHBB16s16s",
                6 << 28,
                len(chain) + len(body),
                headers[0][0] if headers else self.protocol,
                self.ttl,
                packed(self.source),
                packed(self.destination),
            )
            head += chain
            kind = 0x86DD
        return self.destination_mac + self.source_mac + struct.pack("!H", kind) + head + body


def too_big(about: Packet, source: str, *, ttl: int = 60) -> Packet:
    """The ICMP error "packet too big", as `source` sends it about a packet: with a right checksum.

    It quotes no more than it must: 8 bytes of IPv4's transport, 60 of IPv6's.
    """
    quoted = about.frame()[14:][: 28 if about.version == 4 else 100]
    if about.version == 4:
        protocol, body = ICMP, struct.pack("!BBHHH", 3, 4, 0, 0, 1400) + quoted
    else:
        protocol, body = ICMPV6, struct.pack("!BBHI", 2, 0, 0, 1400) + quoted
    packet = Packet(source, about.source, protocol=protocol, payload=body, ttl=ttl)
    return packet.with_icmp_checksum()


def parse(frame: bytes) -> Packet:
    """Reads a frame; `valid` says whether all its checksums are right."""
    kind = struct.unpack("!H", frame[12:14])[0]
    data = frame[14:]
    fragment: tuple[int, bool] | None = None
    options, identification, valid = b"", 0, True
    extensions: list[tuple[int, bytes]] = []
    dont_fragment = False
    if kind == 0x0800:
        header = (data[0] & 15) * 4
        total, identification, flags_offset = struct.unpack("!HHH", data[2:8])
        ttl, protocol = data[8], data[9]
        source, destination = data[12:16], data[16:20]
        options = data[20:header]
        valid = checksum(data[:header]) == 0
        dont_fragment = bool(flags_offset & 0x4000)
        if flags_offset & 0x3FFF:
            fragment = ((flags_offset & 0x1FFF) * 8, bool(flags_offset & 0x2000))
        body = data[header:total]
    else:
        length, protocol, ttl = struct.unpack("!HBB", data[4:8])
        source, destination = data[8:24], data[24:40]
        body = data[40 : 40 + length]
        while protocol in (0, 43, 44, 60):
            size = 8 if protocol == 44 else (body[1] + 1) * 8
            if protocol == 44:
                offset_more, identification = struct.unpack("!HI", body[2:8])
                fragment = (offset_more & 0xFFF8, bool(offset_more & 1))
            else:
                extensions.append((protocol, b"\0" + body[1:size]))
            protocol, body = body[0], body[size:]
    result = Packet(
        source=str(ipaddress.ip_address(source)),
        destination=str(ipaddress.ip_address(destination)),
        protocol=protocol,
        ttl=ttl,
        identification=identification,
        fragment=fragment,
        options=options,
        extensions=tuple(extensions),
        dont_fragment=dont_fragment,
        destination_mac=frame[:6],
        source_mac=frame[6:12],
        flags=0,
    )
    if (fragment and fragment[0]) or protocol not in (TCP, UDP, SCTP):
        if protocol == ICMP and not fragment:
            valid = valid and checksum(body) == 0
        if protocol == ICMPV6 and not fragment:
            valid = valid and checksum(result._pseudo(len(body)) + body) == 0
        return result.but(payload=body, valid=valid)
    ports = struct.unpack("!HH", body[:4])
    result = result.but(source_port=ports[0], destination_port=ports[1])
    whole = not fragment
    if protocol == TCP:
        header = (body[12] >> 4) * 4
        sequence, acknowledged = struct.unpack("!II", body[4:12])
        right = checksum(result._pseudo(len(body)) + body) == 0
        return result.but(
            sequence=sequence,
            acknowledged=acknowledged,
            flags=body[13],
            payload=body[header:],
            valid=valid and (right or not whole),
        )
    if protocol == UDP:
        zero = body[6:8] == b"\0\0"
        right = zero or checksum(result._pseudo(len(body)) + body) == 0
        return result.but(
            payload=body[8:], udp_checksum=not zero, valid=valid and (right or not whole)
        )
    stored = struct.unpack("<I", body[8:12])[0]
    right = stored == crc32c(body[:8] + b"\0\0\0\0" + body[12:])
    tag = int.from_bytes(body[4:8])
    return result.but(tag=tag, payload=body[12:], valid=valid and right)
