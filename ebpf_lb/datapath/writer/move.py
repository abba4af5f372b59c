"""Taking Services over into maps of other capacities.

Ids, regions and keys stay what they were, since connections, counters and affinity go by them. A
Service port that does not fit with all that is its own is left out: whoever wants it writes it
anew, or reports what is full.
"""

import struct
from collections.abc import Iterator

from ebpf_lb.datapath.layout.region import region_of
from ebpf_lb.datapath.pins import Build
from ebpf_lb.datapath.writer.adopt import Found, read_back
from ebpf_lb.datapath.writer.family_maps import FamilyMaps
from ebpf_lb.datapath.writer.records import (
    FrontendPacking,
    Record,
    pack_ids,
    unpack_ids,
)
from ebpf_lb.model.values import Family
from ebpf_lb.plan.forwarding import FrontendKind

_INDEX = struct.Struct("=I")
_PRESENT = b"\1"


def move_services(old: Build, new: Build, family: Family) -> None:
    """From the maps of one build into those of another: see `move`."""
    move(FamilyMaps.open(old, family), FamilyMaps.open(new, family))


def move(old: FamilyMaps, new: FamilyMaps) -> None:
    """Copies what fits. `new` is empty, and no program looks at it yet; `old` is left as it is."""
    found = read_back(old)
    room = _Room(old, new, found.unserved)
    for record in _sorted(found):
        frontends = room.take(record)
        if frontends is not None:
            _copy(record, old, new)
            for key, value in frontends.items():
                new.frontends.update(key, value)


def _sorted(found: Found) -> Iterator[Record]:
    for number in sorted(found.records):
        yield found.records[number]


class _Room:
    """What is left of the new maps."""

    def __init__(self, old: FamilyMaps, new: FamilyMaps, unserved: set[bytes]) -> None:
        self._new = new
        self._frontends_left = new.frontends.max_entries
        self._ranges_left = new.source_ranges.max_entries
        layout = new.layout
        key, value = layout.struct("frontend_key"), layout.struct("frontend")
        self._packing = FrontendPacking(key.size, value.size)
        self._kind_of = value.raw("service_id", "kind", "flags").unpack
        self._pack_key = key.raw("address", "port", "protocol").pack
        self._address_bytes = layout.family.address_bytes
        self._unserved = unserved
        self._lookup = old.frontends.lookup

    def take(self, record: Record) -> dict[bytes, bytes] | None:
        """The frontends of a Service port that fits, which it then has taken; else None."""
        slots, backends = self._new.slots.max_entries, self._new.backends.max_entries
        frontends = self._frontends(record)
        fits = (
            record.id < self._new.services.count
            and all(sum(region_of(word)) <= slots for word in (record.cluster, record.local))
            and max(unpack_ids(record.backends), default=0) < backends
            and len(frontends) <= self._frontends_left
            and len(record.ranges) <= self._ranges_left
        )
        if not fits:
            return None
        self._frontends_left -= len(frontends)
        self._ranges_left -= len(record.ranges)
        return frontends

    def _frontends(self, record: Record) -> dict[bytes, bytes]:
        """Its entries, and those for its ClusterIPs' other ports."""
        entries = self._packing.unpack(record.frontends)
        for key, value in list(entries.items()):
            address = key[: self._address_bytes]
            if self._kind_of(value)[1] != FrontendKind.CLUSTER_IP or address not in self._unserved:
                continue
            other = self._pack_key(address, bytes(2), 0)
            held = self._lookup(other)
            if held is not None:
                entries[other] = held
        return entries


def _copy(record: Record, old: FamilyMaps, new: FamilyMaps) -> None:
    """All of a Service port but its frontends."""
    key = _INDEX.pack(record.id)
    name = old.names.lookup(key)
    if name is not None:
        new.names.update(key, name)
    for source in record.ranges:
        new.source_ranges.update(source, _PRESENT)
    if record.backends:
        keys = [_INDEX.pack(number) for number in unpack_ids(record.backends)]
        values = b"".join(old.backends.lookup(one) or b"" for one in keys)
        new.backends.update_batch(b"".join(keys), values)
    layout = new.layout.struct("service")
    for word, ids, which in (
        (record.cluster, record.cluster_ids, "cluster"),
        (record.local, record.local_ids, "local"),
    ):
        base, size = region_of(word)
        if size:
            new.slots.update_batch(pack_ids(range(base, base + size)), ids)
            new.services.store(record.id, layout.offset(which), word)
    new.services.store(record.id, layout.offset("affinity_timeout"), record.timeout_and_flags)
    counted, empty = old.service_counters.lookup(key), new.service_counters.lookup(key)
    if counted and empty is not None and len(counted) == len(empty):
        new.service_counters.update(key, counted)
