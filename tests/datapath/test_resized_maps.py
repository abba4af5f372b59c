"""A node's agent starts with other capacities than before: what fits is taken over under its own
numbers, what does not is named, and nothing that the running programs look at is touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from ebpf_lb.datapath.libbpf import Map, MapType
from ebpf_lb.datapath.loader.maps import provide
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.datapath.writer import FamilyMaps, FamilyWriter, move_services
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
from tests.datapath.pinned import pins

pytestmark = needs(ROOT, BPF, BPFFS)

COUNT, ENDPOINTS = 6, 4
# a Service has three frontends: a ClusterIP, its other ports, an LB address
BEFORE = Settings(flows=64, frontends=64, services=64, backends=64, slots=64, affinity=64,
                  fragments=64, sockets=64, source_ranges=64)  # fmt: skip
HALF = {
    "frontends": 3 * COUNT // 2,
    "services": COUNT // 2 + 1,
    "backends": COUNT // 2 * ENDPOINTS + 1,
    "slots": COUNT // 2 * ENDPOINTS,
    "source_ranges": COUNT // 2,
}
MAPS = ("frontends", "services", "slots", "backends", "names", "source_ranges")


@dataclass
class Node:
    """The folders of two builds; no programs."""

    where: Pins
    family: Family

    def build(self, name: str, settings: Settings, old: Build | None = None) -> Build:
        made = self.where.build(name)
        before = old or self.where.build("none")
        provide(self.family, settings, before, made, move=move_services)
        return made

    def writer(self, build: Build) -> FamilyWriter:
        """An agent's start."""
        writer = FamilyWriter(FamilyMaps.open(build, self.family), lambda: 0.0, 8)
        writer.adopt()
        return writer

    def wanted(self) -> list[Forwarding]:
        def address(network: int, host: int) -> bytes:
            four = (10 << 24 | network << 16) + host
            if self.family is Family.IPV4:
                return four.to_bytes(4)
            return b"\xfd" + bytes(11) + four.to_bytes(4)

        return [
            Forwarding(
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
                tuple(
                    Backend(address(1, number * ENDPOINTS + index), 8080, False)
                    for index in range(ENDPOINTS)
                ),
                (),
                has_any=True,
                source_ranges=(Network(address(98, number), 8 * self.family.address_bytes),),
            )
            for number in range(COUNT)
        ]

    def content(self, build: Build) -> dict[str, dict[bytes, bytes]]:
        """Of all maps about Services."""
        held = {}
        for name in MAPS:
            with Map.open(build.maps(self.family) / name) as table:
                held[name] = dict(table.items())
        return held


@pytest.fixture(params=list(Family), ids=lambda family: family.directory)
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    with pins("resized") as where:
        yield Node(where, request.param)


@pytest.fixture
def first(node: Node) -> Build:
    """A build with all Services in it."""
    build = node.build("first", BEFORE)
    writer = node.writer(build)
    assert writer.set_all(node.wanted()) == []
    return build


def names(writer: FamilyWriter) -> set[str]:
    return {name.name for name in writer.names()}


