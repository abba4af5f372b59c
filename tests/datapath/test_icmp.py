"""ICMP errors about translated packets find their way, and path-MTU discovery with them."""

import struct

import pytest

from ebpf_lb.model.values import Family, Protocol
from ebpf_lb.plan.forwarding import FrontendKind
from tests.datapath import test_pod, test_uplink
from tests.datapath.kernel import Kernel
from tests.datapath.node import serve_at_node_port
from tests.datapath.test_uplink import Hook, uplink
from tests.datapath.words import NEW, state_of
from tests.support.packets import (
    ACK,
    GATEWAY_MAC,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    Packet,
    checksum,
    packed,
    parse,
    too_big,
)

__all__ = ["uplink"]  # the fixture

ROUTER = {Family.IPV4: "172.30.0.1", Family.IPV6: "fd30::1"}


def quotation(packet: Packet) -> Packet:
    """The quoted packet's ends. Its own IP header must be right; what follows is cut off."""
    inner = packet.payload[8:]
    padded = inner + bytes(60)
    kind = b"\x08\0" if packet.version == 4 else b"\x86\xdd"
    if packet.version == 4:
        total = struct.pack("!H", len(padded))
        assert _header_sum(inner[:20]) == 0
        padded = padded[:2] + total + padded[4:]
    else:
        padded = padded[:4] + struct.pack("!H", len(padded) - 40) + padded[6:]
    return parse(bytes(12) + kind + padded)


def _header_sum(header: bytes) -> int:
    return checksum(header)


def ends(packet: Packet) -> tuple[str, int, str, int]:
    return (packet.source, packet.source_port, packet.destination, packet.destination_port)


@pytest.mark.rule("CO-20")
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("by", ["a router", "the backend"])
def test_about_a_pods_packet(kernel: Kernel, protocol: int, by: str) -> None:
    """A pod hears of the VIP that it spoke to, not of a backend that it never heard of."""
    world = test_pod.WORLDS[kernel.family]
    kernel.service(world.vip, 80, [(world.backend, 9376)], protocol=Protocol(protocol))
    sent = test_pod.first(world, protocol)
    there = kernel.run("pod_ingress", sent).packet
    source = world.backend if by == "the backend" else ROUTER[kernel.family]
    got = kernel.run("pod_egress", too_big(there, source))
    assert got.passed and got.packet.valid
    assert got.packet.destination == world.client
    assert got.packet.source == (world.vip if by == "the backend" else source)
    assert ends(quotation(got.packet)) == ends(sent)
    assert kernel.count("ICMP_ERROR") == 1
    assert state_of(kernel.flows()[0][0]) == NEW  # an error is not a reply: still NEW


@pytest.mark.rule("CO-20")
@pytest.mark.parametrize("headers", range(1, 4))
@pytest.mark.parametrize("kind", ["options", "fragment"])
def test_quoted_with_further_headers(kernel: Kernel, kind: str, headers: int) -> None:
    """IPv6's extension and fragment headers; IPv4's options, and a first fragment."""
    world = test_pod.WORLDS[kernel.family]
    kernel.service(world.vip, 80, [(world.backend, 9376)], protocol=Protocol.UDP)
    sent = test_pod.first(world, UDP)
    if kernel.family is Family.IPV4:
        sent = sent.but(options=b"\1\1\1\0" * headers)
    else:
        extensions = ((60, bytes([0, 0, 1, 4, 0, 0, 0, 0])),) * (headers - (kind == "fragment"))
        sent = sent.but(extensions=extensions)
    if kind == "fragment":
        sent = sent.but(fragment=(0, True), payload=bytes(16))
    there = kernel.run("pod_ingress", sent).packet
    assert there.destination == world.backend
    told = too_big(there, ROUTER[kernel.family])
    told = told.but(payload=told.payload[:8] + there.frame()[14:][:100])
    told = told.but(payload=told.payload[:2] + bytes(2) + told.payload[4:]).with_icmp_checksum()
    got = kernel.run("pod_egress", told).packet
    assert got.valid and got.destination == world.client
    headers_and_ports = len(sent.frame()) - 14 - len(sent.payload) - 4
    assert got.payload[8:][:headers_and_ports] == sent.frame()[14:][:headers_and_ports]


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_about_a_reply_to_a_pod(kernel: Kernel, protocol: int) -> None:
    world = test_pod.WORLDS[kernel.family]
    kernel.service(world.vip, 80, [(world.backend, 9376)], protocol=Protocol(protocol))
    there = kernel.run("pod_ingress", test_pod.first(world, protocol)).packet
    reply = there.reply()
    heard = kernel.run("pod_egress", reply).packet
    got = kernel.run("pod_ingress", too_big(heard, world.client))
    assert got.passed and got.packet.valid
    assert got.packet.destination == world.backend
    assert ends(quotation(got.packet)) == ends(reply)


