"""What the kernel holds for each Service port, small: at 10,000 Services of 10 endpoints an object
a backend would cost more than all the maps.
"""

from collections.abc import Iterator
from struct import Struct

from ebpf_lb.model.values import Family

NO_REGION = b""


class Record:
    """One Service port in one family, as far as it was written.

    frontends: keys and values of the map, alternating, sorted by key.
    backends: address and port, flags, id of each, by `BackendPacking`.
    cluster, local: the words in `services`; *_ids: the backend ids in those regions, as in `slots`.
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
        "ranges",
        "text",
        "timeout_and_flags",
    )

    def __init__(self, text: str, number: int) -> None:
        self.text = text
        self.id = number
        self.frontends = b""
        self.backends = b""
        self.cluster = 0
        self.local = 0
        self.cluster_ids = NO_REGION
        self.local_ids = NO_REGION
        self.timeout_and_flags = 0
        self.ranges: tuple[bytes, ...] = ()


Backends = dict[bytes, tuple[int, int]]  # address and port -> flags, id


class BackendPacking:
    """Backends as bytes, 11 each for IPv4 and 23 for IPv6."""

    def __init__(self, family: Family) -> None:
        self._struct = Struct(f"={family.address_bytes + 2}sBI")

    def pack(self, backends: Backends) -> bytes:
        pack = self._struct.pack
        return b"".join([pack(key, *value) for key, value in backends.items()])

    def unpack(self, data: bytes) -> Backends:
        return {key: (flags, number) for key, flags, number in self._struct.iter_unpack(data)}


class FrontendPacking:
    """Frontends as bytes: key and value as in the map."""

    def __init__(self, key_size: int, value_size: int) -> None:
        self._struct = Struct(f"={key_size}s{value_size}s")

    def pack(self, frontends: dict[bytes, bytes]) -> bytes:
        return b"".join([key + frontends[key] for key in sorted(frontends)])

    def unpack(self, data: bytes) -> dict[bytes, bytes]:
        return dict(self.pairs(data))

    def pairs(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self._struct.iter_unpack(data)


def region_word(base: int, size: int) -> int:
    """A region as one word of `services`."""
    return size << 32 | base if size else 0


def region_of(word: int) -> tuple[int, int]:
    """(base, size) of a word of `services`."""
    return word & 0xFFFFFFFF, word >> 32
