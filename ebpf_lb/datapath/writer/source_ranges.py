"""Which clients may use a Service's LB addresses: the trie source_ranges."""

from collections import Counter
from collections.abc import Iterable

from ebpf_lb.datapath.writer.family_maps import FamilyMaps
from ebpf_lb.datapath.writer.pools import Exhausted, full
from ebpf_lb.datapath.writer.records import Record
from ebpf_lb.plan.forwarding import Forwarding

_PRESENT = b"\1"


class SourceRanges:
    """Added before a frontend asks for them, removed after."""

    def __init__(self, maps: FamilyMaps, stats: Counter[str]) -> None:
        self._table = maps.source_ranges
        self._stats = stats
        key = maps.layout.struct("source_range_key")
        self._pack = key.pack
        # a prefix counts from behind prefix_length on, so the service id belongs to it
        self._service_bits = 8 * (key.offset("address") - key.offset("service_id"))
        self._entries = 0
        self._strays: list[bytes] = []

    def adopt(self, records: Iterable[Record], strays: list[bytes]) -> None:
        """What is there already; strays belong to no Service port that is known."""
        self._entries = sum(len(record.ranges) for record in records) + len(strays)
        self._strays = strays

    def wanted(self, forwarding: Forwarding, service_id: int) -> tuple[bytes, ...]:
        """The keys that a Service port asks for."""
        return tuple(
            self._pack(
                prefix_length=self._service_bits + network.prefix_length,
                service_id=service_id,
                address=network.address,
            )
            for network in forwarding.source_ranges
        )

    def check_room(self, record: Record, wanted: tuple[bytes, ...]) -> None:
        """Exhausted if the new ones do not fit."""
        entries = self._table.max_entries
        if self._entries + len(set(wanted) - set(record.ranges)) > entries:
            raise Exhausted(full("source_ranges", entries))

    def add(self, record: Record, wanted: tuple[bytes, ...]) -> None:
        for key in wanted:
            if key not in record.ranges:
                self._table.update(key, _PRESENT)
                record.ranges += (key,)
                self._count(1)

    def remove_others(self, record: Record, wanted: tuple[bytes, ...]) -> None:
        for key in record.ranges:
            if key not in wanted:
                self._remove(key)
                record.ranges = tuple(other for other in record.ranges if other != key)

    def remove_strays(self) -> None:
        """Deletes what belongs to nobody."""
        while self._strays:
            self._remove(self._strays[-1])
            self._strays.pop()

    def _remove(self, key: bytes) -> None:
        if self._table.delete(key):
            self._count(-1)

    def _count(self, entries: int) -> None:
        self._entries += entries
        self._stats["source_ranges"] += 1
