"""What the programs at the node's own sockets make of one that names an address.

There is no test run of such programs, so the sockets are real ones. They are made where nobody else
is, and copies of the programs there take them for the node's own. What the agent has attached sees
them as well, but takes them for a pod's, and leaves them alone. No packet leaves.
"""

import errno
import fcntl
import os
import socket
import struct
import time
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

from ebpf_lb.datapath.attach.cgroup import PROGRAMS
from ebpf_lb.datapath.dry_run.packet import End
from ebpf_lb.datapath.dry_run.private_sockets import PrivateSockets
from ebpf_lb.datapath.dry_run.sandbox import Sandbox, Unavailable
from ebpf_lb.datapath.layout import Reason
from ebpf_lb.datapath.libbpf import CgroupHook, Link
from ebpf_lb.model.values import Family, Protocol

_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}
_HOOKS = {
    Family.IPV4: (
        CgroupHook.INET4_CONNECT, CgroupHook.UDP4_RECVMSG, CgroupHook.INET4_GETPEERNAME
    ),
    Family.IPV6: (
        CgroupHook.INET6_CONNECT, CgroupHook.UDP6_RECVMSG, CgroupHook.INET6_GETPEERNAME
    ),
}  # fmt: skip
_BY_CHOICE = ("turns", "connections")
"""Arrays by which the second connect() would choose another backend than the first."""

_WITHIN_S = 5.0
_SO_COOKIE, _SO_NETNS_COOKIE, _IP_FREEBIND, _IPV6_FREEBIND = 57, 71, 15, 78
_SIOCSIFFLAGS, _SIOCSIFADDR, _IFF_UP = 0x8914, 0x8916, 1
_LOOPBACK = 1  # the ifindex of every namespace's own


class Named(NamedTuple):
    """What became of an address that a socket named. `backend`: whom it talks to instead; None: the
    address stayed. `heard`: from whom, by the socket's account, its answers come."""

    reasons: list[Reason]
    backend: End | None
    heard: End | None


class AtSocket:
    """One family's programs at sockets."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Unavailable."""
        self._sandbox = sandbox
        self._family = sandbox.view.family
        self._key = sandbox.view.layout.struct("socket_key")
        with ExitStack() as opened:
            try:
                self._private = PrivateSockets()
                opened.callback(self._private.close)
                self._config = sandbox.apart("config")
                self._attach(opened)
            except OSError as error:
                raise Unavailable(f"no private sockets: {error}") from error
            self._opened = opened.pop_all()

    def _attach(self, opened: ExitStack) -> None:
        wanted = {
            name: hook
            for name, hook in PROGRAMS[self._family].items()
            if hook in _HOOKS[self._family]
        }
        programs = self._sandbox.load(wanted, instead={"config": self._config})
        group = os.open(self._private.group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, group)
        for name, hook in wanted.items():
            link = opened.enter_context(Link.attach_cgroup(programs[name], group, hook))
            opened.callback(link.detach)

    def connect(self, protocol: Protocol, destination: End, *, taken: bool) -> Named:
        """`taken`: a process of the node listens on that very address. Unavailable."""
        kind = socket.AF_INET if self._family is Family.IPV4 else socket.AF_INET6
        try:
            return self._by_a_pair(kind, protocol, destination, taken)
        except OSError:  # of what a busy machine does late to these; fresh ones, then
            self._sandbox.copy(*_BY_CHOICE)
        try:
            return self._by_a_pair(kind, protocol, destination, taken)
        except OSError as error:
            raise Unavailable(f"no private sockets: {error}") from error

    def _by_a_pair(self, kind: int, protocol: Protocol, destination: End, taken: bool) -> Named:
        own, other = self._private.pair(kind, _KINDS[protocol])
        with own, other:
            return self._connect(own, other, destination, taken)

    def _connect(
        self, own: socket.socket, other: socket.socket, destination: End, taken: bool
    ) -> Named:
        self._take_for_own(own)
        for one in (own, other):
            one.settimeout(_WITHIN_S)
        if taken:
            _listen(other, destination)
        before = self._sandbox.counted()
        with suppress(OSError):  # there is no way to anybody
            own.connect(_place(destination))
        reasons = self._sandbox.reasons(self._sandbox.counted() - before)
        backend = self._translated(own)
        if backend is None:
            return Named(reasons, None, None)
        self._sandbox.copy(*_BY_CHOICE)
        return Named(reasons, backend, _answered(own, other, destination, backend))

    def _take_for_own(self, one: socket.socket) -> None:
        """Such sockets are the node's own, for these programs; all else is as it is now."""
        now = bytearray(self._sandbox.live("config").lookup(bytes(4)) or b"")
        at = self._sandbox.view.layout.struct("config").offset("node_netns_cookie")
        now[at : at + 8] = one.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        self._config.update(bytes(4), bytes(now))

    def _translated(self, one: socket.socket) -> End | None:
        """Whom it talks to, as the programs noted it."""
        (cookie,) = struct.unpack("=Q", one.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))
        hears = self._sandbox.view.layout.enum("socket_entry")["SOCKET_HEARS"]
        for key in list(self._sandbox.written("sockets").keys()):
            found = self._key.unpack(key)
            if (found.cookie, found.entry) == (cookie, hears):
                return bytes(found.address), found.port
        return None

    def close(self) -> None:
        self._opened.close()


