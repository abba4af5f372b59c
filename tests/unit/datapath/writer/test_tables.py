"""Tables of consistent hashing, in the map `slots`."""

import pytest

from ebpf_lb.datapath.writer import NotHashed
from ebpf_lb.model.values import Family
from ebpf_lb.plan.forwarding import (
    Table,
)
from tests.unit.datapath.writer.fake_maps import FakeMaps
from tests.unit.datapath.writer.writing import Clock, forwarding, from_scratch, writer_of


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
            NotHashed, match=r"default/web:http .* without consistent hashing and weights: .*slots"
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


def test_tables_leave_room_for_services_without() -> None:
    """With consistent hashing for all, those that come last are served, too."""
    fake, clock = FakeMaps(Family.IPV4, slots=500), Clock()
    writer = writer_of(fake, clock)
    lacking = 0
    for number in range(12):
        wanted = forwarding(f"s{number}", vips=(number,), cluster_table=Table(53))
        try:
            writer.set(wanted)
        except NotHashed:
            lacking += 1
    assert lacking == 12 - 500 * 7 // 8 // 53
    assert len(writer.names()) == 12
    writer.set(forwarding("last", vips=(99,), cluster=tuple(range(1, 40))))


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
