"""Whatever is changed in the maps behind the writer's back is found, and named."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ebpf_lb.datapath.clock import ticks_per_second
from ebpf_lb.datapath.compare import Comparison
from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.pins import Build
from ebpf_lb.datapath.reader import View
from ebpf_lb.datapath.writer import FamilyMaps, FamilyWriter
from ebpf_lb.datapath.writer.hashes import end_bits
from ebpf_lb.model.service import Algorithm
from ebpf_lb.model.values import Family, Network, Protocol, parse_address
from ebpf_lb.plan.forwarding import (
    Backend,
    Forwarding,
    Frontend,
    FrontendFlag,
    FrontendKind,
    ServicePortName,
    Spread,
    Table,
)
from tests.datapath.by_hand import change, index

from ..capabilities import BPF, BPFFS, ROOT, needs
from .pinned import pin_build, pins

pytestmark = needs(ROOT, BPF, BPFFS)

VIP, OUTSIDE = parse_address("10.96.0.10"), parse_address("192.0.2.1")
PODS = tuple(
    Backend(parse_address(text), 8080, local)
    for text, local in (("10.1.0.7", True), ("10.2.0.1", False), ("10.2.0.2", False))
)
WEB = Forwarding(
    ServicePortName("default", "web", "http", Protocol.TCP),
    Family.IPV4,
    (
        Frontend(parse_address("127.0.0.1"), 30080, FrontendKind.NODE_PORT),
        Frontend(VIP, 80, FrontendKind.CLUSTER_IP),
        Frontend(OUTSIDE, 80, FrontendKind.LOAD_BALANCER, FrontendFlag.SOURCE_RANGES),
    ),
    PODS,
    PODS[:1],
    has_any=True,
    affinity_timeout_s=60,
    source_ranges=(Network(parse_address("198.51.100.0"), 24),),
)
HASHED = replace(
    WEB,
    name=ServicePortName("default", "hashed", "", Protocol.UDP),
    frontends=(Frontend(OUTSIDE, 53, FrontendKind.EXTERNAL_IP, FrontendFlag.CONSISTENT),),
    local=(),
    affinity_timeout_s=0,
    source_ranges=(),
    cluster_table=Table(31),
)
EMPTY = replace(
    WEB,
    name=ServicePortName("default", "empty", "", Protocol.TCP),
    frontends=(Frontend(parse_address("10.96.0.11"), 80, FrontendKind.CLUSTER_IP),),
    cluster=(),
    local=(),
    has_any=False,
    source_ranges=(),
)
COUNTED = replace(
    WEB,
    name=ServicePortName("default", "counted", "", Protocol.TCP),
    frontends=(Frontend(parse_address("10.96.0.12"), 80, FrontendKind.CLUSTER_IP),),
    local=(),
    affinity_timeout_s=0,
    source_ranges=(),
    cluster_table=Table(3, (1, 2, 3), Spread.ONE_EACH),
    algorithm=Algorithm.LEAST_CONNECTIONS,
)
TURNS = replace(
    COUNTED,
    name=ServicePortName("default", "turns", "", Protocol.TCP),
    frontends=(Frontend(parse_address("10.96.0.13"), 80, FrontendKind.CLUSTER_IP),),
    cluster_table=Table(6, (1, 2, 3), Spread.IN_TURN),
    algorithm=Algorithm.ROUND_ROBIN,
)
ALL = (WEB, HASHED, EMPTY, COUNTED, TURNS)


@pytest.fixture
def build() -> Iterator[Build]:
    with pins("compare") as where:
        yield pin_build(where)


@pytest.fixture
def writer(build: Build) -> FamilyWriter:
    made = FamilyWriter(FamilyMaps.open(build, Family.IPV4), time.monotonic, ticks_per_second())
    made.adopt()
    assert made.set_all(ALL) == []
    return made


def found(build: Build, *planned: Forwarding) -> list[str]:
    comparison = Comparison(View(build, Family.IPV4))
    ids = comparison.ids()
    sentences = [
        f"{one.name}: {text}"
        for one in planned
        for text in comparison.differences(ids.get(one.name), one)
    ]
    comparison.close()
    return sentences


def test_what_was_written_is_as_planned(build: Build, writer: FamilyWriter) -> None:
    assert found(build, *ALL) == []
    comparison = Comparison(View(build, Family.IPV4))
    # of each ClusterIP's other ports there is an entry, too
    assert sorted(comparison.frontend_counts().values()) == [1, 1, 1, 1, 3, 4]


def test_another_plan_is_told_by_its_differences(build: Build, writer: FamilyWriter) -> None:
    other = replace(
        WEB,
        frontends=(*WEB.frontends, Frontend(OUTSIDE, 81, FrontendKind.LOAD_BALANCER)),
        cluster=PODS[1:],
        local=(),
        affinity_timeout_s=0,
        source_ranges=(*WEB.source_ranges, Network(parse_address("203.0.113.0"), 24)),
    )
    assert found(build, other) == [
        f"default/web:http: {text}"
        for text in (
            "192.0.2.1:81 is missing",
            "its session affinity lasts for another time",
            "10.1.0.7:8080 should not be in its cluster set",
            "10.1.0.7:8080 should not be in its local set",
            "its source range 203.0.113.0/24 is missing",
        )
    ]
    nobody = replace(WEB, name=WEB.name._replace(name="nobody"))
    assert found(build, nobody) == ["default/nobody:http: it is not in the maps"]
    assert found(build, replace(EMPTY, has_any=True)) == [
        "default/empty: whether it has any endpoint is not as it should be"
    ]


def test_what_somebody_changed_is_found(build: Build, writer: FamilyWriter) -> None:
    view = View(build, Family.IPV4)
    comparison, number = Comparison(view), writer.service_id(WEB.name)
    assert number is not None
    key = comparison.key(VIP, 80, Protocol.TCP)
    layout = view.layout.struct("frontend")
    frontends = view.map("frontends")
    assert frontends is not None
    original = frontends.lookup(key)
    assert original is not None
    other = writer.service_id(HASHED.name)
    hashed = comparison.key(OUTSIDE, 53, Protocol.UDP)
    for flags in range(256):  # all but two say how long it has hashed consistently
        if not flags & (FrontendFlag.LOCAL | FrontendFlag.SOURCE_RANGES):
            value = layout.pack(service_id=other, kind=FrontendKind.EXTERNAL_IP, flags=flags)
            change(build, "frontends", hashed, value)
            assert found(build, *ALL) == []

    def held(name: str, where: int) -> bytes:
        table = view.map(name)
        assert table is not None
        return table.lookup(index(where)) or b""

    service = view.layout.struct("service").unpack(held("services", number))
    base = service.cluster & 0xFFFFFFFF
    backend = int.from_bytes(held("slots", base), "little")
    whole = held("backends", backend)
    cases: list[tuple[str, bytes, bytes | None, bytes, str]] = [
        ("frontends", key, None, original, "10.96.0.10:80 is missing"),
        (
            "frontends",
            key,
            layout.pack(service_id=other, kind=1, flags=0),
            original,
            "10.96.0.10:80 leads to default/hashed",
        ),
        (
            "frontends",
            key,
            layout.pack(service_id=number, kind=1, flags=1),
            original,
            "10.96.0.10:80 has another kind, or another policy",
        ),
        (
            "frontends",
            comparison.key(VIP, 0, 0),
            None,
            frontends.lookup(comparison.key(VIP, 0, 0)) or b"",
            "the other ports of 10.96.0.10 are not refused",
        ),
        ("slots", index(base), index(backend + 1), index(backend), "10.1.0.7:8080 is missing in"),
        ("slots", index(base), index(0), index(backend), "names backends that are not its own"),
        ("backends", index(backend), bytes(len(whole)), whole, "that are not its own"),
        ("names", index(number), None, held("names", number), "it is not in the maps"),
    ]
    for name, where, value, before, says in cases:
        change(build, name, where, value)
        sentences = found(build, *ALL)
        assert sentences and any(says in one for one in sentences), (says, sentences)
        change(build, name, where, before)
        assert found(build, *ALL) == [], says


def test_a_wrong_weight_and_a_wrong_algorithm_are_found(build: Build, writer: FamilyWriter) -> None:
    """By their records: what programs count by, and in whose turn."""
    view = View(build, Family.IPV4)

    def element(name: str, number: int) -> bytes:
        table = view.map(name)
        assert table is not None
        return table.lookup(index(number)) or b""

    def first_slot(one: Forwarding) -> tuple[int, int]:
        number = writer.service_id(one.name)
        assert number is not None
        service = view.layout.struct("service").unpack(element("services", number))
        return number, service.cluster & 0xFFFFFFFF

    flags, backends = view.layout.enum("backend_flag"), view.layout.struct("backend")
    for one, spoilt in (
        (COUNTED, {"weight": 9}),
        (COUNTED, {"flags": flags["BACKEND_COUNTED"]}),
        (TURNS, {"flags": flags["BACKEND_ON_NODE"]}),
        (TURNS, {"weight": 1}),
    ):
        _, base = first_slot(one)
        number = int.from_bytes(element("slots", base), "little")
        whole = element("backends", number)
        fields = backends.unpack(whole)._asdict()
        fields |= {key: fields[key] ^ bits for key, bits in spoilt.items()}
        change(build, "backends", index(number), backends.pack(**fields))
        assert len(found(build, *ALL)) == 1, (one.name, spoilt)
        change(build, "backends", index(number), whole)
        assert found(build, *ALL) == []
    algorithms, services = view.layout.enum("service_flag"), view.layout.struct("service")
    for one in ALL:
        number, _ = first_slot(one)
        whole = element("services", number)
        held = services.unpack(whole)._asdict()
        for name in ("MAGLEV", "SOURCE_HASH", "ROUND_ROBIN", "LEAST_CONNECTIONS"):
            bit = algorithms[f"SERVICE_{name}"]
            other = services.pack(**held | {"flags": held["flags"] ^ bit})
            change(build, "services", index(number), other)
            assert found(build, *ALL) == [
                f"{one.name}: its connections are spread by another algorithm"
            ]
        change(build, "services", index(number), whole)
    # a share of turns: one slot goes to another backend of the set
    _, base = first_slot(TURNS)
    slots = [element("slots", base + number) for number in range(6)]
    other = next(one for one in slots if one != slots[0])
    change(build, "slots", index(base), other)
    assert any("more often, or less" in one for one in found(build, *ALL))
    change(build, "slots", index(base), slots[0])
    assert found(build, *ALL) == []


def test_maps_without_their_pins_are_compared(build: Build, writer: FamilyWriter) -> None:
    """Whoever removes them must not end an agent."""
    comparison = Comparison(View(build, Family.IPV4))
    number = writer.service_id(WEB.name)
    for path in build.maps(Family.IPV4).iterdir():
        path.unlink()
    assert comparison.differences(number, WEB) == []
    assert comparison.differences(number, replace(WEB, local=())) != []
    assert comparison.frontend_counts()


def test_an_address_out_of_the_filter_is_found(build: Build, writer: FamilyWriter) -> None:
    with Map.open(build.maps(Family.IPV4) / "vip_filter") as table:
        for number in range(table.max_entries):
            table.update(index(number), bytes(table.value_size))
    assert "default/empty: 10.96.0.11 is not in the filter of Services' addresses" in found(
        build, EMPTY
    )


def test_an_end_that_programs_would_not_look_up_is_found(
    build: Build, writer: FamilyWriter
) -> None:
    """A frontend's address and port, and a backend's."""
    ends = [PODS[1].address + PODS[1].port.to_bytes(2), VIP + (80).to_bytes(2)]
    with Map.open(build.maps(Family.IPV4) / "known_ends") as table:
        for bit in end_bits(ends, table.max_entries):
            word = int.from_bytes(table.lookup(index(bit >> 6)) or b"", "little")
            table.update(index(bit >> 6), (word & ~(1 << (bit & 63))).to_bytes(8, "little"))
    unknown = found(build, WEB)
    assert unknown == [
        "default/web:http: 10.96.0.10:80 is not in the filter of known ends",
        "default/web:http: 10.2.0.1:8080 is not in the filter of known ends",
    ]
    writer.adopt_again()
    assert found(build, *ALL) == []


@pytest.mark.rule("CP-2")
def test_whatever_was_changed_is_put_right(build: Build, writer: FamilyWriter) -> None:
    """Every entry of each map in turn, and all at once: gone, or another one."""
    family = Family.IPV4
    names = (
        "frontends",
        "names",
        "services",
        "slots",
        "backends",
        "source_ranges",
        "vip_filter",
        "known_ends",
    )
    sizes = {"services": 32, "slots": 512, "backends": 64, "vip_filter": 4096, "known_ends": 16384}

    def repaired() -> list[str]:
        writer.housekeeping(time.monotonic() + 2)
        writer.adopt_again()
        assert writer.set_all(ALL) == []
        writer.retain([one.name for one in ALL])
        return found(build, *ALL)

    def spoil(table: Map, key: bytes, value: bytes) -> None:
        if table.name in sizes:  # arrays
            table.update(key, bytes(len(value)))
        else:
            table.delete(key)

    for chosen in (*((name,) for name in names), names):
        for name in chosen:
            with Map.open(build.maps(family) / name) as table:
                held = list(table.items()) if name not in sizes else [
                    (index(number), table.lookup(index(number)) or b"")
                    for number in range(min(sizes[name], table.max_entries))
                ]  # fmt: skip
                for key, value in held:
                    spoil(table, key, value)
        assert found(build, *ALL) != [], chosen
        assert repaired() == [], chosen
    writer.housekeeping(time.monotonic() + 2)
    before = writer.stats.total()
    assert repaired() == [] and writer.stats.total() == before


def test_entries_of_nobody_are_counted_and_removed(build: Build, writer: FamilyWriter) -> None:
    view = View(build, Family.IPV4)
    comparison, number = Comparison(view), writer.service_id(WEB.name)
    assert (
        number is not None
        and comparison.frontend_counts()[number] == writer.frontend_counts()[number] == 3
    )
    layout = view.layout.struct("frontend")
    for port, owner in ((81, number), (82, 200)):
        key = comparison.key(VIP, port, Protocol.TCP)
        value = layout.pack(service_id=owner, kind=FrontendKind.CLUSTER_IP, flags=0)
        change(build, "frontends", key, value)
    assert comparison.frontend_counts()[number] == 4 and comparison.frontend_counts()[200] == 1
    writer.adopt_again()
    assert writer.set_all(ALL) == []
    writer.retain([one.name for one in ALL])
    assert comparison.frontend_counts()[number] == 3 and 200 not in comparison.frontend_counts()
    assert found(build, *ALL) == []
