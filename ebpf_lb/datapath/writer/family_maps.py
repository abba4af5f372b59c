"""The maps that the agent writes, as the writer sees them: a seam for tests, and the real ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, Self

from ebpf_lb.datapath import layout as layouts
from ebpf_lb.datapath.layout import Layout
from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.pins import Build
from ebpf_lb.datapath.writer.known_ends import KnownEnds, NotedTable
from ebpf_lb.model.values import Family


class KernelMap(Protocol):
    """What the writer asks of a map; `libbpf.Map` says what each method does."""

    name: str
    max_entries: int

    def lookup(self, key: bytes) -> bytes | None: ...
    def update(self, key: bytes, value: bytes) -> None: ...
    def delete(self, key: bytes) -> bool: ...
    def items(self) -> Iterator[tuple[bytes, bytes]]: ...
    def slice(self, first: int, count: int) -> bytes: ...
    def update_batch(self, keys: bytes, values: bytes) -> None: ...


class Words(Protocol):
    """An array whose 64-bit words are read and stored in one piece; see `MappedArray`."""

    count: int

    def load(self, index: int, offset: int = 0) -> int: ...
    def store(self, index: int, offset: int, value: int) -> None: ...
    def used(self) -> list[int]: ...


@dataclass(slots=True)
class FamilyMaps:
    """One family's maps of one build."""

    layout: Layout
    frontends: KernelMap
    services: Words
    vip_filter: Words
    slots: KernelMap
    backends: KernelMap
    connections: KernelMap
    names: KernelMap
    source_ranges: KernelMap
    service_counters: KernelMap
    pod_networks: KernelMap
    service_networks: KernelMap
    interfaces: KernelMap
    snat_sources: KernelMap
    config: KernelMap
    crc32c_shifts: KernelMap

    @classmethod
    def open(cls, build: Build, family: Family) -> Self:
        """Opens the pinned maps; OSError names the one that is missing."""
        folder = build.maps(family)
        layout = layouts.load(family)

        def table(name: str) -> KernelMap:
            return Map.open(folder / name)

        def words(name: str) -> Words:
            with Map.open(folder / name) as opened:  # a mapping needs no descriptor
                return opened.mapped(writable=True)

        ends = words("known_ends")
        known, end_size = KnownEnds(ends), layout.family.address_bytes + 2
        frontends = NotedTable(
            table("frontends"),
            known,
            in_keys=True,
            size=layout.struct("frontend_key").size,
            end_size=end_size,
        )
        backends = NotedTable(
            table("backends"),
            known,
            in_keys=False,
            size=layout.struct("backend").size,
            end_size=end_size,
        )
        made = cls(
            layout=layout,
            frontends=frontends,
            services=words("services"),
            vip_filter=words("vip_filter"),
            slots=table("slots"),
            backends=backends,
            connections=table("connections"),
            names=table("names"),
            source_ranges=table("source_ranges"),
            service_counters=table("service_counters"),
            pod_networks=table("pod_networks"),
            service_networks=table("service_networks"),
            interfaces=table("interfaces"),
            snat_sources=table("snat_sources"),
            config=table("config"),
            crc32c_shifts=table("crc32c_shifts"),
        )
        if not ends.used():
            made.note_ends()
        return made

    def note_ends(self) -> None:
        """Of all that the maps hold: `known_ends` may be younger, or may have lost some."""
        for one in (self.frontends, self.backends):
            if isinstance(one, NotedTable):
                one.note_all()
