"""The maps that the agent writes, one family's of one build."""

from dataclasses import dataclass
from typing import Self

from ebpf_lb.datapath import layout as layouts
from ebpf_lb.datapath.layout import Layout
from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.pins import Build
from ebpf_lb.datapath.writer.kernel_map import KernelMap, MappedWords
from ebpf_lb.datapath.writer.known_ends import KnownEnds, NotedTable
from ebpf_lb.model.values import Family


@dataclass(slots=True)
class FamilyMaps:
    """One family's maps of one build."""

    layout: Layout
    frontends: KernelMap
    services: MappedWords
    vip_filter: MappedWords
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

        def words(name: str) -> MappedWords:
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
