"""Frames by the hundred thousand: a few good ones, and what chance makes of them.

A frame is built once by tests.support.packets and then altered in place, which costs microseconds;
so a test can see many. What it must become is judged by tests.datapath.judge.
"""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ebpf_lb.model.values import Family
from tests.datapath import judge
from tests.support.chance import SEED
from tests.support.packets import ACK, FIN, ICMP, ICMPV6, RST, SCTP, SYN, TCP, UDP, Packet, packed

INIT_CHUNK = struct.pack("!BBHIIHHI", 1, 0, 20, 7, 65535, 5, 5, 9)
DATA_CHUNK = struct.pack("!BBHIHHI", 0, 3, 20, 1, 0, 0, 0) + b"data"
OTHER_PROTOCOLS = (2, 4, 41, 47, 50, 51, 89, 103, 115, 136, 255)
EXTENSIONS = (0, 43, 60)


def seeded(salt: str, seed: int | None = None) -> tuple[int, random.Random]:
    """A generator of chance and its seed: what the environment sets, else this one, else another
    one in every run. Whoever finds a fault says the seed."""
    seed = SEED or seed or random.SystemRandom().randrange(1, 1 << 32)
    return seed, random.Random(f"{seed}/{salt}")


@dataclass(frozen=True)
class Ends:
    """Addresses and ports that are worth meeting."""

    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    source_ports: tuple[int, ...]
    destination_ports: tuple[int, ...]


def _payload(protocol: int, rng: random.Random) -> bytes:
    if protocol == SCTP:
        return rng.choice((INIT_CHUNK, DATA_CHUNK))
    if protocol == ICMP:
        return bytes([rng.choice((0, 3, 8, 11, 12, 13))]) + rng.randbytes(35)
    if protocol == ICMPV6:
        return bytes([rng.choice((1, 2, 3, 128, 129, 135, 136))]) + rng.randbytes(55)
    return rng.randbytes(rng.choice((0, 1, 7, 8, 18, 64, 64, 300, 1400, 3100)))


def _extensions(rng: random.Random) -> tuple[tuple[int, bytes], ...]:
    found = []
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3, 6, 7, 9))):
        words = rng.choice((0, 0, 0, 1, 3))
        found.append((rng.choice(EXTENSIONS), bytes([0, words]) + bytes(words * 8 + 6)))
    return tuple(found)


def good_frame(family: Family, ends: Ends, rng: random.Random) -> bytes:
    """A packet as somebody might send it: right lengths, right checksums."""
    icmp = ICMP if family is Family.IPV4 else ICMPV6
    protocol = rng.choice((TCP, TCP, UDP, UDP, SCTP, SCTP, icmp, rng.choice(OTHER_PROTOCOLS)))
    payload = _payload(protocol, rng)
    fragment = rng.choice(((0, True), (8, True), (1024, False), (65528, False)))
    return Packet(
        rng.choice(ends.sources),
        rng.choice(ends.destinations),
        rng.choice(ends.source_ports),
        rng.choice(ends.destination_ports),
        protocol,
        flags=rng.choice((SYN, ACK, ACK, SYN | ACK, FIN | ACK, RST, 0, 0xFF)),
        sequence=rng.getrandbits(32),
        payload=payload,
        ttl=rng.choice((1, 63, 64, 255)),
        identification=rng.choice((0, 1, 0x1234)),
        fragment=fragment if rng.random() < 0.1 else None,
        options=bytes(rng.choice((0, 0, 0, 4, 8, 40))) if family is Family.IPV4 else b"",
        extensions=_extensions(rng) if family is Family.IPV6 else (),
        udp_checksum=family is Family.IPV6 or rng.random() < 0.8,
        destination_mac=rng.choice((bytes.fromhex("020000006a7e"), b"\xff" * 6)),
    ).frame()


def error_about(frame: bytes, source: str, rng: random.Random) -> bytes:
    """An ICMP error that `source` sends about this packet: right, whatever it quotes of it."""
    ipv4 = frame[12:14] == b"\x08\0"
    ihl = (frame[14] & 15) * 4 if ipv4 else 40
    quoted = frame[14:][: ihl + rng.choice((4, 7, 8, 8, 8, 20, 60, 400, 1200))]
    about = ipaddress.ip_address(frame[26:30] if ipv4 else frame[22:38])
    kinds = ((3, 4), (3, 3), (11, 0), (12, 0)) if ipv4 else ((2, 0), (1, 4), (3, 0), (4, 1))
    body = bytes(rng.choice(kinds)) + bytes(2) + struct.pack("!HH", 0, 1400) + quoted
    packet = Packet(
        source,
        str(about),
        protocol=ICMP if ipv4 else ICMPV6,
        payload=body,
        ttl=rng.choice((2, 60, 255)),
    )
    return packet.with_icmp_checksum().frame()


