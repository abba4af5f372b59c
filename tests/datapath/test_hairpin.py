"""A pod that is chosen for its own connection: its packets go back to it."""

import pytest

from ebpf_lb.model.values import Protocol
from tests.datapath.kernel import NODE, Kernel
from tests.datapath.pod_world import PROTOCOLS, WORLDS, World, first, through
from tests.support.fragments import join, split
from tests.support.packets import (
    CLIENT_MAC,
    GATEWAY_MAC,
    UDP,
)


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


@pytest.mark.rule("VE-14")
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.name)
def test_hairpin(kernel: Kernel, world: World, protocol: Protocol) -> None:
    """A pod that is its own backend sees the node, and its answer goes back to itself."""
    kernel.service(world.vip, 80, [(world.client, 9376)], protocol=protocol)
    sent = first(world, protocol)
    there = through(kernel, sent)
    assert there.passed and there.packet.valid
    assert there.packet == sent.but(
        source=NODE[kernel.family], destination=world.client, destination_port=9376, ttl=62
    )
    answer = there.packet.reply(source_mac=CLIENT_MAC, destination_mac=GATEWAY_MAC)
    back = through(kernel, answer)
    assert back.passed and back.packet.valid
    assert back.packet == answer.but(
        source=world.vip,
        source_port=80,
        destination=world.client,
        destination_port=40000,
        ttl=answer.ttl - 1,
    )
    assert kernel.counters() == {"NEW": 1, "ESTABLISHED": 1, "REPLY": 1, "MASQUERADED": 2}


def test_a_hairpin_from_the_port_that_it_asks(kernel: Kernel, world: World) -> None:
    """What it asks and what it answers would look the same to the stack."""
    kernel.service(world.vip, 80, [(world.client, 40000)], protocol=Protocol.UDP)
    sent = first(world, UDP)
    entered = kernel.run("pod_ingress", sent).packet
    assert (entered.source, entered.destination) == (world.client, world.client)
    assert entered.source_port != entered.destination_port == 40000
    there = through(kernel, sent)
    assert there.packet.valid and there.packet.source == NODE[kernel.family]
    back = through(kernel, there.packet.reply()).packet
    assert back.valid
    assert (back.source, back.source_port) == (world.vip, 80)
    assert (back.destination, back.destination_port) == (world.client, 40000)


def test_a_hairpin_in_fragments(kernel: Kernel, world: World) -> None:
    """Both ways, whatever its fragments' order behind the first."""
    kernel.service(world.vip, 80, [(world.client, 9376)], protocol=Protocol.UDP)
    sent = first(world, UDP).but(payload=bytes(5000), identification=7)
    pieces = [through(kernel, piece) for piece in split(sent, 1480)]
    assert all(piece.passed for piece in pieces)
    there = join(piece.frame for piece in pieces)
    assert there.valid and (there.source, there.destination_port) == (NODE[kernel.family], 9376)
    one, *others = split(there.reply(identification=8), 1480)
    pieces = [through(kernel, piece) for piece in (one, *reversed(others))]
    assert all(piece.passed for piece in pieces)
    back = join(piece.frame for piece in pieces)
    assert back.valid
    assert (back.source, back.source_port, back.destination) == (world.vip, 80, world.client)
