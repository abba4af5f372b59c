"""One Service port: what is written of it, in which order, and what goes again."""

from contextlib import suppress
from dataclasses import replace

import pytest

from ebpf_lb.datapath.layout import load
from ebpf_lb.datapath.writer import NotProgrammed, format_name
from ebpf_lb.model.values import Family, Network, Protocol
from tests.unit.datapath.writer.fake_maps import FakeMaps
from tests.unit.datapath.writer.writing import (
    TICKS,
    Clock,
    address,
    forwarding,
    from_scratch,
    writer_of,
)


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


def test_services_full() -> None:
    fake = FakeMaps(Family.IPV4, services=2)
    writer = writer_of(fake)
    writer.set(forwarding("a"))
    with pytest.raises(NotProgrammed, match="services is full"):
        writer.set(forwarding("b"))


def test_what_an_agent_died_over_is_removed() -> None:
    for fail_at in range(1, 40):
        fake, clock = FakeMaps(Family.IPV4), Clock()
        writer = writer_of(fake, clock)
        writer.set(forwarding("a"))
        fake.hooks.writes, fake.hooks.fail_at = 0, fail_at
        with suppress(NotProgrammed):
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


@pytest.mark.rule("CP-3")
def test_the_check_notices_a_frontend_without_backends() -> None:
    fake = FakeMaps(Family.IPV4)
    writer_of(fake).set(forwarding())
    with pytest.raises(AssertionError, match="somebody else's backend"):
        fake.tables["backends"].update((1).to_bytes(4, "little"), bytes(12))


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