class Mutator:
    """Alters frames in place: fields that steer the parser, lengths, checksums, any byte."""

    def __init__(self, family: Family, ends: Ends, rng: random.Random) -> None:
        self._ipv4 = family is Family.IPV4
        self._rng = rng
        self._sources = [packed(address) for address in ends.sources]
        self._destinations = [packed(address) for address in ends.destinations]
        self._ports = [
            struct.pack("!H", port) for port in (*ends.source_ports, *ends.destination_ports)
        ]
        self._all = [
            self._source,
            self._destination,
            self._port,
            self._port,
            self._total_length,
            self._header_length,
            self._protocol,
            self._fragment,
            self._header_byte,
            self._header_byte,
            self._transport_byte,
            self._transport_byte,
            self._any_byte,
            self._hop_limit,
            self._truncate,
            self._truncate,
            self._pad,
            self._partial_checksum,
        ]

    @property
    def shortest(self) -> int:
        """Below this BPF_PROG_TEST_RUN refuses a frame; test_frames.py sends such."""
        return 34 if self._ipv4 else 54

    def __call__(self, frame: bytes) -> bytes:
        altered = bytearray(frame)
        for _ in range(self._rng.choice((0, 1, 1, 2, 3))):
            self._rng.choice(self._all)(altered)
        return bytes(altered)

    def _source(self, frame: bytearray) -> None:
        address = self._rng.choice(self._sources)
        at = 26 if self._ipv4 else 22
        frame[at : at + len(address)] = address

    def _destination(self, frame: bytearray) -> None:
        address = self._rng.choice(self._destinations)
        at = 30 if self._ipv4 else 38
        frame[at : at + len(address)] = address

    def _port(self, frame: bytearray) -> None:
        at = (14 + (frame[14] & 15) * 4 if self._ipv4 else 54) + self._rng.choice((0, 2))
        if at + 2 <= len(frame):
            frame[at : at + 2] = self._rng.choice(self._ports)

    def _total_length(self, frame: bytearray) -> None:
        at = 16 if self._ipv4 else 18
        length = self._rng.choice((0, 1, 8, 19, 20, 28, 40, len(frame), 65535))
        frame[at : at + 2] = struct.pack("!H", length)

    def _header_length(self, frame: bytearray) -> None:
        if self._ipv4:
            frame[14] = self._rng.choice((4, 4, 4, 6, 0)) << 4 | self._rng.randrange(16)
        else:
            frame[14] = self._rng.choice((6, 6, 4, 0)) << 4 | self._rng.randrange(16)

    def _protocol(self, frame: bytearray) -> None:
        choices = (
            TCP,
            UDP,
            SCTP,
            ICMP,
            ICMPV6,
            0,
            43,
            44,
            51,
            59,
            60,
            135,
            self._rng.randrange(256),
        )
        frame[23 if self._ipv4 else 20] = self._rng.choice(choices)

    def _fragment(self, frame: bytearray) -> None:
        if self._ipv4:
            frame[20:22] = struct.pack("!H", self._rng.choice((0x2000, 1, 0x2001, 0x1FFF, 0x4000)))
        elif len(frame) >= 62:
            frame[54:62] = struct.pack(
                "!BBHI", TCP, 0, self._rng.choice((0, 1, 8, 9, 0xFFF8)), self._rng.choice((0, 1))
            )
            frame[20] = 44

    def _header_byte(self, frame: bytearray) -> None:
        frame[self._rng.randrange(14, self.shortest)] = self._rng.randrange(256)

    def _transport_byte(self, frame: bytearray) -> None:
        if len(frame) > self.shortest:
            at = self._rng.randrange(self.shortest, min(len(frame), self.shortest + 24))
            frame[at] = self._rng.randrange(256)

    def _hop_limit(self, frame: bytearray) -> None:
        frame[22 if self._ipv4 else 21] = self._rng.choice((0, 1, 2, 255))

    def _any_byte(self, frame: bytearray) -> None:
        frame[self._rng.randrange(14, min(len(frame), 200))] = self._rng.randrange(256)

    def _truncate(self, frame: bytearray) -> None:
        del frame[self._rng.randrange(self.shortest, len(frame) + 1) :]

    def _partial_checksum(self, frame: bytearray) -> None:
        """As a virtual device hands it over, for another to complete."""
        found = judge.read(bytes(frame))
        if found is None or found.transport is None:
            return
        at = found.transport
        if found.protocol == SCTP:
            frame[at + 8 : at + 12] = bytes(4)
        elif found.protocol in (TCP, UDP):
            field = at + (16 if found.protocol == TCP else 6)
            frame[field : field + 2] = judge.pseudo_sum(bytes(frame), found)

    def _pad(self, frame: bytearray) -> None:
        frame += self._rng.randbytes(self._rng.choice((1, 2, 26)))


def generated(
    family: Family, ends: Ends, rng: random.Random, count: int, pool: int = 400
) -> Iterator[bytes]:
    """`count` frames: good ones, each many times and mostly altered."""
    frames = [good_frame(family, ends, rng) for _ in range(pool)]
    mutate = Mutator(family, ends, rng)
    for _ in range(count):
        yield mutate(rng.choice(frames))
