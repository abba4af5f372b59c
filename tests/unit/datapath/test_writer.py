"""The writer's law: order, differences only, repair after failure, nothing left behind."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpf_lb.datapath.layout import load
from ebpf_lb.datapath.writer import FamilyWriter, NotHashed, NotProgrammed, format_name, parse_name
from ebpf_lb.model.values import Family, Network, Protocol
from ebpf_lb.plan.forwarding import (
    Backend,
    Forwarding,
    Frontend,
    FrontendFlag,
    FrontendKind,
    ServicePortName,
    Table,
)

from .fake_maps import FakeMaps

TICKS = 8


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def writer_of(fake: FakeMaps, clock: Clock | None = None) -> FamilyWriter:
    writer = FamilyWriter(fake.maps, clock or Clock(), TICKS)
    writer.adopt()
    return writer


def address(family: Family, number: int) -> bytes:
    return (b"\x0a\0\0" if family is Family.IPV4 else b"\xfd" + bytes(14)) + bytes([number])


def forwarding(
    name: str = "web",
    cluster: tuple[int, ...] = (1, 2, 3),
    local: tuple[int, ...] = (),
    vips: tuple[int, ...] = (100,),
    family: Family = Family.IPV4,
    **changes: object,
) -> Forwarding:
    def backends(numbers: tuple[int, ...]) -> tuple[Backend, ...]:
        found = {Backend(address(family, number), 8080, number % 2 == 0) for number in numbers}
        return tuple(sorted(found))

    frontends = tuple(
        Frontend(address(family, vip), 80, FrontendKind.CLUSTER_IP) for vip in sorted(vips)
    )
    result = Forwarding(
        ServicePortName("default", name, "http", Protocol.TCP),
        family,
        frontends,
        backends(cluster),
        backends(local),
        has_any=bool(cluster or local),
    )
    return replace(result, **changes)  # type: ignore[arg-type]


services = st.sampled_from(["a", "b", "c"])
numbers = st.frozensets(st.integers(1, 9), max_size=6).map(tuple)


def tables(backends: int) -> st.SearchStrategy[Table | None]:
    """None, or one of two sizes, with or without weights."""
    weights = st.lists(st.integers(1, 3), min_size=backends, max_size=backends).map(tuple)
    some = st.builds(Table, st.sampled_from([11, 13]), st.one_of(st.just(()), weights))
    return st.one_of(st.none(), some) if backends else st.none()


@st.composite
def forwardings(draw: st.DrawFn) -> Forwarding:
    family = Family.IPV4
    kinds = st.sampled_from(list(FrontendKind))
    frontends = draw(
        st.frozensets(
            st.builds(
                Frontend,
                st.integers(100, 104).map(lambda number: address(family, number)),
                st.sampled_from([80, 443]),
                kinds,
                st.sampled_from(list(FrontendFlag)),
            ),
            max_size=4,
        )
    )
    ranges = draw(st.frozensets(st.integers(0, 3), max_size=2))
    made = forwarding(draw(services), draw(numbers), draw(numbers))
    return replace(
        made,
        cluster_table=draw(tables(len(made.cluster))),
        local_table=draw(tables(len(made.local))),
        frontends=tuple(sorted(frontends)),
        affinity_timeout_s=draw(st.sampled_from([0, 10800])),
        has_any=draw(st.booleans()),
        source_ranges=tuple(Network(bytes([192, 168, one, 0]), 24) for one in sorted(ranges)),
    )


def without_clashes(wanted: dict[ServicePortName, Forwarding]) -> list[Forwarding]:
    """The plan gives an address and port to one Service port only."""
    taken: set[tuple[bytes, int]] = set()
    result = []
    for one in wanted.values():
        frontends = {(f.address, f.port): f for f in reversed(one.frontends)}
        mine = sorted(f for place, f in frontends.items() if place not in taken)
        taken |= frontends.keys()
        result.append(replace(one, frontends=tuple(mine)))
    return result


def from_scratch(wanted: list[Forwarding]) -> dict[str, object]:
    fake = FakeMaps(Family.IPV4)
    writer = writer_of(fake)
    for one in wanted:
        writer.set(one)
    return fake.state()


class failing:
    """NotProgrammed is no surprise where writes fail."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, traceback: object) -> bool:
        return isinstance(error, NotProgrammed)


