"""Which backend a pod's new connection gets: spread evenly, and by session affinity."""

import pytest

from ebpf_lb.datapath.dump import dump
from ebpf_lb.datapath.reader import View
from tests.datapath.kernel import Kernel
from tests.datapath.pod_world import WORLDS, World, first
from tests.support.packets import (
    ACK,
)


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


def test_choices_are_spread_evenly(kernel: Kernel, world: World) -> None:
    backends = [(world.backend[:-1] + str(n), 80) for n in range(1, 5)]
    kernel.service(world.vip, 80, backends)
    chosen = [
        kernel.run("pod_ingress", first(world, source_port=port)).packet.destination
        for port in range(20000, 20400)
    ]
    shares = [chosen.count(address) for address, _ in backends]
    # four sigma of a binomial with p = 1/4 and n = 400 is 35
    assert all(65 <= share <= 135 for share in shares), shares


@pytest.mark.rule("AF-4")
def test_affinity(kernel: Kernel, world: World) -> None:
    backends = [(world.backend[:-1] + str(n), 80) for n in range(1, 9)]
    service = {"affinity_timeout_s": 60, "name": "sticky"}
    kernel.service(world.vip, 80, backends, **service)
    chosen = {
        kernel.run("pod_ingress", first(world, source_port=port)).packet.destination
        for port in range(20000, 20030)
    }
    assert len(chosen) == 1
    (sticky,) = chosen
    rest = [backend for backend in backends if backend[0] != sticky]
    kernel.service(world.vip, 80, rest, **service)
    after = {
        kernel.run("pod_ingress", first(world, source_port=port)).packet.destination
        for port in range(21000, 21030)
    }
    assert len(after) == 1 and after != chosen


@pytest.mark.rule("AF-2", "AF-3")
def test_only_new_connections_keep_affinity(kernel: Kernel, world: World) -> None:
    """However busy a connection is: a client that opens none for the time-out chooses anew."""
    kernel.service(world.vip, 80, [(world.backend, 80)], affinity_timeout_s=60, name="sticky")

    def age_s() -> float:
        [row] = dump(View(kernel.build, kernel.family), "affinity")
        return float(row["age_s"])

    kernel.run("pod_egress", kernel.run("pod_ingress", first(world)).packet.reply())
    kernel.age(50)
    kernel.run("pod_ingress", first(world).but(flags=ACK))
    assert 50 <= age_s() < 60
    kernel.run("pod_ingress", first(world, source_port=40001))
    assert age_s() < 10
    kernel.age(50)
    # valid for the cluster still, and not the only one: who remembers stays
    others = [(world.backend[:-1] + str(n), 80) for n in range(1, 9)]
    kernel.service(world.vip, 80, others, affinity_timeout_s=60, name="sticky")
    chosen = {
        kernel.run("pod_ingress", first(world, source_port=port)).packet.destination
        for port in range(41000, 41020)
    }
    assert chosen == {world.backend}