def at_socket(sandbox: Sandbox) -> AtSocket:
    """Made when it is first needed, and closed with the sandbox. Unavailable."""
    found = sandbox.sockets
    if not isinstance(found, AtSocket):
        found = sandbox.sockets = AtSocket(sandbox)
        sandbox.closes(found.close)
    return found


def _place(end: End) -> tuple[str, int]:
    family = socket.AF_INET if len(end[0]) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, end[0]), end[1]


def _answered(own: socket.socket, backend: socket.socket, frontend: End, at: End) -> End:
    """From whom the socket has its answers, by its own account: `backend` gives one, at that
    backend's address. OSError."""
    _give_address(own, at[0])
    backend.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _bind(backend, at)
    if own.type == socket.SOCK_STREAM:
        backend.listen(1)
        # one that was refused before hears of it once more, and nothing is asked then
        with suppress(ConnectionAbortedError):
            own.connect(_place(frontend))
            return _peer(own, own.getpeername())
        own.connect(_place(frontend))
        peer = own.getpeername()
    else:
        own.connect(_place(frontend))
        own.send(b"?")
        _, client = backend.recvfrom(1)
        backend.sendto(b"!", client)
        _, peer = own.recvfrom(1)
    return _peer(own, peer)


def _peer(one: socket.socket, told: Any) -> End:
    """Of a pair of text and number, and more for IPv6."""
    return socket.inet_pton(one.family, told[0]), told[1]


def _bind(one: socket.socket, end: End) -> None:
    """IPv6's addresses may be used a moment after they have been given."""
    deadline = time.monotonic() + _WITHIN_S
    while True:
        try:
            one.bind(_place(end))
            return
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL or time.monotonic() > deadline:
                raise
        time.sleep(0.002)


def _listen(one: socket.socket, end: End) -> None:
    level, option = (
        (socket.IPPROTO_IP, _IP_FREEBIND)
        if one.family == socket.AF_INET
        else (socket.IPPROTO_IPV6, _IPV6_FREEBIND)
    )
    one.setsockopt(level, option, 1)
    one.bind(_place(end))
    if one.type == socket.SOCK_STREAM:
        one.listen(1)


def _give_address(one: socket.socket, address: bytes) -> None:
    """To the loopback interface of that socket's namespace (man 7 netdevice)."""
    up = struct.pack("=16sH22x", b"lo", _IFF_UP)
    fcntl.ioctl(one, _SIOCSIFFLAGS, up)
    if len(address) == 4:
        request = struct.pack("=16sHH4s16x", b"lo:1", socket.AF_INET, 0, address)
        fcntl.ioctl(one, _SIOCSIFADDR, request)
        return
    with suppress(FileExistsError):
        fcntl.ioctl(one, _SIOCSIFADDR, struct.pack("=16sIi", address, 128, _LOOPBACK))