@given(
    st.lists(st.tuples(services, st.one_of(st.none(), forwardings())), max_size=12),
    st.integers(0, 120),
)
@settings(max_examples=300, deadline=None)
def test_any_history_ends_as_from_scratch_even_if_a_write_fails(
    history: list[tuple[str, Forwarding | None]], fail_at: int
) -> None:
    fake, clock = FakeMaps(Family.IPV4), Clock()
    writer = writer_of(fake, clock)
    fake.hooks.fail_at = fail_at
    wanted: dict[ServicePortName, Forwarding] = {}
    for service, change in history:
        clock.now_s += 0.4
        if change is None:
            gone = forwarding(service).name
            wanted.pop(gone, None)
            with failing():
                writer.delete(gone)
                fake.expected.pop(format_name(gone), None)
        else:
            wanted[change.name] = change
        for one in without_clashes(wanted):
            expected = fake.expected.setdefault(format_name(one.name), [])
            expected.append(one)
            with failing():
                writer.set(one)
                expected[:] = [one]
        try:
            writer.housekeeping(clock())
        except OSError:
            assert fake.hooks.writes >= fail_at
    fake.hooks.fail_at = 0
    fake.expected.clear()
    desired = without_clashes(wanted)
    for _ in range(2):  # what a service hands over to another may take the second
        for one in desired:
            writer.set(one)
        writer.retain([one.name for one in desired])
    assert fake.state() == from_scratch(desired)

    before = fake.hooks.writes
    again = writer_of(fake, clock)
    for one in desired:
        again.set(one)
    again.retain([one.name for one in desired])
    assert fake.hooks.writes == before, "a restart wrote something"

    again.retain([])
    clock.now_s += 10
    again.housekeeping(clock())
    # what waited for its second when the agent went is not remembered: slots nobody points to
    assert fake.leftovers().keys() <= {"slots"}


@given(
    st.lists(forwardings(), max_size=3),
    st.lists(
        st.builds(
            lambda one, name: replace(one, name=one.name._replace(name=name)),
            forwardings(),
            st.sampled_from("abcdefgh"),
        ),
        max_size=8,
    ),
    st.integers(0, 90),
)
@settings(max_examples=300, deadline=None)
def test_many_at_once_in_the_same_order_even_if_a_write_fails(
    before: list[Forwarding], asked: list[Forwarding], fail_at: int
) -> None:
    """`FakeMaps` looks at every element that a batch writes."""
    fake, clock = FakeMaps(Family.IPV4), Clock()
    writer = writer_of(fake, clock)
    held = without_clashes({one.name: one for one in before})
    for one in held:
        writer.set(one)
    desired = without_clashes({one.name: one for one in asked})
    fake.hooks.writes, fake.hooks.fail_at = 0, fail_at
    for one in held:
        fake.expected[format_name(one.name)] = [one]
    for one in desired:
        fake.expected.setdefault(format_name(one.name), []).append(one)
    writer.set_all(desired)
    clock.now_s += 2
    try:
        writer.housekeeping(clock())
    except OSError:
        assert fake.hooks.writes >= fail_at
    fake.hooks.fail_at = 0
    fake.expected.clear()
    for _ in range(2):
        assert writer.set_all(desired) == []
        writer.retain([one.name for one in desired])
    assert fake.state() == from_scratch(desired)
    written = fake.hooks.writes
    heir = writer_of(fake, clock)
    assert heir.set_all(desired) == []
    heir.retain([one.name for one in desired])
    assert fake.hooks.writes == written, "a restart wrote something"
    writer.retain([])
    clock.now_s += 2
    writer.housekeeping(clock())
    # a region whose writing failed: slots nobody points to
    assert fake.leftovers().keys() <= {"slots"}


