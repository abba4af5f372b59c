"""Closes the node's UDP sockets that are connected to a backend which no longer serves.

They were translated at connect(), so the kernel knows them as connected to the backend itself, and
no packet of theirs passes a program that could choose anew. A client that hears ECONNABORTED
connects again, and to a backend that serves; else it would send into the void for ever. TCP sockets
are left alone: their connections stand as long as both ends wish. Only sockets are touched that we
translated (the map `sockets` knows them by cookie and backend), and only while they are connected
to that very backend.
"""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from ebpf_lb.datapath.pins import Build
from ebpf_lb.datapath.reader import View, node
from ebpf_lb.datapath.sock_diag import UdpSocket
from ebpf_lb.model.values import Family, format_endpoint


class Translated(NamedTuple):
    """A socket by its cookie, and what it asks on behalf of which Service port."""

    cookie: int
    backend: bytes
    port: int
    service_id: int


class Backends(Protocol):
    """What is asked of `datapath.writer.FamilyWriter` here."""

    udp_departures: int

    def serving(self, service_id: int) -> set[tuple[bytes, int]]: ...


class Diag(Protocol):
    """What is asked of `datapath.sock_diag.SockDiag` here."""

    def connected_udp(self) -> list[UdpSocket]: ...
    def destroy(self, found: UdpSocket) -> bool: ...


def translated_sockets(build: Build, family: Family) -> Iterator[Translated]:
    """What the map `sockets` holds."""
    for one in node.socket_entries(View(build, family)):
        if one.kind == "HEARS":
            yield Translated(one.cookie, one.backend, one.backend_port, one.service_id)


class StaleSockets:
    """`translated`: what the map `sockets` holds of a family."""

    def __init__(
        self,
        writers: Mapping[Family, Backends],
        translated: Callable[[Family], Iterable[Translated]],
        diag: Callable[[], AbstractContextManager[Diag]],
        log: Any,
    ) -> None:
        self._writers = writers
        self._translated = translated
        self._diag = diag
        self._log = log
        # None: not looked yet; what left while no agent ran is not known
        self._seen: dict[Family, int | None] = dict.fromkeys(writers)
        self.closed = 0
        """Sockets closed since the start."""
        self.problem = ""
        """Why sockets cannot be closed; "" if they can, as far as known."""

    # rule: CO-19
    def check(self) -> None:
        """Call it every second or so. Costs nothing while no backend of a UDP Service leaves."""
        due = {
            family: writer.udp_departures
            for family, writer in self._writers.items()
            if writer.udp_departures != self._seen[family]
        }
        if not due or self.problem:
            return
        try:
            stale = {(one.cookie, one.backend, one.port) for f in due for one in self._stale(f)}
            if stale:
                self._close(stale)
        except OSError as error:
            self._complain(error)
            return
        self._seen.update(due)

    def _stale(self, family: Family) -> Iterable[Translated]:
        serving: dict[int, set[tuple[bytes, int]]] = {}
        for one in self._translated(family):
            if one.service_id not in serving:
                serving[one.service_id] = self._writers[family].serving(one.service_id)
            if (one.backend, one.port) not in serving[one.service_id]:
                yield one

    def _close(self, stale: set[tuple[int, bytes, int]]) -> None:
        with self._diag() as diag:
            for found in diag.connected_udp():
                if (found.cookie, found.remote, found.remote_port) in stale and diag.destroy(found):
                    self.closed += 1
                    backend = format_endpoint(found.remote, found.remote_port)
                    self._log.info("closed a UDP socket, its backend left", backend=backend)

    def _complain(self, error: OSError) -> None:
        """Nothing but the kernel's abilities is held against it for good."""
        reason = error.strerror or str(error)
        sentence = f"UDP sockets whose backend left cannot be closed: {reason}."
        if error.errno in (errno.EOPNOTSUPP, errno.ENOENT, errno.EPERM, errno.EPROTONOSUPPORT):
            self.problem = (
                f"{sentence} The kernel needs CONFIG_INET_UDP_DIAG and CONFIG_INET_DIAG_DESTROY, "
                "and the agent CAP_NET_ADMIN."
            )
        self._log.warning("stale sockets stay", problem=self.problem or sentence)
