"""EndpointSlices, held so that a hundred thousand endpoints fit into a few MiB.

A slice keeps one packed string of addresses and one byte of conditions an endpoint; `endpoints()`
unfolds them. Names of nodes and hints are expected to be shared (interned) by whoever makes slices.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Family, Protocol

# Bits of Endpoint.conditions. Plain numbers: IntFlag costs a microsecond an operation.
READY = 1
SERVING = 2
TERMINATING = 4


class Hints(NamedTuple):
    """For whom an endpoint is meant (KEP-2433 zones, KEP-3015 nodes); empty: for everybody."""

    zones: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()


NO_HINTS = Hints()


class Endpoint(NamedTuple):
    address: bytes
    conditions: int = READY | SERVING
    node: str = ""  # "": not known
    hints: Hints = NO_HINTS

    @property
    def ready(self) -> bool:
        return bool(self.conditions & READY)

    @property
    def serving(self) -> bool:
        return bool(self.conditions & SERVING)

    @property
    def terminating(self) -> bool:
        return bool(self.conditions & TERMINATING)


@lru_cache(maxsize=4096)
def _shared(conditions: bytes) -> bytes:
    """Nearly all slices have the same conditions: hold one of each."""
    return conditions


class EndpointPort(NamedTuple):
    name: str
    protocol: Protocol
    port: int


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """Some endpoints of one Service, of one family, that share one set of ports.

    Make it by `of`. `nodes` and `hints` are empty where no endpoint has any.
    """

    key: ObjectKey
    service: ObjectKey
    family: Family
    ports: tuple[EndpointPort, ...]
    addresses: bytes
    conditions: bytes
    nodes: tuple[str, ...] = ()
    hints: tuple[Hints, ...] = ()

    @classmethod
    def of(
        cls,
        key: ObjectKey,
        service: ObjectKey,
        family: Family,
        ports: tuple[EndpointPort, ...],
        endpoints: Iterable[Endpoint],
    ) -> "EndpointSlice":
        """Pack `endpoints`, all of whose addresses are of `family`."""
        given = tuple(endpoints)
        addresses, conditions, nodes, hints = zip(*given, strict=True) if given else ((),) * 4
        return cls(
            key,
            service,
            family,
            ports,
            b"".join(addresses),
            _shared(bytes(conditions)),
            nodes if any(nodes) else (),
            hints if any(hint != NO_HINTS for hint in hints) else (),
        )

    def split_addresses(self) -> list[bytes]:
        width, packed = self.family.address_bytes, self.addresses
        return [packed[at : at + width] for at in range(0, len(packed), width)]

    def endpoints(self) -> Iterator[Endpoint]:
        return map(
            Endpoint._make,
            zip(
                self.split_addresses(),
                self.conditions,
                self.nodes or repeat(""),
                self.hints or repeat(NO_HINTS),
                strict=False,
            ),
        )

    def port(self, name: str, protocol: Protocol) -> int:
        """The number of the port that serves a Service port of this name; 0 if there is none.

        Named target ports may differ from slice to slice: that is what slices are cut by.
        """
        for port in self.ports:
            if port.name == name and port.protocol == protocol:
                return port.port
        return 0