def test_many_at_once_are_written_in_few_calls_and_as_one_by_one() -> None:
    fake = FakeMaps(Family.IPV4, frontends=512)
    writer = writer_of(fake)
    wanted = [
        forwarding(f"service-{number}", cluster=(1, 2), vips=(number,)) for number in range(30)
    ]
    calls: list[str] = []
    for table in fake.tables.values():
        for way in ("update", "update_batch"):
            original = getattr(table, way)
            note = lambda *a, o=original, n=f"{way} {table.name}": (calls.append(n), o(*a))  # noqa: E731
            setattr(table, way, note)
    assert writer.set_all(wanted) == []
    assert [call for call in calls if call.startswith("update_batch")] == [
        f"update_batch {name}" for name in ("names", "backends", "slots", "frontends", "frontends")
    ]
    assert fake.state() == from_scratch(wanted)


def test_what_does_not_fit_among_many_is_named_and_the_rest_is_written() -> None:
    fake = FakeMaps(Family.IPV4, backends=6)
    writer = writer_of(fake)
    wanted = [forwarding(name, cluster=(1, 2), vips=(at,)) for at, name in enumerate("abc", 1)]
    (error,) = writer.set_all(wanted)
    assert error.name.name == "c" and "backends is full" in str(error)
    assert fake.state() == from_scratch(wanted[:2])


def test_deleting_everything_leaves_empty_maps() -> None:
    fake, clock = FakeMaps(Family.IPV4), Clock()
    writer = writer_of(fake, clock)
    for cluster in ((1, 2), (2, 3, 4), ()):
        writer.set(forwarding(cluster=cluster, local=cluster[:1]))
        writer.set(forwarding("other", cluster=cluster, vips=(101,)))
    assert fake.leftovers()
    writer.retain([])
    clock.now_s += 2
    writer.housekeeping(clock())
    assert fake.leftovers() == {}


@pytest.mark.parametrize("family", list(Family))
def test_set_writes_every_part_once(family: Family) -> None:
    fake = FakeMaps(family)
    writer = writer_of(fake)
    writer.set(forwarding(family=family, affinity_timeout_s=10))
    assert dict(writer.stats) == {
        "names": 1,
        "backends": 3,
        "slots": 3,
        "services": 2,
        "vip_filter": 1,
        "frontends": 2,
    }
    name = format_name(forwarding().name)
    key = fake.layout.struct("frontend_key")
    vip = address(family, 100)
    assert fake.state() == {
        name: (
            [(address(family, number), 8080, 1 | 4 * (number % 2 == 0)) for number in (1, 2, 3)],
            [],
            10 * TICKS | 1 << 32,
        ),
        f"frontend {key.pack(address=vip, port=80, protocol=6).hex()}": (name, 1, 0),
        f"frontend {key.pack(address=vip, port=0, protocol=0).hex()}": (None, 0, 0),
    }


def test_a_changed_endpoint_costs_only_its_own_writes() -> None:
    fake = FakeMaps(Family.IPV4)
    writer = writer_of(fake)
    writer.set(forwarding(cluster=(1, 2, 3)))
    writer.stats.clear()
    writer.set(forwarding(cluster=(1, 2, 4)))
    # the new backend, its region, one word, and the flags of the one that left
    assert dict(writer.stats) == {"backends": 2, "slots": 3, "services": 1}


def test_freed_ids_and_regions_wait_a_second() -> None:
    fake, clock = FakeMaps(Family.IPV4, slots=4, backends=5), Clock()
    writer = writer_of(fake, clock)
    writer.set(forwarding("a", cluster=(1, 2, 3)))
    first = writer.service_id(forwarding("a").name)
    writer.delete(forwarding("a").name)
    clock.now_s += 0.9
    with pytest.raises(NotProgrammed, match="backends is full"):
        writer.set(forwarding("b", cluster=(4, 5)))
    writer.set(forwarding("b", cluster=()))
    assert writer.service_id(forwarding("b").name) != first
    clock.now_s += 0.2
    writer.set(forwarding("b", cluster=(4, 5)))
    assert [row[0] for row in fake.endpoints(2, "cluster")] == [
        address(Family.IPV4, number) for number in (4, 5)
    ]


