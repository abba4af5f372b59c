"""What somebody does at interfaces' TC hooks, by netlink: which interfaces should be looked at. Of
tcx hooks nothing tells (`attach/tcx.py`).

What exactly changed does not matter: who hears of it compares what is there with what should be.
So of each message only the interface is read, and a queueing discipline of any kind can be on it.
"""

import errno
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

from pyroute2.netlink import rtnl

_MESSAGE_BYTES = 1 << 16
_RECEIVE_BUFFER_BYTES = 1 << 20
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_INTERFACE = struct.Struct("=4xi")  # of struct tcmsg
_KINDS = frozenset({rtnl.RTM_NEWQDISC, rtnl.RTM_DELQDISC, rtnl.RTM_NEWTFILTER, rtnl.RTM_DELTFILTER})


def follow(sink: Callable[[frozenset[int] | None], None]) -> None:
    """From now on calls `sink`, from a thread of its own, with the ifindexes of this thread's
    network namespace at whose TC hooks something changed; None: it could have been at any."""
    heard = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    heard.bind((0, rtnl.RTMGRP_TC))
    threading.Thread(target=_follow, args=(heard, sink), name="hooks", daemon=True).start()


def _follow(heard: socket.socket, sink: Callable[[frozenset[int] | None], None]) -> None:
    while True:
        try:
            changed = frozenset(interfaces(heard.recv(_MESSAGE_BYTES)))
        except OSError as error:
            # ENOBUFS: some messages are lost; anything else: lost as well, but do not spin
            if error.errno != errno.ENOBUFS:
                time.sleep(1)
            sink(None)
            continue
        if changed:
            sink(changed)


def interfaces(data: bytes) -> Iterator[int]:
    """The ifindexes in what one read of the socket gave."""
    start = 0
    while start + _HEADER.size + _INTERFACE.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, start)
        if kind in _KINDS:
            yield _INTERFACE.unpack_from(data, start + _HEADER.size)[0]
        start += max((length + 3) & ~3, _HEADER.size)
