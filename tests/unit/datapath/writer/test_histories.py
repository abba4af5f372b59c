"""Whatever came before, and whatever failed meanwhile: the maps end as if written from scratch."""

from contextlib import suppress
from dataclasses import replace
from math import gcd

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpf_lb.datapath.writer import NotProgrammed, format_name
from ebpf_lb.model.service import Algorithm
from ebpf_lb.model.values import Family, Network
from ebpf_lb.plan.forwarding import (
    Forwarding,
    Frontend,
    FrontendFlag,
    FrontendKind,
    ServicePortName,
    Spread,
    Table,
)
from tests.support.chance import times
from tests.unit.datapath.writer.fake_maps import FakeMaps
from tests.unit.datapath.writer.writing import Clock, address, forwarding, from_scratch, writer_of

services = st.sampled_from(["a", "b", "c"])
numbers = st.frozensets(st.integers(1, 9), max_size=6).map(tuple)


def tables(backends: int) -> st.SearchStrategy[Table | None]:
    """None, or one of two sizes, with or without weights; or one that weights make."""
    weights = st.lists(st.integers(1, 3), min_size=backends, max_size=backends).map(tuple)
    some = st.builds(
        Table,
        st.sampled_from([11, 13]),
        st.one_of(st.just(()), weights),
        st.just(Spread.MAGLEV),
    )
    in_turn = weights.map(lambda w: Table(sum(w) // gcd(*w), w, Spread.IN_TURN))
    one_each = weights.map(lambda w: Table(len(w), w, Spread.ONE_EACH))
    return st.one_of(st.none(), some, in_turn, one_each) if backends else st.none()


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
        algorithm=draw(st.sampled_from(Algorithm)),
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


@pytest.mark.rule("CP-3")
@given(
    st.lists(st.tuples(services, st.one_of(st.none(), forwardings())), max_size=12),
    st.integers(0, 120),
)
@settings(max_examples=times(300), deadline=None)
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
            with suppress(NotProgrammed):
                writer.delete(gone)
                fake.expected.pop(format_name(gone), None)
        else:
            wanted[change.name] = change
        for one in without_clashes(wanted):
            expected = fake.expected.setdefault(format_name(one.name), [])
            expected.append(one)
            with suppress(NotProgrammed):
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
@settings(max_examples=times(300), deadline=None)
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


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
def test_a_cold_start_near_a_full_frontends_map_leaves_no_strays(at_once: bool) -> None:
    """Two entries each, room for five and one: the last one writes nothing at all."""
    fake, clock = FakeMaps(Family.IPV4, frontends=11), Clock()
    writer = writer_of(fake, clock)
    wanted = [forwarding(f"s{number}", vips=(number,)) for number in range(6)]
    problems = []
    if at_once:
        problems = writer.set_all(wanted)
    else:
        for one in wanted:
            problems += writer.set_all([one])
    assert [problem.name.name for problem in problems] == ["s5"]
    assert "frontends is full" in str(problems[0])
    assert fake.state() == from_scratch(wanted[:5])
    assert writer.occupancy() == {"services": 5, "backends": 15, "slots": 15}
    writes = fake.hooks.writes
    again = writer_of(fake, clock)
    assert len(again.set_all(wanted)) == 1
    again.retain([one.name for one in wanted])
    assert fake.hooks.writes == writes, "a restart over a full map wrote something"


def test_one_element_that_the_kernel_refuses_is_its_service_ports_loss_alone() -> None:
    wanted = [forwarding(f"s{number}", vips=(number,)) for number in range(5)]
    fake = FakeMaps(Family.IPV4)
    assert writer_of(fake).set_all(wanted) == []
    for fail_at in range(1, fake.hooks.writes + 1):
        fake, clock = FakeMaps(Family.IPV4), Clock()
        writer = writer_of(fake, clock)
        fake.hooks.fail_at = fail_at
        problems = writer.set_all(wanted)
        assert len(problems) == 1 and "out of memory" in str(problems[0])
        assert set(from_scratch([one for one in wanted if one.name != problems[0].name])) <= set(
            fake.state()
        )
        assert writer.set_all(wanted) == []
        assert fake.state() == from_scratch(wanted)
        clock.now_s += 2
        writer.housekeeping(clock())
        assert writer.occupancy() == {"services": 5, "backends": 15, "slots": 15}