def test_backends_of_a_deleted_service_serve_no_more_from_then_on() -> None:
    """UDP flows go by their backends' flags: they must not wait until the ids are given back."""
    fake, layout = FakeMaps(Family.IPV4), load(Family.IPV4)
    writer = writer_of(fake)
    for name in ("web", "other"):
        writer.set(forwarding(name, vips=(100 + len(name),)))
    writer.delete(forwarding().name)
    held = [layout.struct("backend").unpack(value) for _, value in fake.maps.backends.items()]
    flags = {number: {e.flags for e in held if e.service_id == number} for number in (1, 2)}
    assert flags[1] == {0}
    in_cluster_set = layout.enum("backend_flag")["BACKEND_IN_CLUSTER_SET"]
    assert all(each & in_cluster_set for each in flags[2])


def test_a_full_map_leaves_what_was_there_and_names_itself() -> None:
    cases = {"backends": 4, "slots": 3, "frontends": 2, "source_ranges": 0}
    for name, entries in cases.items():
        fake = FakeMaps(Family.IPV4, **{name: entries})
        writer = writer_of(fake)
        writer.set(forwarding())
        before = fake.state()
        larger = forwarding(cluster=(1, 2, 3, 4), vips=(100, 101))
        larger = replace(larger, source_ranges=(Network(b"\x0a\0\0\0", 8),))
        with pytest.raises(NotProgrammed, match=rf"default/web:http.*{name} is full"):
            writer.set(larger)
        assert fake.state() == before
        writer.set(forwarding())
        assert fake.state() == before


def test_a_table_is_changed_where_it_stands_and_only_where_it_differs() -> None:
    fake, clock = FakeMaps(Family.IPV4, slots=500), Clock()
    writer = writer_of(fake, clock)
    many = tuple(range(1, 41))
    writer.set(forwarding(cluster=many, cluster_table=Table(401)))
    assert writer.stats["slots"] == 401
    writer.stats.clear()
    # there is no room for a second one
    writer.set(forwarding(cluster=many[:-1], cluster_table=Table(401)))
    assert 10 <= writer.stats["slots"] <= 40
    assert writer.stats["services"] == 0
    assert fake.state() == from_scratch([forwarding(cluster=many[:-1], cluster_table=Table(401))])
    writer.stats.clear()
    writer.set(forwarding(cluster=many[:-1], vips=(100, 101), cluster_table=Table(401)))
    assert writer.stats["slots"] == 0
    heir = writer_of(fake, clock)
    heir.set(forwarding(cluster=many[:-1], vips=(100, 101), cluster_table=Table(401)))
    assert not heir.stats


def test_a_table_that_does_not_change_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = writer_of(FakeMaps(Family.IPV4))
    writer.set(forwarding(cluster_table=Table(101)))
    monkeypatch.setattr("ebpf_lb.plan.maglev.table", lambda *_: 1 / 0)
    writer.set(forwarding(vips=(100, 101), affinity_timeout_s=10, cluster_table=Table(101)))


def test_a_table_of_another_size_is_switched_to_at_once() -> None:
    fake, clock = FakeMaps(Family.IPV4), Clock()
    writer = writer_of(fake, clock)
    sizes = set()
    offset = fake.layout.struct("service").offset("cluster")

    def note() -> None:
        fake.check()
        sizes.add(fake.services.load(1, offset) >> 32)

    for size in (101, 211):
        fake.hooks.check = note
        writer.set(forwarding(cluster_table=Table(size)))
    assert sizes == {0, 101, 211}
    clock.now_s += 2
    writer.housekeeping(clock())
    writer.set(forwarding())  # and no table any more
    assert fake.state() == from_scratch([forwarding()])


