"""UDP flows whose backend left end without a word of the client's."""

import pytest

from ebpf_lb.datapath.sweep import FlowSweep
from ebpf_lb.model.values import Protocol
from tests.capabilities import DATAPATH, needs
from tests.datapath.kernel import Kernel
from tests.datapath.pod_world import WORLDS, World, first
from tests.datapath.test_sweep import events
from tests.support.packets import TCP, UDP

pytestmark = needs(*DATAPATH)

PORTS = (80, 8081)  # where backends may be is remembered for as long as programs are loaded


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


@pytest.mark.rule("CO-15", "CO-18")
def test_udp_flows_of_what_left_end_and_others_stay(kernel: Kernel, world: World) -> None:
    """Though their backend goes on talking."""
    both = (Protocol.TCP, Protocol.UDP)
    for protocol in both:
        for port in PORTS:
            kernel.service(world.vip, port, [(world.backend, port)], protocol=protocol)
    sent = [
        first(world, protocol, port, source_port=1000 + port)
        for protocol in (TCP, UDP)
        for port in PORTS
    ]
    for one in sent:
        assert kernel.run("pod_ingress", one).packet.destination == world.backend
    table = FlowSweep(kernel.build, kernel.family)
    table.end_stale()
    assert len(kernel.flows()) == 4 and not events(kernel)
    for protocol in both:
        kernel.service(world.vip, 80, [(world.client, 80)], protocol=protocol)
    table.step(1)
    assert len(kernel.flows()) == 4, "not unless asked to"
    table.end_stale()
    assert len(kernel.flows()) == 3 and events(kernel) == {"STALE": 1}
    answer = sent[2].but(destination=world.backend).reply()
    assert kernel.run("pod_egress", answer).frame == answer.frame()