@pytest.fixture(params=["tc", "xdp"])
def hook(kernel: Kernel, uplink: int, request: pytest.FixtureRequest) -> Hook:
    kernel.writer.set_interface(uplink, 0, 1, GATEWAY_MAC)
    return Hook(kernel, uplink, request.param == "xdp")


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_about_a_masqueraded_packet(hook: Hook, protocol: int) -> None:
    """On the way to the other node a packet was too big: the client must hear of its own packet."""
    world, kernel = test_uplink.WORLDS[hook.kernel.family], hook.kernel
    serve_at_node_port(kernel, world, protocol)
    sent = test_uplink.first(world, protocol)
    there = hook.through(sent).packet
    got = hook.through(too_big(there, ROUTER[kernel.family]))
    assert got.sent_on and got.redirected == hook.xdp and got.packet.valid
    assert got.packet.destination == world.client and got.packet.ttl == 59
    assert ends(quotation(got.packet)) == ends(sent)


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("backend", ["local_pod", "remote_pod"])
def test_about_a_reply_to_an_outside_client(hook: Hook, protocol: int, backend: str) -> None:
    world, kernel = test_uplink.WORLDS[hook.kernel.family], hook.kernel
    address = getattr(world, backend)
    local = [(address, 80)] if backend == "local_pod" else []
    kernel.service(
        world.node,
        30080,
        [(address, 80)],
        local=local,
        kind=FrontendKind.NODE_PORT,
        protocol=Protocol(protocol),
    )
    there = hook.through(test_uplink.first(world, protocol)).packet
    reply = there.reply().but(flags=ACK)
    back = (hook("uplink_egress", reply) if local else hook.through(reply)).packet
    got = hook.through(too_big(back, world.client))
    assert got.sent_on and got.redirected == (hook.xdp and not local)
    assert got.packet.source == (world.client if local else world.node)
    assert got.packet.valid and got.packet.destination == address
    assert ends(quotation(got.packet)) == ends(reply)


def test_about_one_of_two_connections_from_one_port(hook: Hook) -> None:
    """A client asks a Service, and its backend directly as well: the error is about the former."""
    world, kernel = test_uplink.WORLDS[hook.kernel.family], hook.kernel
    serve_at_node_port(kernel, world, TCP)
    sent = test_uplink.first(world)
    there = hook.through(sent).packet
    back = hook.through(there.reply()).packet
    direct = sent.but(destination=there.destination, destination_port=there.destination_port)
    assert hook("uplink_ingress", direct).packet.source_port != direct.source_port
    got = hook.through(too_big(back, world.client)).packet
    assert got.valid and got.destination == there.destination
    assert ends(quotation(got)) == ends(there.reply())


