"""SCTP (RFC 9260): by the kernel's sockets, or without them by a responder over a raw socket.

The responder is an end that accepts every association and answers each message as over UDP. It
keeps no timers and sends nothing again: the network of a lab loses nothing. What matters is that
the packets are real, their CRC32c included, so that associations through a Service can be followed.
"""

import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial

from ebpf_lb.containers.podserver import datagrams

PROTOCOL = socket.IPPROTO_SCTP
DATA, INIT, INIT_ACK, SACK, HEARTBEAT, HEARTBEAT_ACK, ABORT = range(7)
SHUTDOWN, SHUTDOWN_ACK, COOKIE_ECHO, COOKIE_ACK, SHUTDOWN_COMPLETE = 7, 8, 10, 11, 14
_STATE_COOKIE = 7  # the parameter in an INIT ACK
_WHOLE_MESSAGE = 3  # DATA's flags: begins and ends here
_WINDOW = 1 << 16


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a packet; `value` is what follows the four bytes of type, flags and length."""

    kind: int
    value: bytes = b""
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Packet:
    """An SCTP packet. `tag`: the verification tag, which the receiver gave out in its INIT."""

    source_port: int
    destination_port: int
    tag: int
    chunks: tuple[Chunk, ...]

    def encode(self) -> bytes:
        """The bytes, with a right checksum."""
        body = bytearray(struct.pack("!HHII", self.source_port, self.destination_port, self.tag, 0))
        for chunk in self.chunks:
            body += struct.pack("!BBH", chunk.kind, chunk.flags, 4 + len(chunk.value))
            body += chunk.value + bytes(-len(chunk.value) % 4)
        body[8:12] = struct.pack("<I", crc32c(bytes(body)))
        return bytes(body)

    @classmethod
    def decode(cls, data: bytes) -> "Packet":
        """ValueError for what is not a packet or has a wrong checksum."""
        if len(data) < 12:
            raise ValueError("shorter than its header")
        source_port, destination_port, tag = struct.unpack_from("!HHI", data)
        if crc32c(data[:8] + bytes(4) + data[12:]) != struct.unpack_from("<I", data, 8)[0]:
            raise ValueError("wrong CRC32c")
        return cls(source_port, destination_port, tag, tuple(_chunks(data)))


def _chunks(data: bytes) -> Iterator[Chunk]:
    offset = 12
    while offset + 4 <= len(data):
        kind, flags, length = struct.unpack_from("!BBH", data, offset)
        if length < 4 or offset + length > len(data):
            raise ValueError("a chunk's length is wrong")
        yield Chunk(kind, data[offset + 4 : offset + length], flags)
        offset += length + -length % 4


@cache
def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


def crc32c(data: bytes) -> int:
    """The Castagnoli CRC of RFC 9260 appendix A."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def data_chunk(tsn: int, sequence: int, message: bytes) -> Chunk:
    """A whole message in stream 0."""
    return Chunk(DATA, struct.pack("!IHHI", tsn, 0, sequence, 0) + message, _WHOLE_MESSAGE)


def init_value(tag: int, tsn: int) -> bytes:
    """The fixed part of INIT and INIT ACK: one stream each way."""
    return struct.pack("!IIHHI", tag, _WINDOW, 1, 1, tsn)


@dataclass(slots=True)
class _Association:
    peer_tag: int
    next_tsn: int
    sequence: int = 0


