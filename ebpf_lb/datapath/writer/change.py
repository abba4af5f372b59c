"""One Service port on its way to what the plan wants of it.

Made before anything is written, with all that it needs taken: ids, regions, room. Then each table
writes its part of many changes at once (batch.py), in the order that family.py gives. A change that
fails goes no further; its record says how far it came.
"""

from dataclasses import dataclass, field

from ebpf_lb.datapath.writer.content import Content
from ebpf_lb.datapath.writer.records import Backends, Record
from ebpf_lb.plan.forwarding import Forwarding


@dataclass(slots=True)
class SetChange:
    """Another set of backends. `which`: cluster or local; `word`: the region it is to stand in."""

    which: str
    content: Content
    word: int


@dataclass(slots=True)
class Change:
    """backends: flags and ids of those to come; current: of those in the kernel. frontends, ranges:
    the entries to come; cluster_ips: of those. young: frontends that hash consistently, but are not
    told so yet.
    name_value: as in the map, of one that is new.
    taken_*: not yet pointed to by anything; they are given back if the change fails.
    lacking: why its tables are left out, "" if they are not. error: why it failed.
    """

    record: Record
    forwarding: Forwarding
    service_id: int
    current: Backends
    backends: Backends
    sets: list[SetChange]
    timeout_and_flags: int
    frontends: dict[bytes, bytes] = field(default_factory=dict)
    cluster_ips: set[bytes] = field(default_factory=set)
    young: set[bytes] = field(default_factory=set)
    ranges: tuple[bytes, ...] = ()
    name_value: bytes = b""
    taken_service_ids: list[int] = field(default_factory=list)
    taken_backend_ids: set[int] = field(default_factory=set)
    taken_regions: set[int] = field(default_factory=set)
    lacking: str = ""
    error: str = ""

    @property
    def is_new(self) -> bool:
        """Nothing of the Service port was there before."""
        return bool(self.name_value)
