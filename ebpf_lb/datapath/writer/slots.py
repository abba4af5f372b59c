"""The map slots: regions of it that are given out, and what stands in them.

A region is named by its word, as in `services` (region.region_word); 0 is none.
"""

from array import array
from collections import Counter
from collections.abc import Iterable
from itertools import chain

from ebpf_lb.datapath.layout.region import region_of, region_word
from ebpf_lb.datapath.writer.family_maps import FamilyMaps
from ebpf_lb.datapath.writer.pools import Exhausted, Regions, full
from ebpf_lb.datapath.writer.records import pack_ids, unpack_ids

_SPARE_SHARE = 8
"""One part in so many is not for tables: Services can do without theirs, but without a slot for
each of its endpoints a Service is not served at all."""


class Slots:
    """Taken and given back at once; that nobody looks at a region any more is the caller's care."""

    def __init__(self, maps: FamilyMaps, stats: Counter[str]) -> None:
        self._table = maps.slots
        self._stats = stats
        entries = maps.slots.max_entries
        self._regions = Regions(entries, full("slots", entries))
        self._for_tables = entries - entries // _SPARE_SHARE

    @property
    def used(self) -> int:
        """Slots in regions that are given out."""
        return self._regions.used

    def adopt(self, words: Iterable[int]) -> None:
        """What is in use already; ValueError if regions overlap or stick out."""
        self._regions.adopt(map(region_of, words), self._table.max_entries)

    def take(self, size: int, *, table: bool = False) -> int:
        """A region's word; Exhausted if there is no room for it. `table`: for one of consistent
        hashing's."""
        if table and self.used + size > self._for_tables:
            raise Exhausted(full("slots", self._table.max_entries))
        return region_word(self._regions.take(size), size)

    def give_back(self, words: Iterable[int]) -> None:
        for word in words:
            if word:
                self._regions.give_back(*region_of(word))

    def keys(self, words: Iterable[int]) -> bytes:
        """Of all slots in these regions, behind each other."""
        regions = map(region_of, words)
        places = chain.from_iterable(range(base, base + size) for base, size in regions)
        return array("I", places).tobytes()

    def clear(self, word: int) -> None:
        size = region_of(word)[1]
        self._table.update_batch(self.keys((word,)), bytes(4 * size))
        self._stats["slots"] += size

    def rewrite(self, word: int, ids: bytes) -> None:
        """Writes those that differ."""
        base, size = region_of(word)
        held, wanted = unpack_ids(self._table.slice(base, size)), unpack_ids(ids)
        differ = [
            at for at, pair in enumerate(zip(held, wanted, strict=True)) if pair[0] != pair[1]
        ]
        if differ:
            keys = pack_ids([base + at for at in differ])
            self._table.update_batch(keys, pack_ids([wanted[at] for at in differ]))
            self._stats["slots"] += len(differ)
