"""The node's own processes: real sockets, whose owners do what a script says.

A socket belongs to the namespace and the cgroup of who makes it, so a process there makes them all,
and hands them over. What differs from run to run is not told: numbers that the kernel's TCP
chooses, and when it acknowledges or sends again.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ebpf_lb.lab import cgroups
from tests.datapath import wires
from tests.support.packets import FIN, RST, SYN, TCP, Packet

Make = Callable[[int, int], socket.socket]
"""Of a version of IP and a kind of socket."""
DATA = b"x" * 24
_AGAIN = struct.pack("ii", 1, 0)  # SO_LINGER: closed at once, by a RST
Tuple = tuple[str, int, str, int]


@contextmanager
def process(node: wires.Namespace, group: Path) -> Iterator[Make]:
    """One of the node's, in this cgroup."""
    ours, its = socket.socketpair()

    def serve(ready: Callable[[], None]) -> None:
        ours.close()
        cgroups.join(group)
        ready()
        while asked := its.recv(2):
            family = socket.AF_INET if asked[0] == 4 else socket.AF_INET6
            with socket.socket(family, socket.SocketKind(asked[1])) as made:
                socket.send_fds(its, [b"!"], [made.fileno()])

    def make(version: int, kind: int) -> socket.socket:
        ours.send(bytes([version, kind]))
        _, [descriptor], _, _ = socket.recv_fds(ours, 1, 1)
        return socket.socket(fileno=descriptor)

    with ours, its, wires.running(node, serve):
        yield make


class OwnSocket:
    """What its owner does, and is told. connected: of UDP, whether it names its peer once or each
    time."""

    def __init__(self, make: Make, protocol: int, destination: tuple[str, int], connected: bool):
        self._make, self._protocol = make, protocol
        self._destination = destination
        self._connected = connected or protocol == TCP
        self._error = self._port = 0
        self._ended = self._aborted = self._connected_to = False
        self._furthest: dict[Tuple, int] = {}
        self._begin(0)

    def _begin(self, port: int) -> None:
        kind = socket.SOCK_STREAM if self._protocol == TCP else socket.SOCK_DGRAM
        version = 6 if ":" in self._destination[0] else 4
        self._socket = self._make(version, kind)
        self._socket.setblocking(False)
        if port:
            self._socket.bind(("", port))
        if self._protocol == TCP:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def open(self) -> None:
        if self._connected:
            self._connect()
        if self._protocol != TCP:
            self._send()

    def _connect(self) -> None:
        failed = self._socket.connect_ex(self._destination)
        self._connected_to = not failed
        self._notes(failed)
        self._port = self._socket.getsockname()[1]

    def say(self, segment: str) -> None:
        """What the kernel says of its own accord, its owner does not."""
        if segment == "RST":
            self.close()
        elif segment == "FIN" and self._protocol == TCP:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
        elif segment == "data" or self._protocol != TCP:
            self._send()

    def close(self) -> None:
        if self._protocol == TCP and self._socket.fileno() >= 0:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AGAIN)
        self._socket.close()

    def _send(self) -> None:
        if self._socket.fileno() < 0:
            return
        if self._protocol == TCP:
            with suppress(OSError):
                self._socket.send(DATA)
        elif not self._connected:
            with suppress(OSError):
                self._socket.sendto(DATA, self._destination)
        else:
            self._send_connected()

    # rule: CO-19
    def _send_connected(self) -> None:
        """Whose backend left, or who was refused, has to connect again, and does."""
        if self._aborted:
            self._aborted = False
            self._socket.close()
            self._begin(self._port)
            self._connected_to = False
        if not self._connected_to:
            self._connect()
        with suppress(OSError):
            self._socket.send(DATA)

    def _notes(self, error: int) -> None:
        """What netfilter drops at the node's own output is told its sender (EPERM), refused or not;
        what goes out and is lost is not."""
        if error == errno.ECONNABORTED:
            self._aborted = True
        elif error not in (0, errno.EINPROGRESS, errno.EPERM, errno.ENOTCONN):
            self._error = error

    def told(self) -> Iterator[str]:
        """What its owner hears now."""
        while self._socket.fileno() >= 0 and not self._ended:
            try:
                heard, sender = self._socket.recvfrom(65536)
            except BlockingIOError:
                break
            except OSError as error:
                self._notes(error.errno or 0)
                self._ended = self._protocol == TCP
                continue
            if self._protocol == TCP:
                if not heard:
                    self._ended = True
                    yield "its peer has ended"
                    break
                sender = self._socket.getpeername()
            yield f"{len(heard)} bytes from {sender[0]}:{sender[1]}"
        if self._error and self._connected:
            yield errno.errorcode[self._error]
        self._error = 0

    def begins(self, packet: Packet) -> None:
        """The first of a TCP connection's that is heard."""
        self._furthest.setdefault(tuple_of(packet), _after(packet))

    def said_before(self, packet: Packet) -> bool:
        """By its end of a TCP connection: what is sent again, or only acknowledges."""
        before = self._furthest.get(tuple_of(packet))
        if before is None or packet.protocol != TCP or packet.flags & RST:
            return False
        after = _after(packet)
        news = 0 < after - before & 0xFFFFFFFF < 1 << 31
        if news:
            self._furthest[tuple_of(packet)] = after
        return not news


def tuple_of(packet: Packet) -> Tuple:
    return packet.source, packet.source_port, packet.destination, packet.destination_port


def _after(packet: Packet) -> int:
    """The number that comes next."""
    length = len(packet.payload) + bool(packet.flags & (SYN | FIN))
    return packet.sequence + length & 0xFFFFFFFF
