"""Processes of this node that a Service is served in the place of: an externalIP that is the node's
own takes its port 22 as well, if the Service has one. That is what was asked for, and as in
kube-proxy; but whoever asked should hear of it.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ebpf_lb.datapath.pins import Build
from ebpf_lb.datapath.reader import View
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Family, Protocol, family_of, format_endpoint

INTERVAL_S = 30.0
_AT_MOST = 1000  # sockets, and Services that are told of
_LISTENING = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN, and TCP_CLOSE: not connected
_EPHEMERAL = 32768  # UDP: from here on they are clients' more often than servers'

Listener = tuple[bytes, int, Protocol]
Owner = Callable[[bytes, int, Protocol], ObjectKey | None]


class Overshadowed:
    """`addresses`: the node's own. `listeners`: of its processes; zeros stand for all addresses.
    `owner`: whose frontend that is. `report`: told once of each. `clock`: monotonic seconds."""

    problem = ""  # the Service's owner has it, not the node

    def __init__(
        self,
        addresses: Callable[[], Iterable[bytes]],
        listeners: Callable[[], Iterable[Listener]],
        owner: Owner,
        report: Callable[[ObjectKey, str], None],
        log: Any,
        clock: Callable[[], float],
    ) -> None:
        self._addresses = addresses
        self._listeners = listeners
        self._owner = owner
        self._report = report
        self._log = log
        self._clock = clock
        self._next_s = clock()
        self._known: frozenset[tuple[ObjectKey, str]] = frozenset()

    def check(self) -> None:
        """Call it every second or so."""
        now = self._clock()
        if now < self._next_s:
            return
        self._next_s = now + INTERVAL_S
        found = frozenset(self._found())
        for service, sentence in sorted(found - self._known):
            self._log.warning("a process is overshadowed", service=str(service), problem=sentence)
            self._report(service, sentence)
        self._known = found

    def _found(self) -> Iterator[tuple[ObjectKey, str]]:
        own = sorted(set(self._addresses()))
        for bound, port, protocol in sorted(set(self._listeners()))[:_AT_MOST]:
            for address in own:
                if bound != address and (any(bound) or len(bound) < len(address)):
                    continue
                service = self._owner(address, port, protocol)
                if service is not None:
                    where = f"{format_endpoint(address, port)}/{protocol.name}"
                    yield (
                        service,
                        (
                            f"Service {service} takes {where}, where a process of this node "
                            "listens: connections to it reach the Service."
                        ),
                    )


def frontend_owner(build: Build) -> Owner:
    """By the kernel's maps."""
    views = {family: View(build, family) for family in Family}

    def owner(address: bytes, port: int, protocol: Protocol) -> ObjectKey | None:
        view = views[family_of(address)]
        frontends = view.map("frontends")
        pack = view.layout.struct("frontend_key").pack
        found = frontends and frontends.lookup(pack(address=address, port=port, protocol=protocol))
        if not found:
            return None
        number = view.layout.struct("frontend").unpack(found).service_id
        name = view.element("names", number) if number else None
        if name is None or not name.text:
            return None
        namespace, _, rest = name.text.partition("/")
        return ObjectKey(namespace, rest.partition("/")[0].partition(":")[0])

    return owner


def listeners(folder: Path = Path("/proc/self/net")) -> Iterator[Listener]:
    """Sockets of this network namespace that wait for others."""
    for name, protocol in (("tcp", Protocol.TCP), ("udp", Protocol.UDP)):
        for suffix in ("", "6"):
            try:
                lines = (folder / f"{name}{suffix}").read_text().splitlines()[1:]
            except OSError:
                continue
            for line in lines:
                local, state = line.split()[1], line.split()[3]
                port = int(local.partition(":")[2], 16)
                served = protocol is Protocol.TCP or port < _EPHEMERAL
                if state == _LISTENING[name] and port and served:
                    yield _address(local.partition(":")[0]), port, protocol


def _address(text: str) -> bytes:
    """Words of 32 bits, each as this machine has numbers."""
    data = bytes.fromhex(text)
    return b"".join(data[start : start + 4][::-1] for start in range(0, len(data), 4))
