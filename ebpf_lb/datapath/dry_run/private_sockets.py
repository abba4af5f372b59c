"""Sockets in a network namespace and a cgroup where nobody else is, so that what they do is seen by
nobody: no packet leaves a namespace without interfaces, and programs at that cgroup see no others.
"""

import itertools
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from ebpf_lb.datapath.dry_run import make_sockets

_numbers = itertools.count()
_WITHIN_S = 10


class PrivateSockets:
    """A process that makes them. `group`: their cgroup, below our own. OSError: it cannot be."""

    def __init__(self) -> None:
        own = _mounted() / _joined().lstrip("/")
        self.group = own / f"ebpf-lb-explain-{os.getpid()}-{next(_numbers)}"
        self.group.mkdir()
        self._maker, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._maker.settimeout(_WITHIN_S)
        script = str(Path(make_sockets.__file__))
        with theirs:
            arguments = [str(self.group), str(own), str(theirs.fileno())]
            self._process = subprocess.Popen(
                # isolated: nothing is imported but the standard library, which takes 20 ms
                [sys.executable, "-I", "-S", script, *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def pair(self, family: int, kind: int) -> tuple[socket.socket, socket.socket]:
        """Two fresh ones. OSError."""
        self._maker.send(make_sockets.REQUEST.pack(family, kind))
        said, descriptors, _, _ = socket.recv_fds(self._maker, 200, 2)
        if len(descriptors) != 2:
            raise OSError(said.decode() or "the process that makes sockets has ended")
        first, second = (socket.socket(fileno=one) for one in descriptors)
        return first, second

    def close(self) -> None:
        self._maker.close()
        try:
            self._process.wait(_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(OSError):  # it has done so
            self.group.rmdir()


def _mounted() -> Path:
    """Where cgroup version 2 is."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(target.encode().decode("unicode_escape"))
    raise OSError("cgroup version 2 is not mounted here")


def _joined() -> str:
    """This process's cgroup, below the mount."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:]
    return "/"
