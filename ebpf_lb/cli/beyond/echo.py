"""Whether an address answers an echo request, and how large a packet gets there.

A path-MTU black hole shows in nothing but this: small packets arrive, large ones do not, and nobody
says so. Echo requests are not a Service's, so no map of ours changes by them.
"""

import os
import select
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

_WAIT_S = 0.7
_SIZES = (1480, 1450, 1420, 1400, 1350, 1280, 1000, 576)
_PROBE = 3  # IP(V6)_PMTUDISC_PROBE: may not be fragmented, whatever is known of the way
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER = 10, 23
_ICMP_HEADER = struct.Struct("!BBHHH")
_SMALL = 64
_REQUESTS = {4: 8, 16: 128}  # by the address's width
_REPLIES = {4: 0, 16: 129}
_HEADERS = {4: 20, 16: 40}


class Way(NamedTuple):
    """An address, and the MTU that the route to it has."""

    address: bytes
    mtu: int


@dataclass(slots=True)
class Echo:
    """`largest`: bytes of the largest packet that came back; 0: none. `of`: of the largest sent.
    `told`: a router or we ourselves knew that packets of the larger sizes are too big."""

    largest: int = 0
    of: int = 0
    told: bool = False

    @property
    def answers(self) -> bool:
        return self.largest > 0

    @property
    def black_hole(self) -> bool:
        return 0 < self.largest < self.of and not self.told


def ask(ways: Iterable[Way], wait_s: float = _WAIT_S) -> dict[bytes, Echo]:
    """All at once. {} without the right to."""
    found: dict[bytes, Echo] = {}
    for width in _REQUESTS:
        of_family = [way for way in dict.fromkeys(ways) if len(way.address) == width]
        if of_family:
            try:
                with _Asking(width) as asking:
                    found |= asking.ask(of_family, wait_s)
            except OSError:
                continue
    return found


class _Asking:
    def __init__(self, width: int) -> None:
        self._width = width
        six = width == 16
        family = socket.AF_INET6 if six else socket.AF_INET
        protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
        self._socket = socket.socket(family, socket.SOCK_RAW, protocol)
        level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
        option = _IPV6_MTU_DISCOVER if six else _IP_MTU_DISCOVER
        self._socket.setsockopt(level, option, _PROBE)
        self._socket.setblocking(False)
        self._id = os.getpid() & 0xFFFF

    def ask(self, ways: list[Way], wait_s: float) -> dict[bytes, Echo]:
        found = {way.address: Echo() for way in ways}
        for way in ways:
            sizes = sorted({_SMALL, way.mtu, *(size for size in _SIZES if size < way.mtu)})
            for size in sizes:
                sent = self._send(way.address, size)
                found[way.address].told |= not sent and size > _SMALL
                if sent:
                    found[way.address].of = size
        until = time.monotonic() + wait_s
        while (left := until - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                break
            self._receive(found)
            if all(one.largest == one.of for one in found.values()):
                break
        return found

    def _send(self, address: bytes, size: int) -> bool:
        payload = bytes(max(size - _HEADERS[self._width] - _ICMP_HEADER.size, 0))
        header = _ICMP_HEADER.pack(_REQUESTS[self._width], 0, 0, self._id, size)
        if self._width == 4:
            total = _sum(header + payload)
            header = _ICMP_HEADER.pack(_REQUESTS[4], 0, total, self._id, size)
        family = socket.AF_INET6 if self._width == 16 else socket.AF_INET
        try:
            self._socket.sendto(header + payload, (socket.inet_ntop(family, address), 0))
        except OSError:
            return False
        return True

    def _receive(self, found: dict[bytes, Echo]) -> None:
        try:
            data, sender = self._socket.recvfrom(1 << 16)
        except OSError:
            return
        family = socket.AF_INET6 if self._width == 16 else socket.AF_INET
        address = socket.inet_pton(family, sender[0].partition("%")[0])
        if self._width == 4:
            data = data[(data[0] & 15) * 4 :]
        if len(data) < _ICMP_HEADER.size:
            return
        kind, code, _, number, size = _ICMP_HEADER.unpack_from(data)
        if kind == _REPLIES[self._width] and number == self._id and address in found:
            found[address].largest = max(found[address].largest, size)
        elif (kind, code) in ((3, 4), (2, 0)):
            quoted = data[8:]
            at = 16 if self._width == 4 else 24
            target = quoted[at : at + self._width]
            if target in found:
                found[target].told = True

    def __enter__(self) -> "_Asking":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def _sum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)
