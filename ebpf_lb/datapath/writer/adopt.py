"""Reading back what the kernel holds, at the agent's start."""

import struct
from dataclasses import dataclass, field

from ebpf_lb.datapath.layout.region import region_of
from ebpf_lb.datapath.writer.family_maps import FamilyMaps
from ebpf_lb.datapath.writer.names import parse_name
from ebpf_lb.datapath.writer.records import (
    FrontendPacking,
    Record,
    pack_ids,
)
from ebpf_lb.plan.forwarding import ServicePortName

_INDEX = struct.Struct("=I")
_CHUNK = 4096  # backends a read


@dataclass(slots=True)
class Found:
    """Service ports, and what belongs to none because an agent died between two writes.
    mentioned_ids: of services, by any of the strays."""

    records: dict[int, Record] = field(default_factory=dict)
    backend_ids: list[int] = field(default_factory=list)
    unserved: set[bytes] = field(default_factory=set)
    stray_service_ids: list[int] = field(default_factory=list)
    stray_names: list[int] = field(default_factory=list)
    stray_backend_ids: list[int] = field(default_factory=list)
    stray_frontends: dict[bytes, bytes] = field(default_factory=dict)
    stray_ranges: list[bytes] = field(default_factory=list)
    mentioned_ids: list[int] = field(default_factory=list)


# rule: CP-2
def read_back(maps: FamilyMaps) -> Found:
    """Everything that the maps hold, as records. Writes nothing."""
    found = Found()
    _names(maps, found)
    _services(maps, found)
    _backends(maps, found)
    _frontends(maps, found)
    _source_ranges(maps, found)
    return found


def _names(maps: FamilyMaps, found: Found) -> None:
    unpack = maps.layout.struct("service_name").unpack
    seen: set[ServicePortName] = set()
    for key, value in maps.names.items():
        number: int = _INDEX.unpack(key)[0]
        text: str = unpack(value).text
        try:
            name = parse_name(text)
        except ValueError:
            found.stray_names.append(number)
            continue
        if name in seen:
            found.stray_names.append(number)
            continue
        seen.add(name)
        found.records[number] = Record(name, number)


def _services(maps: FamilyMaps, found: Found) -> None:
    layout = maps.layout.struct("service")
    offsets = [layout.offset(name) for name in ("cluster", "local", "affinity_timeout")]
    load = maps.services.load
    found.stray_service_ids = [
        number for number in maps.services.used() if number not in found.records
    ]
    end = 0
    for record in found.records.values():
        record.cluster, record.local, record.timeout_and_flags = (
            load(record.id, offset) for offset in offsets
        )
        for word in (record.cluster, record.local):
            end = max(end, sum(region_of(word)))
    # one read for all regions; what sticks out is found by whoever reserves them
    slots = maps.slots.slice(0, end) if 0 < end <= maps.slots.max_entries else b""
    for record in found.records.values():
        record.cluster_ids = _region(slots, record.cluster)
        record.local_ids = _region(slots, record.local)


def _region(slots: bytes, word: int) -> bytes:
    base, size = region_of(word)
    return slots[4 * base : 4 * (base + size)]


def _backends(maps: FamilyMaps, found: Found) -> None:
    value = maps.layout.struct("backend")
    raw = value.raw("address", "port", "service_id", "flags", "weight")
    nothing = bytes(value.size * _CHUNK)
    by_service: dict[int, dict[bytes, int]] = {}
    for first in range(0, maps.backends.max_entries, _CHUNK):
        chunk = maps.backends.slice(first, min(_CHUNK, maps.backends.max_entries - first))
        if chunk == nothing[: len(chunk)]:
            continue
        for number, (address, port, service, flags, _) in enumerate(raw.iter_unpack(chunk), first):
            if not service:
                continue
            if flags and service in found.records:
                held = by_service.setdefault(service, {})
                if address + port not in held:
                    held[address + port] = number
                    found.backend_ids.append(number)
                    continue
            found.stray_backend_ids.append(number)
    for service, backends in by_service.items():
        record, ids = found.records[service], pack_ids([*backends.values()])
        record.backends = record.cluster_ids if ids == record.cluster_ids else ids


def _frontends(maps: FamilyMaps, found: Found) -> None:
    key_layout, value_layout = maps.layout.struct("frontend_key"), maps.layout.struct("frontend")
    value_raw = value_layout.raw("service_id", "kind", "flags")
    by_service: dict[int, dict[bytes, bytes]] = {}
    for key, value in maps.frontends.items():
        service = value_raw.unpack(value)[0]
        if not service:
            found.unserved.add(key[: maps.layout.family.address_bytes])
        elif service in found.records:
            by_service.setdefault(service, {})[key] = value
        else:
            found.stray_frontends[key] = value
    packing = FrontendPacking(key_layout.size, value_layout.size)
    for service, entries in by_service.items():
        found.records[service].frontends = packing.pack(entries)


def _source_ranges(maps: FamilyMaps, found: Found) -> None:
    unpack = maps.layout.struct("source_range_key").unpack
    for key, _ in maps.source_ranges.items():
        record = found.records.get(unpack(key).service_id)
        if record is None:
            found.stray_ranges.append(key)
        else:
            record.ranges += (key,)
