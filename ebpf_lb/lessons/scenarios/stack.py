"""What the nodes' own stacks see of packets: where they come in, after TC's ingress programs, and
where they leave, before its egress programs. Between frames of two interfaces, this tells which
hook rewrote an address.

A rule of nftables at each end hands copies of the packets to a netlink socket (NFLOG). It changes
nothing, and goes with the capture.
"""

import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from ebpf_lb.errors import UserError
from ebpf_lb.lab import namespaces
from ebpf_lb.lessons.scenarios.recording import Sight

_TABLE, _GROUP, _BYTES = "lesson_capture", 4711, 256
# before everything else of the stack that changes packets, and after all of it
_HOOKS = {"prerouting": -390, "postrouting": 390}
_REMOVE = f"add table inet {_TABLE}\ndelete table inet {_TABLE}\n"
_RULES = f"table inet {_TABLE} {{\n" + "".join(
    f"""chain {hook} {{
type filter hook {hook} priority {priority}
meta l4proto {{ tcp, udp, sctp, icmp, icmpv6 }} log prefix "{hook}" group {_GROUP} snaplen {_BYTES}
}}
"""
    for hook, priority in _HOOKS.items()
)

# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nfnetlink_log.h
_NETLINK_NETFILTER, _SUBSYSTEM = 12, 4 << 8
_PACKET_MESSAGE, _CONFIG_MESSAGE = _SUBSYSTEM | 0, _SUBSYSTEM | 1
_ERROR_MESSAGE, _REQUEST_AND_ACK = 2, 1 | 4
_BIND, _COPY_PACKET = 1, 2
_CFG_CMD, _CFG_MODE, _CFG_QTHRESH = 1, 2, 5
_PAYLOAD, _PREFIX = 9, 10
_TYPE_MASK = 0x3FFF
_SO_RCVBUFFORCE, _BUFFER_BYTES = 33, 4 << 20


class StackError(UserError):
    """The stack of a node cannot be watched."""


class StackWatch:
    """Watches while it is a context manager. Raises StackError."""

    def __init__(self, nodes: Iterable[tuple[str, Path]]):
        """Pairs of a node's name and the path of its network namespace."""
        self._nodes = list(nodes)
        self._sockets: list[tuple[str, socket.socket]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node, path in self._nodes:
                with namespaces.entered(path):
                    listener = stack.enter_context(_listen(node))
                    stack.callback(_nft, node, path, _REMOVE)
                    _nft(node, path, _REMOVE + _RULES + "}\n")
                self._sockets.append((node, listener))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def sights(self) -> tuple[Sight, ...]:
        """All so far, in their order on each node."""
        return tuple(
            Sight(node, hook, data)
            for node, listener in self._sockets
            for hook, data in _packets(listener)
        )


def _nft(node: str, path: Path, commands: str) -> None:
    with namespaces.entered(path):
        done = subprocess.run(["nft", "-f", "-"], input=commands, capture_output=True, text=True)
    if done.returncode:
        raise StackError(f"nft on {node} refused to log packets: {done.stderr.strip()}")


def _listen(node: str) -> socket.socket:
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    attributes = (
        _attribute(_CFG_CMD, struct.pack("=B", _BIND))
        + _attribute(_CFG_MODE, struct.pack("!IBx", _BYTES, _COPY_PACKET))
        + _attribute(_CFG_QTHRESH, struct.pack("!I", 1))  # each packet at once
    )
    body = struct.pack("!BBH", socket.AF_UNSPEC, 0, _GROUP) + attributes
    head = struct.pack("=IHHII", 16 + len(body), _CONFIG_MESSAGE, _REQUEST_AND_ACK, 1, 0)
    listener.send(head + body)
    kind, answer = next(_messages(listener.recv(65536)))
    if kind == _ERROR_MESSAGE and (code := -struct.unpack_from("=i", answer)[0]):
        listener.close()
        raise StackError(f"packets of {node} are being captured already (error {code})")
    listener.setblocking(False)
    return listener


def _packets(listener: socket.socket) -> Iterator[tuple[str, bytes]]:
    """The hook, and the packet from its IP header on."""
    while True:
        try:
            received = listener.recv(65536)
        except BlockingIOError:
            return
        for kind, body in _messages(received):
            if kind == _PACKET_MESSAGE:
                attributes = dict(_attributes(body[4:]))
                hook = attributes[_PREFIX].rstrip(b"\0").decode()
                yield hook, attributes.get(_PAYLOAD, b"")


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        yield kind, data[16:length]
        data = data[_aligned(length) :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & _TYPE_MASK, data[4:length]
        data = data[_aligned(length) :]


def _attribute(kind: int, value: bytes) -> bytes:
    padding = bytes(_aligned(len(value)) - len(value))
    return struct.pack("=HH", 4 + len(value), kind) + value + padding


def _aligned(length: int) -> int:
    return (length + 3) & ~3