@pytest.mark.parametrize("name", list(HALF))
def test_less_room_than_before(node: Node, first: Build, name: str) -> None:
    before, held = node.content(first), node.writer(first)
    second = node.build("second", replace(BEFORE, **{name: HALF[name]}), first)
    writer = node.writer(second)
    assert names(writer) == {f"s{number}" for number in range(COUNT // 2)}
    for one in writer.names():
        assert writer.service_id(one) == held.service_id(one), "flows would count for another one"
    refused = writer.set_all(node.wanted())
    writer.retain([one.name for one in node.wanted()])
    assert [error.name.name for error in refused] == [f"s{n}" for n in range(COUNT // 2, COUNT)]
    for error in refused:
        assert f"{name} is full" in str(error) and "dataPath." in str(error)
    assert not writer.stats, "what was taken over is not written again"
    assert node.content(first) == before, "the programs that still run look at these"


@pytest.mark.parametrize("name", list(HALF))
def test_more_room_than_before(node: Node, first: Build, name: str) -> None:
    before = node.content(first)
    second = node.build("second", replace(BEFORE, **{name: 128}), first)
    writer = node.writer(second)
    assert writer.set_all(node.wanted()) == []
    writer.retain([one.name for one in node.wanted()])
    assert not writer.stats
    after = node.content(second)
    for each in MAPS:
        assert {k: v for k, v in after[each].items() if any(v)} == {
            k: v for k, v in before[each].items() if any(v)
        }
    with Map.open(second.maps(node.family) / name) as table:
        assert table.max_entries == 128


def test_less_room_and_then_as_before(node: Node, first: Build) -> None:
    second = node.build("second", replace(BEFORE, slots=HALF["slots"]), first)
    writer = node.writer(second)
    assert len(writer.set_all(node.wanted())) == COUNT // 2
    third = node.build("third", BEFORE, second)
    writer = node.writer(third)
    assert names(writer) == {f"s{number}" for number in range(COUNT // 2)}
    assert writer.set_all(node.wanted()) == []
    assert names(writer) == {f"s{number}" for number in range(COUNT)}


def test_the_same_room_is_the_same_maps(node: Node, first: Build) -> None:
    second = node.build("second", replace(BEFORE, affinity=32), first)
    for name in MAPS:
        with (
            Map.open(first.maps(node.family) / name) as old,
            Map.open(second.maps(node.family) / name) as new,
        ):
            assert old.id == new.id


def test_counters_go_with_their_services(node: Node, first: Build) -> None:
    def counted(build: Build) -> list[int]:
        with Map.open(build.maps(node.family) / "service_counters") as table:
            return [number for number, (_, value) in enumerate(table.items()) if any(value)]

    with Map.open(first.maps(node.family) / "service_counters") as table:
        for number in range(1, COUNT + 1):
            key = number.to_bytes(4, "little")
            table.update(key, b"\1" * len(table.lookup(key) or b""))
    second = node.build("second", replace(BEFORE, backends=HALF["backends"]), first)
    assert counted(second) == list(range(1, COUNT // 2 + 1))


@pytest.mark.parametrize("name", ["affinity", "sockets"])
@pytest.mark.parametrize("entries", [32, 128])
def test_what_programs_remember_is_kept(node: Node, first: Build, name: str, entries: int) -> None:
    def content(build: Build) -> dict[bytes, bytes]:
        with Map.open(build.maps(node.family) / name) as table:
            return dict(table.items())

    with Map.open(first.maps(node.family) / name) as table:
        for number in range(1, 9):
            table.update(bytes([number]) * table.key_size, bytes([number]) * table.value_size)
    second = node.build("second", replace(BEFORE, **{name: entries}), first)
    assert content(second) == content(first)


def test_another_versions_connections_are_not_taken_over(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """The same size, and bits that mean something else: as an older version pinned it."""
    first = node.build("first", BEFORE)
    pinned = first.maps(node.family) / "flows"
    with Map.open(pinned) as flows:
        info = flows.info()
    assert info.name != "flows", "the name says which meaning it has"
    pinned.unlink()
    with Map.create(
        MapType(info.type), info.key_size, info.value_size, info.max_entries, info.flags, "flows"
    ) as older:
        older.update(bytes(4), b"\1" * info.value_size)
        older.pin(pinned)
    caplog.clear()
    second = node.build("second", BEFORE, first)
    with Map.open(second.maps(node.family) / "flows") as flows:
        assert flows.info().name == info.name
        assert flows.lookup(bytes(4)) == bytes(info.value_size)
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"the {node.family.directory} map flows is another version's" in said
    assert "connections in it are forgotten" in said
    # of the same version: the very maps, and nothing is said
    caplog.clear()
    third = node.build("third", BEFORE, second)
    for name in ("flows", "ways", "flow_seed", "connections", *MAPS):
        held = [Map.open(build.maps(node.family) / name) for build in (second, third)]
        assert held[0].info().id == held[1].info().id
    assert not caplog.records


def test_connections_stay_counted_where_services_move(node: Node) -> None:
    """Numbers of backends stay what they were, so do the flows that are counted under them."""
    first = node.build("first", BEFORE)
    key = (5).to_bytes(4, "little")
    with Map.open(first.maps(node.family) / "connections") as counted:
        counted.update(key, b"\7\0\0\0")
    for name, settings in (
        ("slots", replace(BEFORE, slots=128)),
        ("backends", replace(BEFORE, backends=128)),
    ):
        other = node.build(name, settings, first)
        with Map.open(other.maps(node.family) / "connections") as counted:
            assert counted.lookup(key) == b"\7\0\0\0"
    other = node.build("flows", replace(BEFORE, flows=128), first)
    with Map.open(other.maps(node.family) / "connections") as counted:
        assert counted.lookup(key) == bytes(4)
