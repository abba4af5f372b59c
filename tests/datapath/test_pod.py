"""A packet's life at a pod's interface: there, back, refused, its tuple used again."""

import time

import pytest

from ebpf_lb.datapath import clock
from ebpf_lb.model.values import Family, Protocol
from ebpf_lb.plan.forwarding import FrontendFlag, FrontendKind
from tests.datapath.kernel import TC_NEXT, Kernel
from tests.datapath.pod_world import PROTOCOLS, WORLDS, World, first
from tests.support.packets import (
    ACK,
    CLIENT_MAC,
    FIN,
    GATEWAY_MAC,
    ICMP,
    ICMPV6,
    RST,
    SCTP,
    SYN,
    TCP,
    UDP,
    Packet,
)


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


@pytest.mark.rule("CO-27")
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.name)
@pytest.mark.parametrize("target_port", [80, 9376])
def test_there_and_back(kernel: Kernel, world: World, protocol: Protocol, target_port: int) -> None:
    service = kernel.service(world.vip, 80, [(world.backend, target_port)], protocol=protocol)
    sent = first(world, protocol)

    there = kernel.run("pod_ingress", sent)
    assert there.passed and there.packet.valid
    assert there.packet == sent.but(destination=world.backend, destination_port=target_port)

    answer = there.packet.reply(ttl=61)
    back = kernel.run("pod_egress", answer)
    assert back.passed and back.packet.valid
    assert back.packet == answer.but(source=world.vip, source_port=80)

    again = kernel.run("pod_ingress", sent.but(flags=ACK, payload=sent.payload + b"more"))
    assert again.packet.valid and again.packet.destination == world.backend
    assert len(kernel.flows()) == 1
    connections, packets, _ = kernel.connections(service)
    assert (connections, packets) == (1, 3)
    assert kernel.count("NEW") == 1
    assert kernel.count("ESTABLISHED") == 2
    assert kernel.count("REPLY") == 1


def test_what_is_no_services_leaves_as_it_came(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)])
    sent = first(world).but(destination=world.outside, payload=b"x" * 100)
    for program in ("pod_ingress", "pod_egress"):
        result = kernel.run(program, sent)
        assert result.passed and result.frame == sent.frame()
    assert not kernel.flows()


@pytest.mark.parametrize("kind", ["other-family", "arp", "tagged"])
def test_other_kinds_of_frames_are_nobodys_business(
    kernel: Kernel, world: World, kind: str
) -> None:
    """A program of tcx gets them all; what has a VLAN tag is for another interface."""
    kernel.service(world.vip, 80, [(world.backend, 80)])
    frame = first(world).frame()
    types = {Family.IPV4: b"\x08\x00", Family.IPV6: b"\x86\xdd"}
    other = types[Family.IPV6 if kernel.family is Family.IPV4 else Family.IPV4]
    sent = {
        "other-family": frame[:12] + other + frame[14:],
        "arp": frame[:12] + b"\x08\x06" + frame[14:],
        "tagged": frame[:12] + b"\x81\x00\x00\x07" + frame[12:],
    }[kind]
    before = kernel.counters()
    for program in ("pod_ingress", "pod_egress", "uplink_ingress", "uplink_egress"):
        verdict, left = kernel.run_frame(program, sent)
        assert (verdict, left) == (TC_NEXT, sent)
    assert not kernel.flows() and kernel.counters() == before


@pytest.mark.rule("VE-1", "VE-10", "CO-17")
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.name)
def test_without_endpoints_it_is_refused(kernel: Kernel, world: World, protocol: Protocol) -> None:
    kernel.service(world.vip, 80, [], protocol=protocol)
    sent = first(world, protocol)
    for round_ in range(3):
        answer = kernel.run("pod_ingress", sent)
        assert answer.redirected and answer.packet.valid
        got = answer.packet
        assert (got.source, got.destination) == (world.vip, world.client)
        assert (got.source_mac, got.destination_mac) == (GATEWAY_MAC, CLIENT_MAC)
        if protocol is Protocol.TCP:
            assert got.flags == RST | ACK
            assert got.acknowledged == sent.sequence + 1
            assert (got.source_port, got.destination_port) == (80, 40000)
        else:
            assert got.protocol == (ICMP if kernel.family is Family.IPV4 else ICMPV6)
            kind = b"\3\3" if kernel.family is Family.IPV4 else b"\1\4"
            assert got.payload[:2] == kind
            quoted = got.payload[8:]
            assert sent.frame()[14 : 14 + len(quoted)][8:] == quoted[8:]
        assert kernel.count("NO_ENDPOINTS") == round_ + 1
    assert not kernel.flows()


