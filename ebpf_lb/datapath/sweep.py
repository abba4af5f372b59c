"""Going through the tables that fill by themselves, a slice at a time.

Nothing that is looked up is ever too old: programs check times themselves, and give the places of
expired entries away first. Sweeping keeps times that are cut short from coming round
(bpf/connections/sweep.h), forgets clients whose affinity has ended, and counts.
"""

import math
import struct
from collections.abc import Iterator
from typing import Protocol

from ebpf_lb.datapath import clock
from ebpf_lb.datapath.layout import load
from ebpf_lb.datapath.libbpf import Map, Program
from ebpf_lb.datapath.pins import Build
from ebpf_lb.model.values import Family

_INDEX = struct.Struct("=I")
_SHORTEST_PACKET = bytes(64)
# struct __sk_buff: its `mark` tells the program to end stale flows as well
_STALE_TOO = struct.pack("=3I", 0, 0, 1) + bytes(180)


class Sweep(Protocol):
    """One table's."""

    def step(self, share: float) -> None:
        """Goes on through so much of the table: at most 1, all of it."""


class FlowSweep:
    """The connection table of one family: the program `sweep` does it, where words change in one
    step. What it found is in the map `census`."""

    def __init__(self, build: Build, family: Family) -> None:
        self._program = Program.open(build.programs(family) / "sweep")
        with Map.open(build.maps(family) / "flows") as flows:
            self._sets = flows.max_entries

    def step(self, share: float) -> None:
        self._program.test_run(_SHORTEST_PACKET, repeat=math.ceil(self._sets * share))

    def end_stale(self) -> None:
        """Through all of it at once, and UDP flows end whose backend or frontend left the Service:
        a million entries take some ten milliseconds."""
        self._program.test_run(_SHORTEST_PACKET, ctx_in=_STALE_TOO, repeat=self._sets)


class AffinitySweep:
    """Clients whose last connection is longer ago than their Service's time-out.

    An entry is removed a moment after it was read. A client that comes back in that very moment
    chooses again, as it would have a moment earlier.
    """

    def __init__(self, build: Build, family: Family) -> None:
        layout = load(family)
        self._affinity = Map.open(build.maps(family) / "affinity")
        self._services = Map.open(build.maps(family) / "services")
        self._clock = Program.open(build.programs(family) / "clock")
        self._key = layout.struct("affinity_key").raw("client", "service_id")
        self._value = layout.struct("affinity").raw("backend_id", "last_used")
        self._service = layout.struct("service")
        self._rest: Iterator[tuple[bytes, bytes]] = iter(())

    def step(self, share: float) -> None:
        left = math.ceil(self._affinity.max_entries * share)
        while left > 0:
            chunk = next(self._rest, None)
            if chunk is None:  # the end; from the start next time
                self._rest = self._affinity.chunks()
                return
            keys, values = chunk
            left -= len(keys) // self._key.size
            outdated = self._outdated(keys, values, clock.now(self._clock))
            if outdated:
                self._affinity.delete_batch(b"".join(outdated))

    def _outdated(self, keys: bytes, values: bytes, now: int) -> list[bytes]:
        size = self._key.size
        timeouts: dict[int, int] = {}
        found = []
        for number, ((_, service), (_, last_used)) in enumerate(
            zip(self._key.iter_unpack(keys), self._value.iter_unpack(values), strict=True)
        ):
            if service not in timeouts:
                timeouts[service] = self._timeout(service)
            age = (now - last_used) & 0xFFFFFFFF
            # one half of all ages stands for the future: programs go on while we look
            if not timeouts[service] or timeouts[service] < age < 1 << 31:
                found.append(keys[number * size : (number + 1) * size])
        return found

    def _timeout(self, service: int) -> int:
        """In ticks; 0 without affinity."""
        value = self._services.lookup(_INDEX.pack(service))
        return int(self._service.unpack(value).affinity_timeout) if value else 0


def flow_sweeps(build: Build) -> dict[Family, FlowSweep]:
    return {family: FlowSweep(build, family) for family in Family}


def affinity_sweeps(build: Build) -> list[Sweep]:
    return [AffinitySweep(build, family) for family in Family]
