"""The connection table over time: idle flows end, a full table says so, established ones stay."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import pytest

from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family, Protocol
from tests.capabilities import DATAPATH, needs
from tests.datapath.kernel import Kernel, kernels
from tests.datapath.pod_world import WORLDS, World, first
from tests.datapath.words import (
    CLOSING,
    ESTABLISHED,
    GENERATION,
    ORIGINAL_FIN,
    RESET,
    generation_of,
    state_of,
)
from tests.support.packets import ACK, FIN, RST, SCTP, TCP, UDP, Packet

pytestmark = needs(*DATAPATH)

CAPACITY = 64
# long ones, which pass when a test says so
SETTINGS = Settings(
    flows=CAPACITY,
    services=1024,
    backends=4096,
    affinity=64,
    fragments=64,
    sockets=64,
    tcp_syn_s=2000,
    tcp_established_s=8000,
    closing_s=500,
    time_wait_s=2000,
    reset_s=4000,
    udp_new_s=1000,
    udp_s=2000,
    sctp_s=8000,
)
SHORT_S, LONG_S = 2001, 8001  # past the time-outs, a tick's length included
PAST_RESET_S, PAST_QUIET_S, PAST_UDP_NEW_S = 4001, 501, 1001
NOT_YET_S = 300  # before them


@pytest.fixture(scope="module")
def _kernels() -> Iterator[dict[Family, Kernel]]:
    with kernels("hasty", SETTINGS) as both:
        yield both


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


def states(kernel: Kernel) -> list[int]:
    return [state_of(word) for word, _ in kernel.flows()]


def generations(kernel: Kernel) -> list[int]:
    """Of all entries, free ones included: how often each was claimed."""
    found = []
    unpack = kernel.layout.struct("flow_set").unpack
    with kernel.open("flows") as table:
        for _, value in table.items():
            found += [generation_of(entry.word) for entry in unpack(value).entry]
    return found


def exchange(kernel: Kernel, sent: Packet) -> Packet:
    """There, back and there again, and but for TCP back again: an established flow. Returns what
    the backend got first."""
    there = kernel.run("pod_ingress", sent).packet
    kernel.run("pod_egress", there.reply())
    if sent.protocol == TCP:
        kernel.run("pod_ingress", sent.but(flags=ACK, acknowledged=sent.sequence + 1))
    else:
        payload = b"\x0a\0\0\4" if sent.protocol == SCTP else sent.payload  # COOKIE ECHO
        kernel.run("pod_ingress", sent.but(payload=payload))
        kernel.run("pod_egress", there.reply(payload=payload))
    return there


def move(kernel: Kernel, world: World, protocol: Protocol = Protocol.TCP) -> None:
    """From now on the Service has another backend: who still reaches the old one has a flow."""
    kernel.service(world.vip, 80, [(world.other_backend, 80)], protocol=protocol, name="web")


@pytest.mark.rule("CO-14")
@pytest.mark.parametrize("protocol", list(Protocol), ids=lambda p: p.name)
def test_idle_flows_end(kernel: Kernel, world: World, protocol: Protocol) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)], protocol=protocol, name="web")
    sent = first(world, protocol)
    exchange(kernel, sent)
    if protocol is not Protocol.UDP:  # those that change their backend are its own matter
        move(kernel, world, protocol)
    later = sent.but(flags=ACK)
    idle = SHORT_S if protocol is Protocol.UDP else LONG_S
    kernel.age(idle - NOT_YET_S)
    if protocol is not Protocol.UDP:
        assert kernel.run("pod_ingress", later).packet.destination == world.backend
    else:
        kernel.run("pod_ingress", later)
    # that counts as activity
    kernel.age(idle - NOT_YET_S)
    kernel.run("pod_ingress", later)
    assert kernel.count("NEW") == 1
    kernel.age(idle)
    late = kernel.run("pod_ingress", later)
    if protocol is Protocol.TCP:  # it opens nothing, so it is the stack's
        assert late.frame == later.frame()
        kernel.run("pod_ingress", sent)
    assert kernel.count("NEW") == 2


@pytest.mark.rule("CO-14")
def test_an_unanswered_connection_ends_sooner(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)], name="web")
    unanswered, answered = first(world), first(world, source_port=40001)
    kernel.run("pod_ingress", unanswered)
    exchange(kernel, answered)
    move(kernel, world)
    kernel.age(SHORT_S - NOT_YET_S)
    later = unanswered.but(flags=ACK)
    assert kernel.run("pod_ingress", later).packet.destination == world.backend
    kernel.age(SHORT_S)
    assert kernel.run("pod_ingress", unanswered).packet.destination == world.other_backend
    later = answered.but(flags=ACK)
    assert kernel.run("pod_ingress", later).packet.destination == world.backend


@pytest.mark.rule("CO-14")
@pytest.mark.parametrize("end", ["RST", "both FINs"])
def test_a_closed_connection_ends_soon(kernel: Kernel, world: World, end: str) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)], name="web")
    sent = first(world)
    answer = exchange(kernel, sent).reply()
    assert states(kernel) == [ESTABLISHED]
    if end == "RST":
        kernel.run("pod_egress", answer.but(flags=RST))
        assert states(kernel) == [RESET]
    else:
        kernel.run("pod_ingress", sent.but(flags=FIN | ACK))
        assert states(kernel) == [ORIGINAL_FIN]
        kernel.run("pod_egress", answer.but(flags=FIN | ACK))
        assert states(kernel) == [CLOSING]
    move(kernel, world)
    # what is still under way reaches whom it is meant for
    assert kernel.run("pod_ingress", sent.but(flags=ACK)).packet.destination == world.backend
    kernel.age(PAST_RESET_S if end == "RST" else SHORT_S)
    late = kernel.run("pod_ingress", sent.but(flags=ACK))
    assert late.packet.destination == sent.destination  # the stack's


def test_a_reply_keeps_a_flow(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)], protocol=Protocol.UDP)
    answer = exchange(kernel, first(world, UDP)).reply()
    for _ in range(4):
        kernel.age(SHORT_S - NOT_YET_S)
        assert kernel.run("pod_egress", answer).packet.source == world.vip
    kernel.age(SHORT_S)
    assert kernel.run("pod_egress", answer).packet.source == world.backend


@pytest.mark.rule("CO-30")
def test_a_full_table_refuses_new_flows_only(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)], name="web")
    lasting = []
    for port in range(1000, 1000 + 20 * CAPACITY):
        sent = first(world, source_port=port)
        if kernel.run("pod_ingress", sent).dropped:
            continue
        exchange(kernel, sent)
        lasting.append(sent)
    refused = kernel.count("FLOW_TABLE_FULL")
    assert len(lasting) == len(kernel.flows()) == CAPACITY
    assert refused == 20 * CAPACITY - CAPACITY
    assert set(states(kernel)) == {ESTABLISHED}
    move(kernel, world)
    for sent in lasting:
        later = kernel.run("pod_ingress", sent.but(flags=ACK))
        assert later.packet.destination == world.backend
    kernel.age(LONG_S)
    fresh = kernel.run("pod_ingress", first(world, source_port=999))
    assert fresh.packet.destination == world.other_backend


@pytest.mark.rule("CO-30")
def test_twenty_thousand_syns_take_no_established_flow(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)], name="web")
    lasting = [first(world, source_port=port) for port in range(1000, 1000 + CAPACITY // 8)]
    for sent in lasting:
        exchange(kernel, sent)
    move(kernel, world)
    frame = bytearray(first(world, TCP).frame())
    program = kernel.program("pod_ingress")
    place = 14 + (20 if kernel.family is Family.IPV4 else 40)
    for number in range(20_000):
        struct.pack_into("!H", frame, place, 10_000 + number)
        program.test_run(bytes(frame))
    assert kernel.count("NEW") - len(lasting) + kernel.count("FLOW_TABLE_FULL") == 20_000
    # refused is whose two sets are all established; with an eighth in use no two sets are full
    assert kernel.count("FLOW_TABLE_FULL") == 0
    for sent in lasting:
        later = kernel.run("pod_ingress", sent.but(flags=ACK))
        assert later.packet.destination == world.backend


def test_each_tenant_has_a_generation_of_its_own(kernel: Kernel, world: World) -> None:
    """By which a reader on another processor notices that an entry changed hands; it goes round."""
    bits = GENERATION.bit_count()
    kernel.service(world.vip, 80, [(world.backend, 80)])
    sent = first(world)
    seen = []
    for _ in range(300):
        kernel.run("pod_ingress", sent)
        kernel.run("pod_ingress", sent.but(flags=RST))  # then its SYN opens a new connection
        ((word, _),) = kernel.flows()
        seen.append(generation_of(word))
    assert all(after == (before + 1) % 2**bits for before, after in itertools.pairwise(seen))
    assert sum(map(bool, generations(kernel))) <= 1


def test_sctp_associations_are_followed(kernel: Kernel, world: World) -> None:
    """INIT opens, ABORT and SHUTDOWN COMPLETE end one (RFC 9260)."""
    kernel.service(world.vip, 80, [(world.backend, 80)], protocol=Protocol.SCTP, name="web")
    for end in (6, 14):
        init = first(world, SCTP, source_port=40000 + end)
        exchange(kernel, init)
        assert ESTABLISHED in states(kernel)
        ended = init.but(payload=bytes([end, 0, 0, 4]))
        kernel.run("pod_ingress", ended)
        assert RESET in states(kernel)
        move(kernel, world, Protocol.SCTP)
        assert kernel.run("pod_ingress", init).packet.destination == world.other_backend
        kernel.service(world.vip, 80, [(world.backend, 80)], protocol=Protocol.SCTP, name="web")


def test_at_half_load_hardly_a_flow_finds_no_room() -> None:
    """Two choices of set, and the emptier one is taken: simulated, 0.003 % are lost, and a hundred
    times as many where the first set is filled first."""
    with kernels("half", Settings(flows=1 << 16)) as both:
        for family, kernel in both.items():
            world = WORLDS[family]
            flows = 1 << 15
            kernel.service(world.vip, 80, [(world.backend, 80)], protocol=Protocol.TCP)
            there = bytearray(first(world).frame())
            answer = kernel.run("pod_ingress", first(world)).packet.reply(flags=ACK)
            back = bytearray(answer.frame())
            ports = 14 + (20 if family is Family.IPV4 else 40)
            ingress, egress = kernel.program("pod_ingress"), kernel.program("pod_egress")
            for port in range(1, flows + 1):
                struct.pack_into("!H", there, ports, port)
                struct.pack_into("!H", back, ports + 2, port)
                ingress.test_run(bytes(there))
                for _ in range(2):  # the backend takes it for open
                    egress.test_run(bytes(back))
            assert kernel.count("FLOW_TABLE_FULL") <= 12
            assert kernel.count("NEW") >= flows - 12
