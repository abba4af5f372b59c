"""Sockets of this network namespace: UDP's that are connected, to whom, and closing one; and
whether one waits at an address.

The kernel's sock_diag interface (man 7 sock_diag, linux/inet_diag.h). pyroute2 has its listing, but
not its errors nor SOCK_DESTROY, which needs CONFIG_INET_DIAG_DESTROY.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple, Self

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 1, 4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_ESTABLISHED = 1  # the state of a UDP socket that is connected
_WAITING = {socket.IPPROTO_TCP: 10, socket.IPPROTO_UDP: 7}  # TCP_LISTEN, TCP_CLOSE: not connected

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBxI48s")  # family, protocol, extensions, states, id
_ANSWER = struct.Struct("=BBBB48s")  # family, state, timer, retransmits, id; and what we skip
_ID = struct.Struct("!HH16s16s4x8s")  # local and remote port and address, interface, cookie
_COOKIE = struct.Struct("=II")  # the lower half first
_CODE = struct.Struct("=i")  # of an error, negative; 0: none
_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96


class UdpSocket(NamedTuple):
    """A connected one. `cookie`: the kernel's number of it, as programs see it. `remote` has four
    bytes for IPv4, also where an IPv6 socket talks it."""

    cookie: int
    remote: bytes
    remote_port: int
    kind: int  # AF_INET or AF_INET6
    id: bytes  # as the kernel gave it


class SockDiag:
    """A connection to the kernel, for `with`."""

    def __init__(self) -> None:
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        self._netlink.bind((0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._netlink.close()

    def connected_udp(self) -> list[UdpSocket]:
        """All of both families. OSError ENOENT where the kernel cannot list them."""
        return [*self._listed(socket.AF_INET), *self._listed(socket.AF_INET6)]

    def waits(self, protocol: int, address: bytes, port: int) -> bool:
        """Whether one of TCP or UDP waits for whoever asks this very address and port. OSError
        likewise."""
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        request = _REQUEST.pack(family, protocol, 0, 1 << _WAITING[protocol], bytes(48))
        self._send(_SOCK_DIAG_BY_FAMILY, _NLM_F_DUMP, request)
        found = False
        for body in self._answers():  # to the last: they are not to be taken for the next ones
            local_port, _, local, *_ = _ID.unpack(_ANSWER.unpack_from(body)[-1])
            found = found or (local_port, local[: len(address)]) == (port, address)
        return found

    def destroy(self, found: UdpSocket) -> bool:
        """Closes it under its owner, who hears ECONNABORTED; False if it is gone or has another
        peer by now. OSError EOPNOTSUPP where the kernel cannot."""
        request = _REQUEST.pack(found.kind, socket.IPPROTO_UDP, 0, 0, found.id)
        self._send(_SOCK_DESTROY, _NLM_F_ACK, request)
        try:
            for _ in self._answers():
                pass
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE, errno.EPIPE):
                return False
            raise
        return True

    def _listed(self, kind: int) -> Iterator[UdpSocket]:
        request = _REQUEST.pack(kind, socket.IPPROTO_UDP, 0, 1 << _ESTABLISHED, bytes(48))
        self._send(_SOCK_DIAG_BY_FAMILY, _NLM_F_DUMP, request)
        for body in self._answers():
            *_, name = _ANSWER.unpack_from(body)
            _, remote_port, _, remote, cookie = _ID.unpack(name)
            if kind == socket.AF_INET:
                remote = remote[:4]
            elif remote.startswith(_MAPPED):
                remote = remote[12:]
            low, high = _COOKIE.unpack(cookie)
            yield UdpSocket(high << 32 | low, remote, remote_port, kind, name)

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        length = _HEADER.size + len(body)
        self._netlink.send(_HEADER.pack(length, kind, _NLM_F_REQUEST | flags, 0, 0) + body)

    def _answers(self) -> Iterator[bytes]:
        while True:
            data = self._netlink.recv(1 << 16)
            while len(data) >= _HEADER.size:
                length, kind, _, _, _ = _HEADER.unpack_from(data)
                body, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    (code,) = _CODE.unpack_from(body)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield body