@dataclass(slots=True)
class Responder:
    """The protocol without sockets: packets in, packets out."""

    name: str
    ports: frozenset[int]
    _associations: dict[tuple[str, int, int], _Association] = field(default_factory=dict)

    def respond(self, packet: Packet, client_address: str) -> Packet | None:
        """The answer to a packet; None where there is nothing to say."""
        if packet.destination_port not in self.ports:
            return None
        key = (client_address, packet.source_port, packet.destination_port)
        client = datagrams.client_text(client_address, packet.source_port)
        chunks: list[Chunk] = []
        tag = self._associations[key].peer_tag if key in self._associations else 0
        for chunk in packet.chunks:
            if chunk.kind == INIT:
                tag, chunks = self._initiate(chunk)
            elif chunk.kind == COOKIE_ECHO:
                tag, tsn = struct.unpack("!II", chunk.value)
                self._associations[key] = _Association(tag, tsn)
                chunks.append(Chunk(COOKIE_ACK))
            elif chunk.kind == ABORT or chunk.kind == SHUTDOWN_COMPLETE:
                self._associations.pop(key, None)
                return None
            elif key in self._associations:
                chunks += self._established(self._associations[key], chunk, client)
        return self._reply(packet, tag, chunks) if chunks else None

    @staticmethod
    def _reply(packet: Packet, tag: int, chunks: list[Chunk]) -> Packet:
        return Packet(packet.destination_port, packet.source_port, tag, tuple(chunks))

    @staticmethod
    def _initiate(chunk: Chunk) -> tuple[int, list[Chunk]]:
        """Nothing is kept: all that is needed later travels in the cookie."""
        [peer_tag] = struct.unpack_from("!I", chunk.value)
        tag, tsn = struct.unpack("!II", os.urandom(8))
        cookie = struct.pack("!HHII", _STATE_COOKIE, 12, peer_tag, tsn)
        return peer_tag, [Chunk(INIT_ACK, init_value(tag or 1, tsn) + cookie)]

    def _established(self, known: _Association, chunk: Chunk, client: str) -> list[Chunk]:
        if chunk.kind == HEARTBEAT:
            return [Chunk(HEARTBEAT_ACK, chunk.value)]
        if chunk.kind == SHUTDOWN:
            return [Chunk(SHUTDOWN_ACK)]
        if chunk.kind != DATA or len(chunk.value) < 12:
            return []
        [tsn] = struct.unpack_from("!I", chunk.value)
        answers = [Chunk(SACK, struct.pack("!IIHH", tsn, _WINDOW, 0, 0))]
        message = datagrams.answer(chunk.value[12:], self.name, client)
        if message is not None:
            answers.append(data_chunk(known.next_tsn, known.sequence, message))
            known.next_tsn = (known.next_tsn + 1) & 0xFFFFFFFF
            known.sequence = (known.sequence + 1) & 0xFFFF
        return answers


def servers(ports: list[int], name: str) -> list[Callable[[], None]]:
    """What to run, each in a thread of its own, to serve these ports."""
    if not ports:
        return []
    try:
        opened = [_kernel_socket(port) for port in ports]
    except OSError:  # no SCTP in this kernel
        responder = Responder(name, frozenset(ports))
        raw = [_raw_socket(family) for family in (socket.AF_INET, socket.AF_INET6)]
        return [partial(_serve_raw, one, responder) for one in raw]
    return [partial(datagrams.serve, one, name) for one in opened]


def _kernel_socket(port: int) -> socket.socket:
    """One-to-many: messages of all associations, answered like datagrams."""
    made = socket.socket(socket.AF_INET6, socket.SOCK_SEQPACKET, PROTOCOL)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind(("::", port))
    made.listen(128)
    return made


def _raw_socket(family: socket.AddressFamily) -> socket.socket:
    made = socket.socket(family, socket.SOCK_RAW, PROTOCOL)
    if family is socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        made.setsockopt(socket.IPPROTO_IP, datagrams.IP_PKTINFO, 1)
    return made


def _serve_raw(raw: socket.socket, responder: Responder) -> None:
    while True:
        data, controls, _, peer = raw.recvmsg(datagrams.LARGEST, 256)
        if raw.family is socket.AF_INET:
            data = data[(data[0] & 0xF) * 4 :]  # IPv4 raw sockets receive the IP header too
        try:
            reply = responder.respond(Packet.decode(data), peer[0])
        except (ValueError, struct.error) as error:
            print(f"SCTP packet from {peer[0]}: {error}", flush=True)
            continue
        if reply is not None:
            raw.sendmsg([reply.encode()], datagrams.source(controls), 0, (peer[0], 0))
