"""One socket that talks to more VIPs than its home in the connection table holds."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from ebpf_lb.datapath.clock import ticks_per_second
from ebpf_lb.datapath.dump import dump
from ebpf_lb.datapath.reader import View
from ebpf_lb.model.values import Family, Protocol
from ebpf_lb.plan.forwarding import FrontendKind
from tests.capabilities import DATAPATH, needs
from tests.datapath import test_pod, test_uplink
from tests.datapath.conftest import SETTINGS as PACKETS
from tests.datapath.kernel import Kernel, kernels
from tests.datapath.pod_world import PROTOCOLS, World
from tests.datapath.test_icmp import ends, quotation
from tests.datapath.test_uplink import Hook, hook, uplink
from tests.datapath.words import time_of
from tests.support.packets import ACK, RST, SYN, UDP, Packet, too_big

__all__ = ["hook", "uplink"]  # fixtures

pytestmark = needs(*DATAPATH)

# in a small table others would take the places of unanswered flows by chance
SETTINGS = replace(PACKETS, flows=1 << 16)
HOME = 8
VIPS = 64
NEXT_TICK_S = 1.5 / ticks_per_second()


@pytest.fixture(scope="module")
def _kernels() -> Iterator[dict[Family, Kernel]]:
    with kernels("overflow", SETTINGS) as both:
        yield both


@pytest.fixture
def world(kernel: Kernel) -> World:
    return test_pod.WORLDS[kernel.family]


def counted_up(address: str, number: int) -> str:
    return str(ipaddress.ip_address(address) + number)


def serve(
    kernel: Kernel, world: World, backends: int, protocol: Protocol = Protocol.UDP
) -> list[Packet]:
    """VIPS Services on so many backends; the first packet to each, all from one socket."""
    sent = []
    for number in range(VIPS):
        vip = counted_up(world.vip, number)
        backend = counted_up(world.backend, number % backends)
        kernel.service(vip, 80, [(backend, 8080)], protocol=protocol, name=f"s{number}")
        sent.append(test_pod.first(world, int(protocol)).but(destination=vip))
    return sent


def free(kernel: Kernel, wanted: Callable[[Any], bool]) -> None:
    """Takes entries out of the table."""
    unpack = kernel.layout.struct("flow_set").unpack
    with kernel.open("flows") as table:
        size = table.value_size // 4
        for key, value in list(table.items()):
            if not value.strip(b"\0"):
                continue
            entries = [
                bytes(size) if wanted(entry) else value[at * size : (at + 1) * size]
                for at, entry in enumerate(unpack(value).entry)
            ]
            if b"".join(entries) != value:
                table.update(key, b"".join(entries))


@pytest.mark.rule("CO-13")
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.name)
@pytest.mark.parametrize("backends", [VIPS, 10, 1], ids=lambda number: f"{number}-backends")
def test_sixty_four_vips_from_one_socket(
    kernel: Kernel, world: World, protocol: Protocol, backends: int
) -> None:
    sent = serve(kernel, world, backends, protocol)
    there = [kernel.run("pod_ingress", one) for one in sent]
    for number, result in enumerate(there):
        assert result.passed and result.packet.valid
        assert result.packet.source == world.client
        assert result.packet.destination == counted_up(world.backend, number % backends)
        assert result.packet.destination_port == 8080
    # backends tell the flows apart, or they could not answer to the right one
    seen = {(one.packet.source_port, one.packet.destination) for one in there}
    assert len(seen) == VIPS
    for one, result in zip(sent, there, strict=True):
        back = kernel.run("pod_egress", result.packet.reply())
        assert back.passed and back.packet.valid
        assert ends(back.packet) == (one.destination, 80, world.client, one.source_port)
    # later packets keep to their flows
    for one, result in zip(sent, there, strict=True):
        again = kernel.run("pod_ingress", one.but(flags=ACK))
        assert again.packet.valid and ends(again.packet) == ends(result.packet)
    assert kernel.count("NEW") == VIPS
    assert set(kernel.counters()) == {"NEW", "ESTABLISHED", "REPLY"}


def test_what_its_home_holds_keeps_its_port(kernel: Kernel, world: World) -> None:
    sent = serve(kernel, world, VIPS)
    ports = [kernel.run("pod_ingress", one).packet.source_port for one in sent]
    assert ports[:HOME] == [one.source_port for one in sent[:HOME]]


def test_other_clients_are_not_searched_for(kernel: Kernel, world: World) -> None:
    """No more than one in a thousand shares the mark of a client that overflowed."""
    with kernel.open("overflows") as table:
        for one in serve(kernel, world, VIPS):
            kernel.run("pod_ingress", one)
        marks = [value for _, value in table.items() if any(value)]
        assert len(marks) == 1 and table.max_entries > 1000


def test_masqueraded_ones(hook: Hook) -> None:
    """From outside to another node's backends."""
    kernel, world = hook.kernel, test_uplink.WORLDS[hook.kernel.family]
    sent = [
        test_uplink.first(world, UDP).but(destination_port=30000 + number) for number in range(VIPS)
    ]
    for one in sent:
        kernel.service(
            world.node,
            one.destination_port,
            [(world.remote_pod, 80)],
            protocol=Protocol.UDP,
            kind=FrontendKind.NODE_PORT,
        )
    there = [hook.through(one) for one in sent]
    for result in there:
        assert result.sent_on and result.packet.valid
        assert (result.packet.source, result.packet.destination) == (world.node, world.remote_pod)
    assert there[0].packet.source_port == sent[0].source_port
    assert len({result.packet.source_port for result in there}) == VIPS
    for one, result in zip(sent, there, strict=True):
        back = hook.through(result.packet.reply())
        assert back.sent_on and back.packet.valid
        assert ends(back.packet) == (world.node, one.destination_port, world.client, 40000)
        again = hook.through(one)
        assert ends(again.packet) == ends(result.packet)


