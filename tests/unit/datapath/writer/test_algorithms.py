"""What the maps say of a Service's algorithm, and of backends whose connections are counted."""

import struct
from typing import Any

import pytest

from ebpf_lb.model.service import Algorithm
from ebpf_lb.model.values import Family
from ebpf_lb.plan.forwarding import Spread, Table
from tests.unit.datapath.writer.fake_maps import FakeMaps, layout_flag
from tests.unit.datapath.writer.writing import Clock, forwarding, writer_of

LC = Algorithm.LEAST_CONNECTIONS


def held(fake: FakeMaps) -> dict[int, tuple[int, Any]]:
    """By the last byte of its address: number and value of each backend."""
    unpack = fake.layout.struct("backend").unpack
    return {
        value.address[-1]: (number, value)
        for number, value in (
            (struct.unpack("=I", key)[0], unpack(data))
            for key, data in fake.tables["backends"].items()
        )
        if any(value.address)
    }


def flags_of(fake: FakeMaps, number: int = 1) -> int:
    at = fake.layout.struct("service").offset("affinity_timeout")
    return fake.services.load(number, at) >> 32


@pytest.mark.parametrize("algorithm", Algorithm)
def test_the_services_flags_say_it(algorithm: Algorithm) -> None:
    fake = FakeMaps(Family.IPV4)
    writer = writer_of(fake)
    writer.set(forwarding(algorithm=algorithm))
    named = 0 if algorithm is Algorithm.RANDOM else layout_flag(fake.layout, algorithm.name)
    assert flags_of(fake) & ~layout_flag(fake.layout, "HAS_ANY") == named
    fake.hooks.writes = 0
    heir = writer_of(fake)
    heir.adopt()
    heir.set(forwarding(algorithm=algorithm))
    assert fake.hooks.writes == 0
    heir.set(forwarding())
    assert flags_of(fake) == layout_flag(fake.layout, "HAS_ANY")


def test_backends_in_turn_stand_as_often_as_weights_say() -> None:
    fake = FakeMaps(Family.IPV4)
    table = Table(6, (3, 1, 2), Spread.IN_TURN)
    writer_of(fake).set(forwarding(cluster=(1, 2, 3), cluster_table=table))
    order = [address[-1] for address, _, _ in fake.endpoints(1, "cluster")]
    assert [order.count(number) for number in (1, 2, 3)] == [3, 1, 2]
    assert order[:3] != [1, 1, 1] and order[-3:] != [1, 1, 1]  # turns, not shifts


def test_weights_stand_beside_backends_that_are_counted() -> None:
    fake = FakeMaps(Family.IPV4)
    writer = writer_of(fake)
    table = Table(3, (3, 1, 2), Spread.ONE_EACH)
    counted = fake.layout.enum("backend_flag")["BACKEND_COUNTED"]
    writer.set(forwarding(cluster=(1, 2, 3), cluster_table=table, algorithm=LC))
    before = held(fake)
    assert [before[one][1].weight for one in (1, 2, 3)] == [3, 1, 2]
    assert all(value.flags & counted for _, value in before.values())
    other = table._replace(weights=(4, 4, 1))
    writer.set(forwarding(cluster=(1, 2, 3), cluster_table=other, algorithm=LC))
    after = held(fake)
    assert [after[one][1].weight for one in (1, 2, 3)] == [4, 4, 1]
    assert {one: after[one][0] for one in after} == {one: before[one][0] for one in before}
    writer.set(forwarding(cluster=(1, 2, 3)))
    assert not any(value.weight or value.flags & counted for _, value in held(fake).values())


def test_a_number_is_kept_as_long_as_connections_count_under_it() -> None:
    fake, clock = FakeMaps(Family.IPV4), Clock()
    writer = writer_of(fake, clock)
    writer.set(forwarding(cluster=(1, 2, 3), algorithm=LC))
    number = held(fake)[2][0]
    key = struct.pack("=I", number)
    fake.tables["connections"].content[key] = struct.pack("=I", 5)
    writer.set(forwarding(cluster=(1, 3), algorithm=LC))
    writer.housekeeping(clock() + 5)
    assert held(fake)[2][0] == number
    assert [address[-1] for address, _, _ in fake.endpoints(1, "cluster")] == [1, 3]
    heir = writer_of(fake, clock)
    heir.adopt()
    for again in (
        forwarding(cluster=(1, 3, 9), algorithm=LC),
        forwarding(cluster=(1, 2, 3), algorithm=LC),
    ):
        heir.set(again)
        heir.housekeeping(clock() + 5)
        assert held(fake)[2][0] == number and held(fake)[2][1].weight == 1
    assert fake.tables["connections"].content[key] == struct.pack("=I", 5)
    # when they have ended, it is free
    fake.tables["connections"].content[key] = bytes(4)
    heir.set(forwarding(cluster=(1, 3), algorithm=LC))
    heir.housekeeping(clock() + 5)
    assert 2 not in held(fake)


def test_a_new_backend_begins_with_none() -> None:
    fake = FakeMaps(Family.IPV4)
    for number in range(256):
        fake.tables["connections"].content[struct.pack("=I", number)] = struct.pack("=I", 7)
    writer_of(fake).set(forwarding(cluster=(1, 2), algorithm=LC))
    for one in (1, 2):
        key = struct.pack("=I", held(fake)[one][0])
        assert fake.tables["connections"].content[key] == bytes(4)


def test_who_leaves_without_connections_is_nobodys_at_once() -> None:
    """Also before its number is given out again: an agent that starts then takes it for a stray."""
    fake = FakeMaps(Family.IPV4)
    writer = writer_of(fake)
    writer.set(forwarding(cluster=(1, 2), algorithm=LC))
    writer.set(forwarding(cluster=(1,)))
    assert held(fake)[2][1].flags == 0
    back = forwarding(cluster=(1, 2))
    writer.set(back)
    heir = writer_of(fake)
    fake.hooks.writes = 0
    heir.set(back)
    assert fake.hooks.writes == 0