@pytest.mark.rule("CO-1")
@pytest.mark.parametrize("flags", [ACK, FIN | ACK, RST, RST | ACK, SYN | ACK, 0])
@pytest.mark.parametrize("endpoints", ["none", "some"])
@pytest.mark.parametrize("hook", ["pod_ingress", "uplink_ingress", "uplink_egress"])
def test_what_opens_nothing_and_is_not_known_is_the_stacks(
    kernel: Kernel, world: World, hook: str, endpoints: str, flags: int
) -> None:
    """A connection older than the Service, or another proxy's."""
    kernel.service(world.vip, 80, [] if endpoints == "none" else [(world.backend, 80)])
    sent = first(world).but(flags=flags, acknowledged=77, payload=b"data")
    got = kernel.run(hook, sent)
    assert got.passed and got.frame == sent.frame()
    assert not kernel.flows() and not kernel.counters()


def test_data_to_nowhere_is_reset_where_it_stands(kernel: Kernel, world: World) -> None:
    """RFC 9293: a segment with ACK is answered from the sequence number it acknowledges. (Where
    another node may have had the connection; else it is the stack's.)"""
    kernel.service(world.vip, 80, [])
    consistent(kernel)
    sent = first(world).but(flags=ACK, acknowledged=77, payload=b"data")
    got = kernel.run("uplink_ingress", sent).packet
    assert got.valid and got.flags == RST and got.sequence == 77
    reset = sent.but(flags=RST)
    assert kernel.run("uplink_ingress", reset).frame == reset.frame()


def consistent(kernel: Kernel) -> None:
    """As the agent tells the programs when a Service has hashed consistently for a while."""
    value = kernel.layout.struct("frontend")
    for key, held in list(kernel.maps.frontends.items()):
        fields = value.unpack(held)._asdict()
        fields["flags"] = fields["flags"] & ~FrontendFlag.YOUNG | FrontendFlag.CONSISTENT
        kernel.maps.frontends.update(key, value.pack(**fields))


@pytest.mark.parametrize("flags", [ACK, FIN | ACK])
def test_consistent_hashing_takes_connections_over(
    kernel: Kernel, world: World, flags: int
) -> None:
    """From an uplink: another node may have had them. Never from a pod, which only we serve."""
    backends = [(world.backend, 80)]
    kernel.service(world.vip, 80, backends, local=backends)
    consistent(kernel)
    sent = first(world).but(flags=flags)
    assert kernel.run("pod_ingress", sent).frame == sent.frame()
    got = kernel.run("uplink_ingress", sent)
    assert got.passed and got.packet.destination == world.backend


@pytest.mark.rule("CO-2")
@pytest.mark.parametrize("answered", [False, True])
def test_what_was_left_to_the_stack_stays_with_it(
    kernel: Kernel, world: World, answered: bool
) -> None:
    """Older than the consistent hashing of its Service, and so it goes on when that is not new."""
    backends = [(world.backend, 80)]
    kernel.service(world.vip, 80, backends, local=backends, flags=FrontendFlag.CONSISTENT)
    older, others = first(world).but(flags=ACK), first(world, source_port=50999).but(flags=ACK)
    assert kernel.run("uplink_ingress", older).frame == older.frame()
    if answered:
        for flags in (ACK, ACK):
            reply = older.reply().but(flags=flags, payload=b"data")
            assert kernel.run("uplink_egress", reply).frame == reply.frame()
    consistent(kernel)
    assert kernel.run("uplink_ingress", older).frame == older.frame()
    assert kernel.run("uplink_ingress", others).packet.destination == world.backend
    # nobody holds up a connection by a segment that he made up
    again = kernel.run("uplink_ingress", older.but(flags=SYN))
    assert (again.frame == older.but(flags=SYN).frame()) == answered


