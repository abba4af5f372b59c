"""The way to the API server, as addresses and ports: what no Service may stand on."""

import socket
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from ebpf_lb.model.values import parse_address

Resolve = Callable[..., list[Any]]
End = tuple[bytes, int]
"""An address and a TCP port."""

FRESH_S = 5.0
_PORTS = {
    "http": 80,
    "https": 443,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
    "socks5h": 1080,
}


# rule: CP-5
class Way:
    """`ends` of some URLs: the server's, and a proxy's in front of it. A name that cannot be
    resolved keeps the addresses it had: Services must not get these because a name server is away.
    `resolve`: socket.getaddrinfo. `clock`: seconds. Threads may share it."""

    def __init__(
        self,
        resolve: Resolve = socket.getaddrinfo,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolve = resolve
        self._clock = clock
        self._known: dict[tuple[str, int], frozenset[End]] = {}
        self._fresh_until: dict[tuple[str, int], float] = {}

    def ends(self, urls: Iterable[str], *, again: bool = False) -> frozenset[End]:
        """`again`: what was resolved a moment ago may be wrong by now."""
        hosts = [host for url in urls if (host := host_and_port(url)) is not None]
        return frozenset(end for host in hosts for end in self._ends(host, again))

    def _ends(self, host: tuple[str, int], again: bool) -> frozenset[End]:
        name, port = host
        try:
            return frozenset({(parse_address(name), port)})
        except ValueError:
            pass
        if again or self._clock() >= self._fresh_until.get(host, 0):
            self._fresh_until[host] = self._clock() + FRESH_S
            found = self._look_up(name, port)
            if found:
                self._known[host] = found
        return self._known.get(host, frozenset())

    def _look_up(self, name: str, port: int) -> frozenset[End]:
        try:
            found = self._resolve(name, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return frozenset()
        return frozenset(
            (socket.inet_pton(family, address[0].partition("%")[0]), port)
            for family, _, _, _, address in found
            if family in (socket.AF_INET, socket.AF_INET6)
        )


def host_and_port(url: str) -> tuple[str, int] | None:
    """Of a URL; None if there are none in it."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname and port else None
