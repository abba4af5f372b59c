"""Handing Services over: nothing begins any more, and what stands goes on until it ends."""

import functools

import pytest
from click.testing import CliRunner

from ebpf_lb.cli.main import main
from ebpf_lb.datapath.drain import Drain
from ebpf_lb.model.values import Protocol
from tests.capabilities import DATAPATH, needs
from tests.datapath.kernel import Kernel
from tests.datapath.pod_world import WORLDS, World, first
from tests.support.packets import ACK, FIN, RST, TCP, UDP, Packet

pytestmark = needs(*DATAPATH)


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


@pytest.fixture
def drain(kernel: Kernel) -> Drain:
    return Drain(kernel.build, [kernel.family])


def established(kernel: Kernel, world: World, port: int) -> Packet:
    """The client's third packet."""
    syn = first(world, source_port=port)
    kernel.run("pod_ingress", syn)
    kernel.run("pod_egress", syn.but(destination=world.backend).reply())
    ack = syn.but(flags=ACK, acknowledged=1001)
    assert kernel.run("pod_ingress", ack).packet.destination == world.backend
    return ack


def test_what_stands_goes_on_and_nothing_begins(kernel: Kernel, world: World, drain: Drain) -> None:
    for protocol in (Protocol.TCP, Protocol.UDP):
        kernel.service(world.vip, 80, [(world.backend, 80)], protocol=protocol)
    ack = established(kernel, world, 40000)
    answer = ack.but(destination=world.backend).reply()
    drain.begin()
    assert drain.left() == 1
    assert kernel.run("pod_ingress", ack).packet.destination == world.backend
    assert kernel.run("pod_egress", answer).packet.source == world.vip
    for one in (first(world, TCP, source_port=40001), first(world, UDP)):
        left = kernel.run("pod_ingress", one)
        assert left.passed and left.frame == one.frame()
    assert drain.left() == 1


def test_it_is_over_when_both_ends_have_said_so(kernel: Kernel, world: World, drain: Drain) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)])
    ack = established(kernel, world, 40000)
    reset = established(kernel, world, 40001).but(flags=RST)
    drain.begin()
    assert drain.left() == 2
    fin = ack.but(flags=FIN | ACK)
    kernel.run("pod_ingress", fin)
    assert drain.left() == 2, "the other end may go on for long"
    kernel.run("pod_egress", fin.but(destination=world.backend).reply(flags=FIN | ACK))
    assert drain.left() == 1
    assert kernel.run("pod_ingress", ack).packet.destination == world.backend, "the last ACK"
    kernel.run("pod_ingress", reset)
    assert drain.left() == 0


def test_udp_goes_over_at_once(kernel: Kernel, world: World, drain: Drain) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)], protocol=Protocol.UDP)
    datagram = first(world, UDP)
    assert kernel.run("pod_ingress", datagram).packet.destination == world.backend
    drain.begin()
    kernel.age(1)
    left = kernel.run("pod_ingress", datagram)
    assert left.passed and left.frame == datagram.frame()
    assert drain.left() == 0


@pytest.mark.parametrize("ends", [True, False])
def test_cleanup_waits_for_the_last_one_but_not_for_ever(
    kernel: Kernel, world: World, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)])
    ack = established(kernel, world, 40000)
    left = []

    def removed(*_: object) -> None:
        """Not the build that other tests use."""
        left.append(Drain(kernel.build, [kernel.family]).left())

    def slept(_: float) -> None:
        kernel.run("pod_ingress", ack.but(flags=RST))

    monkeypatch.setattr("ebpf_lb.datapath.cleanup.cleanup", removed)
    own = functools.partial(Drain, families=[kernel.family])
    monkeypatch.setattr("ebpf_lb.datapath.drain.Drain", own)
    monkeypatch.setattr("ebpf_lb.cli.cleanup.time.sleep", slept)
    words = ["cleanup", "--bpffs", str(kernel.build.path.parent), "--drain", "60" if ends else "0"]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0
    last = "No connection stands any more." if ends else "1 have not ended within 0 s, and end now."
    assert last in result.output
    assert left == [0 if ends else 1]