@pytest.mark.rule("VE-7")
def test_other_ports_of_a_cluster_ip_are_refused(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)])
    refused = kernel.run("pod_ingress", first(world, port=81))
    assert refused.redirected and refused.packet.flags == RST | ACK
    echo = Packet(
        world.client,
        world.vip,
        protocol=ICMP if kernel.family is Family.IPV4 else ICMPV6,
        payload=(b"\x08\0" if kernel.family is Family.IPV4 else b"\x80\0") + bytes(30),
    )
    assert kernel.run("pod_ingress", echo).redirected
    error = echo.but(payload=(b"\3\1" if kernel.family is Family.IPV4 else b"\1\1") + bytes(60))
    assert kernel.run("pod_ingress", error).passed
    assert kernel.count("UNSERVED_PORT") == 2


@pytest.mark.rule("VE-11")
def test_the_nodes_answers_are_limited(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [])
    kernel.writer.set_config(0, False, 5)
    began = time.monotonic()
    results = [kernel.run("pod_ingress", first(world, source_port=p)) for p in range(1000, 1500)]
    answered = sum(result.redirected for result in results)
    # five at once, and five more for each second that the machine has taken
    assert 5 <= answered <= 6 + 5 * (time.monotonic() - began)
    assert kernel.count("REJECT_LIMIT") == 500 - answered


@pytest.mark.rule("CO-13")
def test_two_vips_with_one_backend_from_one_client_port(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)], protocol=Protocol.UDP)
    kernel.service(world.other_vip, 80, [(world.backend, 80)], protocol=Protocol.UDP)
    one = first(world, UDP)
    two = one.but(destination=world.other_vip)
    there_one, there_two = kernel.run("pod_ingress", one), kernel.run("pod_ingress", two)
    assert there_one.packet.destination == there_two.packet.destination == world.backend
    assert there_one.packet.source_port == 40000
    assert there_two.packet.source_port != 40000
    assert there_two.packet.source == world.client and there_two.packet.valid
    for sent, there in ((one, there_one), (two, there_two)):
        back = kernel.run("pod_egress", there.packet.reply())
        assert back.packet.valid and back.passed
        assert back.packet == there.packet.reply(
            source=sent.destination, source_port=80, destination_port=40000
        )


@pytest.mark.rule("CO-10", "CO-11")
def test_a_connection_stays_when_its_backend_leaves(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)], name="web")
    sent = first(world)
    kernel.run("pod_egress", kernel.run("pod_ingress", sent).packet.reply())
    kernel.run("pod_ingress", sent.but(flags=ACK, acknowledged=1001))
    kernel.service(world.vip, 80, [(world.other_backend, 80)], name="web")
    assert kernel.run("pod_ingress", sent.but(flags=ACK)).packet.destination == world.backend
    # a SYN again on an open connection is a retransmission
    assert kernel.run("pod_ingress", sent).packet.destination == world.backend
    fresh = kernel.run("pod_ingress", sent.but(source_port=40001))
    assert fresh.packet.destination == world.other_backend


@pytest.mark.rule("CO-12")
@pytest.mark.parametrize("end", ["client's FIN", "client's RST", "both FINs"])
def test_a_tuple_used_again_is_a_new_connection(kernel: Kernel, world: World, end: str) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)], name="web")
    sent = first(world)
    answer = kernel.run("pod_ingress", sent).packet.reply()
    kernel.run("pod_egress", answer)
    flags = RST if "RST" in end else FIN | ACK
    kernel.run("pod_ingress", sent.but(flags=flags))
    if "both" in end:
        kernel.run("pod_egress", answer.but(flags=FIN | ACK))
    kernel.service(world.vip, 80, [(world.other_backend, 80)], name="web")
    assert kernel.run("pod_ingress", sent.but(flags=ACK)).packet.destination == world.backend
    assert kernel.run("pod_ingress", sent).packet.destination == world.other_backend
    assert len(kernel.flows()) == 1


WAYS = [("pod_ingress", "pod_egress"), ("uplink_ingress", "uplink_egress")]