def test_a_table_without_room_is_reported_and_the_service_is_served_without() -> None:
    fake, clock = FakeMaps(Family.IPV4, slots=100), Clock()
    writer = writer_of(fake, clock)
    for _ in range(2):
        with pytest.raises(
            NotHashed, match=r"default/web:http .* without consistent hashing: .*slots"
        ):
            writer.set(forwarding(cluster_table=Table(101)))
        assert fake.state() == from_scratch([forwarding()])
        writes = fake.hooks.writes
    assert fake.hooks.writes == writes
    writer.set(forwarding(cluster_table=Table(53)))
    assert fake.state() == from_scratch([forwarding(cluster_table=Table(53))])
    with pytest.raises(NotHashed):
        writer.set(forwarding(cluster=(1, 2), cluster_table=Table(97)))
    assert fake.state() == from_scratch([forwarding(cluster=(1, 2))])


def test_every_node_chooses_alike_whatever_its_ids_are() -> None:
    wanted = forwarding(cluster=(1, 2, 3, 4, 5), cluster_table=Table(401, (1, 2, 1, 1, 3)))
    first, second = FakeMaps(Family.IPV4), FakeMaps(Family.IPV4)
    writer_of(first).set(wanted)
    other = writer_of(second)
    other.set(forwarding("older", cluster=(9, 8, 7), vips=(101,)))
    other.set(forwarding(cluster=(5, 3)))
    other.set(wanted)
    places = [[row[:2] for row in fake.endpoints(number, "cluster")]
              for fake, number in ((first, 1), (second, 2))]  # fmt: skip
    assert len(places[0]) == 401 and places[0] == places[1]


def test_services_full() -> None:
    fake = FakeMaps(Family.IPV4, services=2)
    writer = writer_of(fake)
    writer.set(forwarding("a"))
    with pytest.raises(NotProgrammed, match="services is full"):
        writer.set(forwarding("b"))


def test_a_frontend_moves_between_service_ports_in_any_order() -> None:
    for create_first in (True, False):
        fake = FakeMaps(Family.IPV4)
        writer = writer_of(fake)
        writer.set(forwarding("a"))
        if create_first:
            writer.set(forwarding("b"))
        writer.delete(forwarding("a").name)
        writer.set(forwarding("b"))
        assert fake.state() == from_scratch([forwarding("b")])


def test_unserved_stays_while_one_service_port_has_the_address() -> None:
    fake = FakeMaps(Family.IPV4)
    writer = writer_of(fake)
    other = replace(
        forwarding("web"),
        name=ServicePortName("default", "web", "https", Protocol.TCP),
        frontends=(Frontend(address(Family.IPV4, 100), 443, FrontendKind.CLUSTER_IP),),
    )
    writer.set(forwarding("web"))
    writer.set(other)
    key = fake.layout.struct("frontend_key").pack(
        address=address(Family.IPV4, 100), port=0, protocol=0
    )
    writer.delete(forwarding("web").name)
    assert key in fake.tables["frontends"].content
    writer.delete(other.name)
    assert fake.tables["frontends"].content == {}


@pytest.mark.parametrize("gone", ["deleted", "moved"])
def test_a_cluster_ip_that_becomes_somebody_elses_external_ip(gone: str) -> None:
    """What it was refused on its other ports must not outlive it, without any restart."""
    fake = FakeMaps(Family.IPV4)
    writer = writer_of(fake)
    writer.set(forwarding("web"))
    place = forwarding("web").frontends[0]
    other = forwarding("other", frontends=(place._replace(kind=FrontendKind.EXTERNAL_IP),))
    writer.set(other)
    if gone == "deleted":
        writer.delete(forwarding("web").name)
        assert fake.state() == from_scratch([other])
    else:
        writer.set(forwarding("web", vips=(101,)))
        assert fake.state() == from_scratch([other, forwarding("web", vips=(101,))])


