"""Which clients may use a Service's LB addresses: the trie source_ranges."""

from collections import Counter
from collections.abc import Iterable

from ebpf_lb.datapath.writer.batch import Rows, write
from ebpf_lb.datapath.writer.change import Change
from ebpf_lb.datapath.writer.family_maps import FamilyMaps
from ebpf_lb.datapath.writer.pools import Exhausted, full
from ebpf_lb.datapath.writer.records import Record

_PRESENT = b"\1"


class SourceRangeTable:
    """Added before a frontend asks for them, removed after."""

    def __init__(self, maps: FamilyMaps, stats: Counter[str]) -> None:
        self._table = maps.source_ranges
        self._stats = stats
        key = maps.layout.struct("source_range_key")
        self._pack = key.pack
        # a prefix counts from behind prefix_length on, so the service id belongs to it
        self._service_bits = 8 * (key.offset("address") - key.offset("service_id"))
        self._entries = 0
        self._promised = 0  # entries of changes that are not written yet
        self._strays: list[bytes] = []

    def adopt(self, records: Iterable[Record], strays: list[bytes]) -> None:
        """What is there already; strays belong to no Service port that is known."""
        self._entries = sum(len(record.ranges) for record in records) + len(strays)
        self._strays = strays

    def prepare(self, change: Change) -> None:
        """The keys that a Service port asks for. Exhausted if the new ones do not fit."""
        if not change.forwarding.source_ranges:
            return
        change.ranges = tuple(
            self._pack(
                prefix_length=self._service_bits + network.prefix_length,
                service_id=change.service_id,
                address=network.address,
            )
            for network in change.forwarding.source_ranges
        )
        entries, more = self._table.max_entries, len(self._new(change))
        if self._entries + self._promised + more > entries:
            raise Exhausted(full("source_ranges", entries))
        self._promised += more

    def end_of_batch(self) -> None:
        """All that was prepared is written, or has failed."""
        self._promised = 0

    def add(self, changes: Iterable[Change]) -> None:
        """Those that are new."""
        rows = []
        for change in changes:
            new = self._new(change) if change.ranges else None
            if new:
                rows.append(Rows(change, len(new), b"".join(new), _PRESENT * len(new)))
        write(self._table, rows, self._note_added)

    def _note_added(self, change: Change, count: int) -> None:
        change.record.ranges += tuple(self._new(change)[:count])
        self._count(count, count)

    def _new(self, change: Change) -> list[bytes]:
        held = change.record.ranges
        return [key for key in dict.fromkeys(change.ranges) if key not in held]

    def remove_others(self, record: Record, wanted: tuple[bytes, ...]) -> None:
        """OSError."""
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
            self._count(-1, 1)

    def _count(self, entries: int, writes: int) -> None:
        self._entries += entries
        self._stats["source_ranges"] += writes
