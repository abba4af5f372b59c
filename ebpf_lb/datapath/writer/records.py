"""What the kernel holds for each Service port, small: at 10,000 Services of 10 endpoints an object
a backend would cost more than all the maps.
"""

from array import array
from collections.abc import Iterator, Sequence
from struct import Struct

from ebpf_lb.plan.forwarding import ServicePortName

NO_REGION = b""


class Record:
    """One Service port in one family, as far as it was written.

    frontends: keys and values of the map, alternating, sorted by key.
    backends: their ids, as in `slots`. What they are stands in the kernel, `Services` reads it.
    cluster, local: the words in `services`; *_ids: what those regions hold: `Content.mark`, or all
        ids, as in `slots`, right after they were read back.
    ranges: keys of `source_ranges`, sorted.
    """

    __slots__ = (
        "backends",
        "cluster",
        "cluster_ids",
        "frontends",
        "id",
        "local",
        "local_ids",
        "name",
        "ranges",
        "timeout_and_flags",
    )

    def __init__(self, name: ServicePortName, number: int) -> None:
        self.name = name
        self.id = number
        self.frontends = b""
        self.backends = b""
        self.cluster = 0
        self.local = 0
        self.cluster_ids = NO_REGION
        self.local_ids = NO_REGION
        self.timeout_and_flags = 0
        self.ranges: tuple[bytes, ...] = ()


Backends = dict[bytes, int]
"""Address and port -> id << FLAG_BITS | weight << WEIGHT_AT | flags: one number, since there are
very many."""

WEIGHT_AT = 8
FLAG_BITS = 16
FLAGS = (1 << FLAG_BITS) - 1


def pack_ids(ids: Sequence[int]) -> bytes:
    """Ids as they stand in `slots`."""
    return array("I", ids).tobytes()


def unpack_ids(data: bytes) -> "array[int]":
    ids = array("I")
    ids.frombytes(data)
    return ids


class FrontendPacking:
    """Frontends as bytes: key and value as in the map."""

    def __init__(self, key_size: int, value_size: int) -> None:
        self._struct = Struct(f"={key_size}s{value_size}s")
        self.size = self._struct.size

    def pack(self, frontends: dict[bytes, bytes]) -> bytes:
        return b"".join([key + frontends[key] for key in sorted(frontends)])

    def unpack(self, data: bytes) -> dict[bytes, bytes]:
        return dict(self.pairs(data))

    def pairs(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self._struct.iter_unpack(data)