def test_what_an_agent_died_over_is_removed() -> None:
    for fail_at in range(1, 40):
        fake, clock = FakeMaps(Family.IPV4), Clock()
        writer = writer_of(fake, clock)
        writer.set(forwarding("a"))
        fake.hooks.writes, fake.hooks.fail_at = 0, fail_at
        with failing():
            writer.set(forwarding("a", cluster=(4, 5), vips=(101,)))
            writer.delete(forwarding("a").name)
        fake.hooks.fail_at = 0
        heir = writer_of(fake, clock)  # the old one's memory is lost
        heir.set(forwarding("b", cluster=(6,), vips=(102,)))
        heir.retain([forwarding("b").name])
        clock.now_s += 2
        heir.housekeeping(clock())
        assert fake.state() == from_scratch([forwarding("b", cluster=(6,), vips=(102,))])
        heir.retain([])
        clock.now_s += 2
        heir.housekeeping(clock())
        assert fake.leftovers().keys() <= {"slots"}


def test_the_check_notices_a_frontend_without_backends() -> None:
    fake = FakeMaps(Family.IPV4)
    writer_of(fake).set(forwarding())
    with pytest.raises(AssertionError, match="somebody else's backend"):
        fake.tables["backends"].update((1).to_bytes(4, "little"), bytes(12))


names = st.from_regex(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)


@given(
    st.builds(
        ServicePortName, names, names, st.one_of(st.just(""), names), st.sampled_from(Protocol)
    )
)
def test_names_come_back(name: ServicePortName) -> None:
    assert parse_name(format_name(name)) == name


@pytest.mark.parametrize("text", ["", "a/b", "a/b:c", "a/b:c/ICMP", "a/b/c/TCP"])
def test_other_texts_are_no_names(text: str) -> None:
    with pytest.raises(ValueError, match="is not namespace/name"):
        parse_name(text)


POD_NETWORKS_KNOWN = 2  # bpf/layout.h


def flags(fake: FakeMaps) -> int:
    value = fake.tables["config"].lookup(bytes(4))
    assert value is not None
    return int.from_bytes(value[8:12], "little")


def test_node_tables_write_only_differences() -> None:
    fake = FakeMaps(Family.IPV4)
    for _ in range(2):
        writer = writer_of(fake)
        writer.set_config(node_netns_cookie=7, masquerade_all=True, reject_per_second=1000)
        writer.set_interface(3, bridge=2, source_id=1)
        writer.set_snat_source(1, address(Family.IPV4, 9))
        writer.set_pod_networks([Network(b"\x0a\1\0\0", 16), Network(b"\x0a\2\0\0", 16)])
        writer.set_crc32c_shifts()
    assert not writer.stats
    writer.set_pod_networks([Network(b"\x0a\1\0\0", 16)])
    writer.delete_interface(3)
    writer.delete_interface(3)
    assert dict(writer.stats) == {"pod_networks": 1, "interfaces": 1}
    assert writer.interfaces() == set()
    assert flags(fake) == 1 | POD_NETWORKS_KNOWN
    writer.set_pod_networks([])
    assert flags(fake) == 1
    assert dict(writer.stats) == {"pod_networks": 2, "interfaces": 1, "config": 1}


def test_departures_of_udp_backends_are_told() -> None:
    fake = FakeMaps(Family.IPV4)
    writer = writer_of(fake)

    def set_to(*cluster: int, **changes: object) -> int:
        before = writer.udp_departures
        writer.set(replace(forwarding(cluster=cluster, **changes), name=name))
        return writer.udp_departures - before

    def serving() -> set[tuple[bytes, int]]:
        return writer.serving(writer.service_id(name) or 0)

    name = forwarding().name._replace(protocol=Protocol.TCP)
    assert (set_to(1, 2), set_to(1), set_to()) == (0, 0, 0)
    name = forwarding("dns").name._replace(protocol=Protocol.UDP)
    assert (set_to(1, 2, vips=(101,)), set_to(1, 2, 3, vips=(101,))) == (0, 0)
    assert serving() == {(address(Family.IPV4, number), 8080) for number in (1, 2, 3)}
    assert set_to(1, 3, vips=(101,)) == 1
    assert serving() == {(address(Family.IPV4, number), 8080) for number in (1, 3)}
    before, number = writer.udp_departures, writer.service_id(name)
    writer.delete(name)
    assert writer.udp_departures == before + 1
    assert writer.serving(number or 0) == set()
