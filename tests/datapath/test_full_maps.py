"""Real maps with room for few: what fits is served; what does not is named, and written later on.

Two Services stand, a third finds a full map; then one goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ebpf_lb.agent.programming.programmer import Programmer
from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.pins import Build
from ebpf_lb.datapath.writer import FamilyMaps, FamilyWriter
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Family, Network, Protocol
from ebpf_lb.plan.forwarding import (
    Backend,
    Forwarding,
    Frontend,
    FrontendFlag,
    FrontendKind,
    ServicePortName,
)
from tests.capabilities import BPF, BPFFS, ROOT, needs
from tests.datapath.pinned import pin_build, pins
from tests.unit.agent.fakes import Clock, Log

pytestmark = needs(ROOT, BPF, BPFFS)

# of each Service: 3 entries in frontends (the ClusterIP, its other ports, the LB address)
ENDPOINTS = 4
ROOM_FOR_TWO = {
    "frontends": 6,
    "services": 3,  # 0 is none
    "backends": 2 * ENDPOINTS + 1,
    "slots": 2 * ENDPOINTS,
    "source_ranges": 4,
}
FREED_S = 1.1  # until what was given back is given out again


@dataclass
class Node:
    """The agent's part that writes, over maps of which one is small."""

    build: Build
    family: Family

    def __post_init__(self) -> None:
        self.clock, self.log, self.events = Clock(), Log(), list[tuple[ObjectKey, str]]()
        self.start()

    def start(self) -> None:
        """The agent starts: as it was left, or anew."""
        writer = FamilyWriter(FamilyMaps.open(self.build, self.family), self.clock, 8)
        writer.adopt()
        self.programmer = Programmer(
            {self.family: writer},
            self.clock,
            self.log,
            lambda key, text: self.events.append((key, text)),
        )

    def forwarding(self, number: int) -> Forwarding:
        def address(network: int, host: int) -> bytes:
            four = (10 << 24 | network << 16) + host
            if self.family is Family.IPV4:
                return four.to_bytes(4)
            return b"\xfd" + bytes(11) + four.to_bytes(4)

        backends = [address(1, number * ENDPOINTS + index) for index in range(ENDPOINTS)]
        bits = 8 * self.family.address_bytes
        return Forwarding(
            ServicePortName("default", f"s{number}", "http", Protocol.TCP),
            self.family,
            (
                Frontend(address(96, number), 80, FrontendKind.CLUSTER_IP),
                Frontend(
                    address(97, number),
                    80,
                    FrontendKind.LOAD_BALANCER,
                    FrontendFlag.SOURCE_RANGES,
                ),
            ),
            tuple(Backend(backend, 8080, False) for backend in backends),
            (),
            has_any=True,
            source_ranges=tuple(Network(address(98, host), bits) for host in range(2)),
        )

    def want(self, *numbers: int) -> None:
        for number in numbers:
            self.programmer.program(ObjectKey("default", f"s{number}"), [self.forwarding(number)])
        self.programmer.remove_unwanted()

    def drop(self, number: int) -> None:
        self.programmer.program(ObjectKey("default", f"s{number}"), [])
        self.programmer.remove_unwanted()
        self.programmer.note_changes()

    def served(self) -> list[str]:
        """Service ports with all of their frontends."""
        found = []
        with Map.open(self.build.maps(self.family) / "frontends") as table:
            held = {key for key, _ in table.items()}
        maps = FamilyMaps.open(self.build, self.family)
        pack = maps.layout.struct("frontend_key").pack
        for number in range(4):
            wanted = self.forwarding(number)
            keys = {
                pack(address=one.address, port=one.port, protocol=6) for one in wanted.frontends
            }
            if keys <= held:
                found.append(f"s{number}")
            else:
                assert not keys & held, "half a Service"
        return found


@pytest.fixture(params=list(Family), ids=lambda family: family.directory)
def node_with(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Node]]:
    with pins("full") as where:
        yield lambda name: Node(
            pin_build(where, entries={name: ROOM_FOR_TWO[name], "vip_filter": 4096}),
            request.param,
        )


@pytest.mark.rule("CP-6")
@pytest.mark.parametrize("at_once", [True, False], ids=["first sync", "later"])
@pytest.mark.parametrize("name", list(ROOM_FOR_TWO))
def test_a_full_map(node_with: Callable[[str], Node], name: str, at_once: bool) -> None:
    node = node_with(name)
    third = ObjectKey("default", "s2")
    if at_once:
        node.want(0, 1, 2)
    else:
        node.want()
        for number in range(3):
            node.want(number)
    assert node.served() == ["s0", "s1"]
    (refusal,) = node.programmer.refused.values()
    assert refusal.key == third
    assert f"{name} is full" in refusal.sentence and "dataPath." in refusal.sentence
    assert node.events == [(third, refusal.sentence)]
    assert node.log.of("not programmed") == [{"service": "default/s2", "error": refusal.sentence}]
    # trying again in vain says nothing new
    node.want(2)
    assert len(node.events) == 1 and node.served() == ["s0", "s1"]

    node.drop(0)
    node.clock.now += FREED_S
    node.programmer.housekeeping()
    assert node.programmer.to_retry() == [third]
    node.want(2)
    assert node.served() == ["s1", "s2"]
    assert not node.programmer.refused
    assert node.log.of("programmed after all") == [{"service": "default/s2"}]


@pytest.mark.parametrize("name", list(ROOM_FOR_TWO))
def test_a_restart_over_full_maps(node_with: Callable[[str], Node], name: str) -> None:
    """What stands stays and is not written again; what did not fit still does not."""
    node = node_with(name)
    node.want(0, 1, 2)
    node.start()
    node.want(2, 0, 1)
    node.programmer.retain()
    assert node.served() == ["s0", "s1"]
    assert [one.key.name for one in node.programmer.refused.values()] == ["s2"]
    assert node.programmer.writes == 0


def test_as_many_as_there_is_room_for_quickly(node_with: Callable[[str], Node]) -> None:
    """Each of very many that do not fit is looked at once, and refused at once."""
    node = node_with("backends")
    numbers: Any = range(1000)
    began = time.process_time()
    node.want(*numbers)
    assert time.process_time() - began < 2
    assert len(node.programmer.refused) == 998


def test_services_have_become_fewer(node_with: Callable[[str], Node]) -> None:
    """The frontends are of an earlier build, whose services had ids that this one has not."""
    node = node_with("services")
    maps = FamilyMaps.open(node.build, node.family)
    key, value = maps.layout.struct("frontend_key"), maps.layout.struct("frontend")
    address = bytes(node.family.address_bytes - 1) + b"\x09"
    stray = key.pack(address=address, port=80, protocol=6)
    maps.frontends.update(stray, value.pack(service_id=50, kind=0, flags=0))
    node.start()
    node.want(0)
    node.programmer.retain()
    node.clock.now += FREED_S
    node.programmer.housekeeping()
    assert maps.frontends.lookup(stray) is None
    node.want(0, 1)
    assert node.served() == ["s0", "s1"]
    node.want(2)
    (refusal,) = node.programmer.refused.values()
    assert "services is full" in refusal.sentence
