"""What became of each backend's connections: counted when they end, and whose they were."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ebpf_lb.datapath.reader import View
from ebpf_lb.datapath.reader.summary import BackendSummary, backend_summaries
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family, Protocol, format_address
from ebpf_lb.plan.forwarding import FrontendKind
from tests.capabilities import DATAPATH, needs
from tests.datapath.kernel import Kernel, kernels
from tests.datapath.pod_world import WORLDS, World, first
from tests.support.packets import ACK, RST, TCP, UDP

pytestmark = needs(*DATAPATH)

# few enough that a test can fill the table; nobody's time-out passes unless a test says so
SETTINGS = Settings(flows=64, services=1024, backends=4096, tcp_syn_s=600, udp_new_s=600, xdp=True)
LONG_S = 9000


@pytest.fixture(scope="module")
def _kernels() -> Iterator[dict[Family, Kernel]]:
    with kernels("outcomes", SETTINGS) as both:
        yield both


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


def told(kernel: Kernel) -> dict[tuple[str, int], BackendSummary]:
    view = View(kernel.build, kernel.family)
    return {
        (format_address(one.backend.address), one.backend.port): one
        for one in backend_summaries(view)
    }


def of(kernel: Kernel, world: World, port: int = 80) -> tuple[int, int, int, int]:
    one = told(kernel)[world.backend, port]
    return one.tried, one.answered, one.refused, one.unanswered


def test_by_what_it_had_come_to(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)])
    sent = [first(world, source_port=port) for port in range(1000, 1006)]
    for one in sent:
        kernel.run("pod_ingress", one)
    for one in sent[:3]:
        kernel.run("pod_egress", one.but(destination=world.backend).reply())
        kernel.run("pod_ingress", one.but(flags=ACK, acknowledged=1001))
    kernel.run("pod_egress", sent[3].but(destination=world.backend).reply().but(flags=RST | ACK))
    before = of(kernel, world)
    assert before == (6, 3, 1, 2)
    kernel.age(LONG_S)
    kernel.sweep()
    assert not kernel.flows()
    assert of(kernel, world) == before
    ended = told(kernel)[world.backend, 80].ended
    assert (ended.answered, ended.refused, ended.unanswered) == (3, 1, 2)


def test_of_udp_as_well(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)], protocol=Protocol.UDP)
    asked = first(world, UDP)
    kernel.run("pod_ingress", asked)
    kernel.run("pod_ingress", asked.but(source_port=1))
    kernel.run("pod_egress", asked.but(destination=world.backend).reply())
    kernel.age(LONG_S)
    kernel.sweep()
    assert of(kernel, world) == (2, 1, 0, 1)


def test_those_that_gave_their_place_to_others(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)])
    for port in range(1000, 1500):
        kernel.run("pod_ingress", first(world, source_port=port))
    assert of(kernel, world) == (500, 0, 0, 500)
    assert len(kernel.flows()) <= SETTINGS.flows


def test_a_tuple_that_begins_anew(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)])
    asked = first(world)
    kernel.run("pod_ingress", asked)
    kernel.run("pod_egress", asked.but(destination=world.backend).reply().but(flags=RST | ACK))
    kernel.run("pod_ingress", asked.but(sequence=90000))
    assert of(kernel, world) == (2, 0, 1, 1)


@pytest.mark.parametrize("xdp", [False, True], ids=["tc", "xdp"])
def test_masqueraded_ones_count_once(kernel: Kernel, world: World, xdp: bool) -> None:
    """Though their signposts end as well."""
    kernel.service(world.vip, 80, [(world.backend, 80)], kind=FrontendKind.NODE_PORT)
    program = kernel.run_xdp if xdp else lambda one: kernel.run("uplink_ingress", one)
    for port in range(1000, 1010):
        program(first(world, source_port=port))
        kernel.run("uplink_ingress", first(world, source_port=port))
    tried = of(kernel, world)[0]
    assert tried == 10
    kernel.age(LONG_S)
    kernel.sweep()
    assert of(kernel, world) == (10, 0, 0, 10)


def test_a_number_that_is_given_to_another_counts_from_nothing(
    kernel: Kernel, world: World
) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)])
    kernel.run("pod_ingress", first(world, source_port=1000))
    kernel.age(LONG_S)
    kernel.sweep()
    assert of(kernel, world) == (1, 0, 0, 1)
    kernel.run("pod_ingress", first(world, source_port=1001))  # lives on while its backend leaves
    number = told(kernel)[world.backend, 80].backend.id
    kernel.writer.retain(())
    kernel.writer.housekeeping(1e12)
    kernel.service(world.vip, 80, [(world.backend, 81)])
    other = told(kernel)[world.backend, 81]
    assert other.backend.id == number
    assert other.tried == 0
    kernel.age(LONG_S)
    kernel.sweep()  # the old one ends: it is not the new backend's
    assert of(kernel, world, 81) == (0, 0, 0, 0)
    kernel.run("pod_ingress", first(world, TCP, source_port=1002))
    assert of(kernel, world, 81) == (1, 0, 0, 1)
