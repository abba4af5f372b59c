"""The node as it is set up: its Services, and the networks around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.datapath.judge import End


@dataclass(frozen=True)
class Service:
    """One frontend. `local`: its policy here; `ranges`: who may ask, None: anyone."""

    cluster_ip: bool
    backends: frozenset[End]
    local_backends: frozenset[End] = frozenset()
    local: bool = False
    ranges: tuple[tuple[bytes, int], ...] | None = None

    @property
    def all(self) -> frozenset[End]:
        return self.backends | self.local_backends


@dataclass(frozen=True)
class Route:
    """To a network by a device; `via` is the next hop, None where the network is on the link."""

    network: bytes
    length: int
    device: str | None  # None: nobody is reached by it
    via: bytes | None = None


def within(address: bytes, network: bytes, length: int) -> bool:
    shift = len(address) * 8 - length
    return len(address) == len(network) and (
        int.from_bytes(address) >> shift == int.from_bytes(network) >> shift
    )


@dataclass
class Node:
    """What the node knows about the networks around it."""

    routes: tuple[Route, ...]
    neighbours: Mapping[tuple[str, bytes], bytes]
    macs: Mapping[str, bytes]
    sources: Mapping[str, bytes]  # what is masqueraded with, by device; hairpins: by hook
    own: frozenset[bytes]
    pods: tuple[bytes, int]
    bridge: str

    def strange(self, address: bytes) -> bool:
        """No host's address: there may be a way or not."""
        if len(address) == 4:
            return address[0] in (0, 127) or address[0] >= 224
        return address[0] in (0, 0xFE, 0xFF)

    def route(self, destination: bytes) -> Route:
        fitting = [r for r in self.routes if within(destination, r.network, r.length)]
        return max(fitting, key=lambda route: route.length)

    def way(self, destination: bytes) -> bytes | None:
        """The MAC addresses of a frame sent there; empty while the neighbour is unknown, None where
        there is no way."""
        route = self.route(destination)
        if route.device is None:
            return None
        hop = self.neighbours.get((route.device, route.via or destination))
        return b"" if hop is None else hop + self.macs[route.device]