@pytest.mark.rule("CO-5")
@pytest.mark.parametrize("hooks", WAYS, ids=["pod", "uplink"])
@pytest.mark.parametrize("how", ["both finish", "it lives"])
@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
def test_straight_to_the_backend_from_the_same_port(
    kernel: Kernel, world: World, hooks: tuple[str, str], how: str, protocol: int
) -> None:
    """While a connection by the VIP lives, one past it leaves from another port; both are heard."""
    towards, back = hooks
    here = [(world.backend, 80)]
    kernel.service(
        world.vip, 80, here, local=here, kind=FrontendKind.NODE_PORT, protocol=Protocol(protocol)
    )
    sent = first(world, protocol)
    there = kernel.run(towards, sent).packet
    answer = there.reply()
    assert kernel.run(back, answer).packet.source == world.vip
    kernel.run(towards, sent.but(flags=ACK, acknowledged=1001))
    if how == "both finish" and protocol == TCP:
        kernel.run(towards, sent.but(flags=FIN | ACK))
        kernel.run(back, answer.but(flags=FIN | ACK))
    direct = sent.but(destination=world.backend)
    for packet in (direct, direct.but(flags=ACK)):
        passed = kernel.run(towards, packet)
        assert passed.passed and passed.packet.valid
        port = passed.packet.source_port
        assert passed.packet == packet.but(source_port=port)
        assert (port == 40000) == (how == "both finish" and protocol == TCP)
        heard = kernel.run(back, passed.packet.reply()).packet
        assert heard == passed.packet.reply(destination_port=40000)
    if how == "it lives":
        assert kernel.run(towards, sent.but(flags=ACK)).packet == there.but(flags=ACK)
        assert kernel.run(back, answer.but(flags=ACK)).packet.source == world.vip


@pytest.mark.rule("CO-5")
@pytest.mark.parametrize("hooks", WAYS, ids=["pod", "uplink"])
@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
def test_by_the_service_after_straight_to_the_backend(
    kernel: Kernel, world: World, hooks: tuple[str, str], protocol: int
) -> None:
    """The other way round: the connection past it goes on, untouched."""
    towards, back = hooks
    here = [(world.backend, 80)]
    kernel.service(
        world.vip, 80, here, local=here, kind=FrontendKind.NODE_PORT, protocol=Protocol(protocol)
    )
    sent = first(world, protocol)
    direct = sent.but(destination=world.backend)
    assert kernel.run(towards, direct).frame == direct.frame()
    answer = direct.reply()
    assert kernel.run(back, answer).frame == answer.frame()
    there = kernel.run(towards, sent).packet
    assert there.valid and there.source_port != 40000
    heard = kernel.run(back, there.reply()).packet
    assert heard == there.reply(source=world.vip, destination_port=40000)
    for packet, hook in ((direct.but(flags=ACK), towards), (answer.but(flags=ACK), back)):
        assert kernel.run(hook, packet).frame == packet.frame()


def test_syn_flood_costs_no_established_connection(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)])
    established = [first(world, source_port=port) for port in range(30000, 30100)]
    for sent in established:
        kernel.run("pod_egress", kernel.run("pod_ingress", sent).packet.reply())
        kernel.run("pod_ingress", sent.but(flags=ACK, acknowledged=1001))
    for port in range(1024, 1024 + 4000):
        kernel.run("pod_ingress", first(world, source_port=port))
    kernel.service(world.vip, 80, [(world.other_backend, 80)], name="s0")
    for sent in established:
        there = kernel.run("pod_ingress", sent.but(flags=ACK))
        assert there.packet.destination == world.backend
    assert len(kernel.flows()) <= 1024


@pytest.mark.rule("CO-16")
@pytest.mark.parametrize("change", ["another backend", "another port", "none for a while"])
def test_udp_flows_follow_the_endpoints(kernel: Kernel, world: World, change: str) -> None:
    """A client with a fixed source port reaches the new backend, at the latest a tick later."""
    service = {"protocol": Protocol.UDP, "name": "dns"}
    sent = first(world, UDP)
    kernel.service(world.vip, 80, [(world.backend, 53)], **service)
    assert kernel.run("pod_ingress", sent).packet.destination == world.backend
    if change == "none for a while":
        kernel.service(world.vip, 80, [], **service)
        time.sleep(2 / clock.ticks_per_second())
        assert kernel.run("pod_ingress", sent).redirected
    target = (world.backend, 5353) if change == "another port" else (world.other_backend, 53)
    kernel.service(world.vip, 80, [target], **service)
    time.sleep(2 / clock.ticks_per_second())
    there = kernel.run("pod_ingress", sent).packet
    assert (there.destination, there.destination_port) == target
    assert len(kernel.flows()) == 1
