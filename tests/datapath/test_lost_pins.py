"""Uplinks whose programs have lost their slow paths: a program array is emptied with its last pin.

Services are not served then, but the node goes on to hear answers to its own connections.
"""

import struct
from collections.abc import Iterator

import pytest

from ebpf_lb.model.values import Family
from tests.datapath.conftest import SETTINGS
from tests.datapath.kernel import Kernel, kernels
from tests.datapath.node import WORLDS, World, entered_node, serve_at_node_port
from tests.support.packets import ACK, ICMP, ICMPV6, TCP, UDP, Packet


@pytest.fixture(scope="module")
def uplink() -> Iterator[int]:
    with entered_node() as ifindex:
        yield ifindex


@pytest.fixture(scope="module")
def _kernels() -> Iterator[dict[Family, Kernel]]:
    with kernels("emptied", SETTINGS) as found:
        for kernel in found.values():
            with kernel.open("calls") as calls:
                for index in range(calls.max_entries):
                    calls.delete(struct.pack("=I", index))
        yield found


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


@pytest.mark.parametrize("protocol", [TCP, UDP, ICMP])
def test_the_nodes_own_answers_arrive(
    kernel: Kernel, world: World, uplink: int, protocol: int
) -> None:
    """From the API server; and neighbours' answers, without which there is nobody to talk to."""
    serve_at_node_port(kernel, world)
    if protocol == ICMP and kernel.family is Family.IPV6:
        protocol = ICMPV6
    flags = ACK if protocol == TCP else 0
    payload = b"\x81" + bytes(15)  # ICMPv6: an echo's answer; for ICMPv4 no error either
    sent = Packet(world.client, world.node, 6443, 50000, protocol, flags=flags, payload=payload)
    result = kernel.run("uplink_ingress", sent, uplink)
    assert result.passed
    assert result.frame == sent.frame()
    assert kernel.counters() == {"SLOW_PATH": 1}


def test_services_are_not_served(kernel: Kernel, world: World, uplink: int) -> None:
    """Else the test above would prove nothing."""
    serve_at_node_port(kernel, world)
    sent = Packet(world.client, world.node, 40000, 30080, TCP)
    assert kernel.run("uplink_ingress", sent, uplink).packet == sent
    assert kernel.flows() == []