def test_about_a_local_backends_client(hook: Hook) -> None:
    """An error that a backend (or this node) sends to an outside client quotes the VIP."""
    world, kernel = test_uplink.WORLDS[hook.kernel.family], hook.kernel
    kernel.service(
        world.node, 30080, [], local=[(world.local_pod, 80)], kind=FrontendKind.NODE_PORT
    )
    sent = test_uplink.first(world)
    there = hook("uplink_ingress", sent).packet
    got = hook("uplink_egress", too_big(there, world.local_pod))
    assert got.passed and got.packet.valid and got.packet.source == world.node
    assert ends(quotation(got.packet)) == ends(sent)


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("backend", ["local_pod", "remote_pod"])
@pytest.mark.parametrize("direction", ["towards the backend", "towards the client"])
def test_what_the_stack_says_of_packets_between_the_hooks(
    hook: Hook, protocol: int, backend: str, direction: str
) -> None:
    """Too big, no route, hops at their end: it quotes what it has seen, and the sender hears of
    what he has sent."""
    world, kernel = test_uplink.WORLDS[hook.kernel.family], hook.kernel
    address = getattr(world, backend)
    local = [(address, 80)] if backend == "local_pod" else []
    kernel.service(
        world.node, 30080, [(address, 80)], local=local,
        kind=FrontendKind.NODE_PORT, protocol=Protocol(protocol),
    )  # fmt: skip
    sent = test_uplink.first(world, protocol)
    leaves = "uplink_egress"
    between = hook.kernel.run("uplink_ingress", sent, hook.ifindex).packet
    if direction == "towards the client":
        sent = hook.through(sent).packet.reply()
        leaves = "pod_egress" if local else "uplink_egress"
        ingress = "pod_ingress" if local else "uplink_ingress"
        between = hook.kernel.run(ingress, sent, hook.ifindex).packet
    told = hook(leaves, too_big(between, world.node)).packet
    assert told.valid and told.destination == sent.source
    assert ends(quotation(told)) == ends(sent)


@pytest.mark.rule("CO-21")
@pytest.mark.parametrize("where", ["pod", "uplink"])
def test_redirects_about_translated_packets_are_dropped(hook: Hook, where: str) -> None:
    """They name another way to the backend, which would be taken for one to the VIP."""
    world, kernel = test_uplink.WORLDS[hook.kernel.family], hook.kernel
    kernel.service(
        world.node, 30080, [], local=[(world.local_pod, 80)], kind=FrontendKind.NODE_PORT
    )
    sent = test_uplink.first(world)
    pod = sent.but(source=world.local_pod + "9")
    ingress, egress = f"{where}_ingress", f"{where}_egress"
    asked = sent if where == "uplink" else pod
    there = hook(ingress, asked).packet
    assert there.destination == world.local_pod
    redirected = redirect(there, world.node, world.other_pod)
    assert hook(egress, redirected).dropped
    assert kernel.count("REDIRECT") == 1
    others = redirect(there.but(destination_port=81), world.node, world.other_pod)
    assert hook(egress, others).frame == others.frame()


def redirect(about: Packet, sender: str, gateway: str) -> Packet:
    """RFC 792, RFC 4861: what a router tells the sender of a packet."""
    quoted = about.frame()[14:][:100]
    if about.version == 4:
        payload = b"\x05\x01\0\0" + packed(gateway) + quoted
        return Packet(sender, about.source, protocol=ICMP, payload=payload)
    quoted = quoted[: len(quoted) // 8 * 8]
    address = bytes([2, 1]) + bytes(6)
    option = bytes([4, 1 + len(quoted) // 8]) + bytes(6) + quoted
    payload = b"\x89\0\0\0" + bytes(4) + packed(gateway) + packed(about.destination)
    return Packet(sender, about.source, protocol=ICMPV6, payload=payload + address + option)


def test_errors_about_others_are_left_alone(hook: Hook) -> None:
    world, kernel = test_uplink.WORLDS[hook.kernel.family], hook.kernel
    kernel.service(world.node, 30080, [(world.remote_pod, 80)], kind=FrontendKind.NODE_PORT)
    about = Packet(world.node, world.client, 5000, 80)
    sent = too_big(about, ROUTER[kernel.family])
    for name in ("uplink_ingress", "uplink_egress", "pod_ingress", "pod_egress"):
        result = hook(name, sent)
        assert result.passed and result.frame == sent.frame()


def test_errors_told_to_somebody_else_are_left_alone(hook: Hook) -> None:
    """Nobody sends such: an error goes to who has sent what it quotes."""
    world, kernel = test_uplink.WORLDS[hook.kernel.family], hook.kernel
    serve_at_node_port(kernel, world, TCP)
    sent = test_uplink.first(world)
    there = hook.through(sent).packet
    for about in (there, hook.through(there.reply()).packet):
        told = too_big(about, ROUTER[kernel.family])
        assert hook("uplink_ingress", told).frame != told.frame()
        told = told.but(destination=world.other_pod)
        for name in ("uplink_ingress", "uplink_egress", "pod_ingress", "pod_egress"):
            result = hook(name, told)
            assert result.passed and result.frame == told.frame()
