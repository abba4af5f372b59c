"""An SCTP association (RFC 9260) by a raw socket, where the kernel has no SCTP: as much as a client
needs that asks one question. The packets are real, and the network of a lab loses none."""

import contextlib
import errno
import os
import socket
import struct
import time
from typing import Any

from ebpf_lb.containers.podserver.sctp import (
    ABORT,
    COOKIE_ACK,
    COOKIE_ECHO,
    DATA,
    INIT,
    INIT_ACK,
    PROTOCOL,
    Chunk,
    Packet,
    data_chunk,
    init_value,
)

_STATE_COOKIE = 7  # a parameter of INIT ACK
_FIRST_PORT, _PORTS = 32768, 28000


class Association(socket.socket):
    """In the place of a kernel's socket: bind, connect, send, recv. It is aborted at its end."""

    def __init__(self, family: socket.AddressFamily) -> None:
        super().__init__(family, socket.SOCK_RAW, PROTOCOL)
        self._own_tag, self._tsn = struct.unpack("!II", os.urandom(8))
        self._own_tag |= 1
        self._source = _FIRST_PORT + int.from_bytes(os.urandom(2)) % _PORTS
        self._port = self._peer_tag = 0

    def bind(self, address: Any) -> None:
        """The port is chosen by chance: nobody else gives out SCTP's."""

    def getsockname(self) -> Any:
        return super().getsockname()[0], self._source

    def connect(self, address: Any) -> None:
        host, self._port = address
        super().connect((host, 0))
        self._transmit(0, Chunk(INIT, init_value(self._own_tag, self._tsn)))
        init_ack = self._next(INIT_ACK)
        self._peer_tag = int.from_bytes(init_ack[:4])
        self._transmit(self._peer_tag, Chunk(COOKIE_ECHO, _cookie(init_ack)))
        self._next(COOKIE_ACK)

    def send(self, data: Any, *_: Any) -> int:
        self._transmit(self._peer_tag, data_chunk(self._tsn, 0, bytes(data)))
        return len(data)

    def recv(self, *_: Any) -> bytes:
        return self._next(DATA)[12:]

    def close(self) -> None:
        if self._peer_tag and self.fileno() >= 0:
            with contextlib.suppress(OSError):
                self._transmit(self._peer_tag, Chunk(ABORT))
        super().close()

    def _transmit(self, tag: int, chunk: Chunk) -> None:
        super().send(Packet(self._source, self._port, tag, (chunk,)).encode())

    def _next(self, kind: int) -> bytes:
        """The value of the next such chunk that is for this association."""
        limit = self.gettimeout() or 0.0
        deadline = time.monotonic() + limit
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.settimeout(left)
                data = super().recv(1 << 16)
                if self.family is socket.AF_INET:  # there the IP header comes with it
                    data = data[(data[0] & 15) * 4 :]
                packet = Packet.decode(data)
                ports = packet.source_port, packet.destination_port
                if ports != (self._port, self._source) or packet.tag != self._own_tag:
                    continue
                values = {chunk.kind: chunk.value for chunk in packet.chunks}
                if ABORT in values:
                    raise ConnectionRefusedError(errno.ECONNREFUSED, "the association was aborted")
                if kind in values:
                    return values[kind]
            raise TimeoutError
        except ValueError as error:
            raise ConnectionResetError(errno.ECONNRESET, str(error)) from None
        finally:
            self.settimeout(limit)


def _cookie(init_ack: bytes) -> bytes:
    """b"" where there is none."""
    parameters = init_ack[16:]
    while len(parameters) >= 4:
        kind, length = struct.unpack_from("!HH", parameters)
        if kind == _STATE_COOKIE:
            return parameters[4:length]
        parameters = parameters[max(4, length + -length % 4) :]
    return b""