def test_a_flow_whose_backend_leaves_moves_on(kernel: Kernel, world: World) -> None:
    sent = serve(kernel, world, VIPS)
    for one in sent:
        kernel.run("pod_ingress", one)
    kernel.service(
        sent[-1].destination, 80, [(world.other_backend, 9)], protocol=Protocol.UDP, name="s63"
    )
    time.sleep(NEXT_TICK_S)
    moved, stayed = (kernel.run("pod_ingress", sent[number]).packet for number in (-1, -2))
    assert (moved.destination, moved.destination_port) == (world.other_backend, 9)
    assert stayed.destination == counted_up(world.backend, VIPS - 2)
    back = kernel.run("pod_egress", moved.reply()).packet
    assert ends(back) == (sent[-1].destination, 80, world.client, sent[-1].source_port)


def test_a_tuple_used_again_is_a_new_connection(kernel: Kernel, world: World) -> None:
    sent = serve(kernel, world, VIPS, Protocol.TCP)
    for one in sent:
        kernel.run("pod_egress", kernel.run("pod_ingress", one.but(flags=SYN)).packet.reply())
    last = sent[-1]
    kernel.service(last.destination, 80, [(world.other_backend, 9)], name="s63")
    stays = counted_up(world.backend, VIPS - 1)
    assert kernel.run("pod_ingress", last.but(flags=ACK)).packet.destination == stays
    kernel.run("pod_ingress", last.but(flags=RST))
    again = kernel.run("pod_ingress", last.but(flags=SYN)).packet
    assert again.destination == world.other_backend
    back = kernel.run("pod_egress", again.reply()).packet
    assert ends(back) == (last.destination, 80, world.client, last.source_port)


def test_errors_about_them_are_translated(kernel: Kernel, world: World) -> None:
    sent = serve(kernel, world, VIPS)
    there = [kernel.run("pod_ingress", one).packet for one in sent][-1]
    got = kernel.run("pod_egress", too_big(there, there.destination)).packet
    assert got.valid and (got.source, got.destination) == (sent[-1].destination, world.client)
    assert ends(quotation(got)) == ends(sent[-1])


def test_room_at_home_is_used_again(kernel: Kernel, world: World) -> None:
    """Flows in the overflow stay there; new ones go home where others have ended."""
    sent = serve(kernel, world, VIPS, Protocol.TCP)
    for one in sent[:-1]:
        kernel.run("pod_egress", kernel.run("pod_ingress", one.but(flags=SYN)).packet.reply())
    first_vip = ipaddress.ip_address(world.vip).packed
    free(kernel, lambda entry: entry.vip == first_vip)
    there = kernel.run("pod_ingress", sent[-1].but(flags=SYN)).packet
    assert there.source_port == sent[-1].source_port
    stayed = kernel.run("pod_ingress", sent[-2].but(flags=ACK)).packet
    assert stayed.source_port != sent[-2].source_port
    assert stayed.destination == counted_up(world.backend, VIPS - 2)
    assert kernel.count("NEW") == VIPS


def test_the_dump_shows_them(kernel: Kernel, world: World) -> None:
    for one in serve(kernel, world, VIPS):
        kernel.run("pod_ingress", one)
    rows = dump(View(kernel.build, kernel.family), "flows")
    shown = {row["vip"] for row in rows if row["kind"] != "signpost"}
    assert shown == {counted_up(world.vip, number) for number in range(VIPS)}
    assert {row["backend"] for row in rows} == {
        counted_up(world.backend, number) for number in range(VIPS)
    }


def test_a_signpost_lives_as_long_as_its_flow(kernel: Kernel, world: World) -> None:
    """A client that sends all the time and seldom hears something hears it all the same."""
    sent = serve(kernel, world, 1)
    for one in sent:
        kernel.run("pod_ingress", one)
    before = [time_of(word) for word, _ in kernel.flows()]
    time.sleep(NEXT_TICK_S)
    kernel.run("pod_ingress", sent[-1])
    after = [time_of(word) for word, _ in kernel.flows()]
    assert sum(a != b for a, b in zip(after, before, strict=True)) == 2


def test_a_flow_without_its_signpost_starts_anew(kernel: Kernel, world: World) -> None:
    """A flood took the unanswered signpost's place: a further attempt must be able to succeed."""
    sent = serve(kernel, world, 1, Protocol.TCP)
    for one in sent[:2]:
        kernel.run("pod_ingress", one.but(flags=SYN))
    turned = kernel.layout.defines["FLOW_SIGNPOST"]
    free(kernel, lambda entry: bool(entry.word & turned))
    time.sleep(NEXT_TICK_S)
    there = kernel.run("pod_ingress", sent[1].but(flags=SYN)).packet
    back = kernel.run("pod_egress", there.reply()).packet
    assert ends(back) == (sent[1].destination, 80, world.client, sent[1].source_port)
