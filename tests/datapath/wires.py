"""Namespaces, cgroups and real sockets for tests whose packets come from a real stack.

Everything carries the process's number, so that test runs side by side leave each other alone.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ebpf_lb.lab import cgroups, namespaces

T = TypeVar("T")
_CHILD_TIMEOUT_S = 60


class Namespace:
    """A network namespace of the test's own."""

    def __init__(self, name: str) -> None:
        self.name = f"eblb-w{os.getpid()}-{name}"
        self.path = Path("/run/netns") / self.name

    def ip(self, *commands: str) -> None:
        """Runs ip(8) commands in it, one on each line."""
        subprocess.run(
            ["ip", "-n", self.name, "-batch", "-"],
            input="\n".join(commands),
            text=True,
            check=True,
        )

    def sysctl(self, **settings: object) -> None:
        """Names with a double underscore for each slash."""
        with namespaces.entered(self.path):
            namespaces.set_sysctls({n.replace("__", "/"): v for n, v in settings.items()})

    def offload(self, interface: str, **features: bool) -> None:
        """ethtool's features of an interface, on or off."""
        words = [word for name, on in features.items() for word in (name, "on" if on else "off")]
        with namespaces.entered(self.path):
            subprocess.run(["ethtool", "-K", interface, *words], check=True, capture_output=True)

    def ifindex(self, interface: str) -> int:
        with namespaces.entered(self.path):
            return socket.if_nametoindex(interface)


@contextmanager
def network(*names: str) -> Iterator[list[Namespace]]:
    """Namespaces, gone afterwards, each with its loopback up."""
    made = [Namespace(name) for name in names]
    try:
        for one in made:
            namespaces.remove(one.path)  # of a test run that was killed and had our number
            namespaces.create(one.path)
            one.ip("link set lo up")
        yield made
    finally:
        for one in made:
            namespaces.remove(one.path)


@contextmanager
def cgroup(name: str) -> Iterator[Path]:
    """A cgroup (v2) below the root, gone afterwards."""
    line = next(
        line
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.split()[2] == "cgroup2"
    )
    path = Path(line.split()[1]) / f"eblb-w{os.getpid()}-{name}"
    cgroups.make(path)
    try:
        yield path
    finally:
        cgroups.kill(path, reaped_within_s=2)
        cgroups.remove(path)


def _start(place: Namespace, group: Path | None, function: Callable[[], object]) -> tuple[int, int]:
    """A child in a namespace and cgroup that pickles what `function` returns; its id and pipe."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    status = 1
    try:
        os.close(reader)
        if group is not None:
            cgroups.join(group)
        namespaces.enter(place.path)
        signal.alarm(_CHILD_TIMEOUT_S)
        result: object
        try:
            result = (True, function())
        except Exception as error:
            # errors with arguments of their own do not all survive being pickled
            simple = OSError(error.errno, str(error)) if isinstance(error, OSError) else None
            result = (False, simple or RuntimeError(traceback.format_exc()))
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(result, pipe)
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def inside(place: Namespace, function: Callable[[], T], group: Path | None = None) -> T:
    """What `function` returns, or raises, in a process in that namespace and cgroup."""
    child, reader = _start(place, group, function)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    assert data, "the process inside ended without an answer"
    fine, value = pickle.loads(data)
    if not fine:
        raise value
    return value  # type: ignore[no-any-return]


@contextmanager
def running(place: Namespace, function: Callable[[Callable[[], None]], object]) -> Iterator[None]:
    """`function(ready)` runs in a process in that namespace meanwhile; entered once it is ready."""
    reader, writer = os.pipe()

    def ready() -> None:
        os.write(writer, b"!")

    def run() -> None:
        signal.alarm(0)
        function(ready)

    child, result = _start(place, None, run)
    os.close(writer)
    try:
        assert os.read(reader, 1), "the process inside ended before it was ready"
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(result)


def netns_cookie(place: Namespace) -> int:
    """How programs tell the namespace."""
    with namespaces.entered(place.path), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        so_netns_cookie = 71
        return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, so_netns_cookie, 8), "little")
