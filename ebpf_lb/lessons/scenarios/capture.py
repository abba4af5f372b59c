"""Frames at every interface of some network namespaces, by AF_PACKET.

One socket a namespace sees all of its interfaces, both directions, in the order in which a packet
passes them. The kernel keeps the frames until they are asked for. Where its taps lie: a frame that
comes is seen after XDP and before TC's ingress programs, one that leaves after the egress programs;
so each frame is as it was on that wire.
"""

import errno
import socket
import struct
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from ebpf_lb.errors import UserError
from ebpf_lb.lab import namespaces
from ebpf_lb.lessons.scenarios.recording import Frame

_ETH_P_ALL = 0x0003
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_PACKET_OTHERHOST, _PACKET_OUTGOING = 3, 4
_ARPHRD_NONE = 0xFFFE  # without Ethernet header: recorded with an empty one
_BUFFER_BYTES = 16 << 20
_LARGEST = 1 << 16
_GONE = (errno.ENOENT, errno.EINVAL)  # no file, or one on which no namespace is mounted any more


class CaptureError(UserError):
    """Frames were lost."""


class Capture:
    """Captures from its beginning to its end as a context manager."""

    def __init__(self, namespaces_: Iterable[tuple[str, Path]]):
        """Pairs of a machine's name and the path of its network namespace."""
        self._namespaces = list(namespaces_)
        self._sockets: list[tuple[str, socket.socket]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for machine, path in self._namespaces:
            try:
                with namespaces.entered(path):
                    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            except OSError as error:
                if error.errno in _GONE:  # a pod has ended since the list of machines was made
                    continue
                raise
            self._stack.enter_context(tap)
            tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
            tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            tap.setblocking(False)
            self._sockets.append((machine, tap))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def frames(self) -> tuple[Frame, ...]:
        """All frames so far. Raises CaptureError if there were too many to keep."""
        found = []
        for machine, tap in self._sockets:
            number = 0
            while True:
                try:
                    data, controls, _, address = tap.recvmsg(_LARGEST, 256)
                except BlockingIOError:
                    break
                interface, protocol, kind, hardware, _ = address
                if hardware == _ARPHRD_NONE:
                    data = bytes(12) + struct.pack("!H", protocol) + data
                found.append(
                    Frame(
                        machine,
                        interface,
                        kind == _PACKET_OUTGOING,
                        kind == _PACKET_OTHERHOST,
                        _time_ns(controls),
                        number,
                        data,
                    )
                )
                number += 1
            statistics = tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            if lost := struct.unpack("II", statistics)[1]:
                raise CaptureError(
                    f"{lost} frames on {machine} were lost: try again when the lab is less busy"
                )
        return tuple(found)


def _time_ns(controls: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in controls:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("qq", data[:16])
            return int(seconds * 1_000_000_000 + nanoseconds)
    raise AssertionError("asked for time stamps")
