"""Packets that are too big for the way they would be redirected to: the sender hears of it."""

import struct
import subprocess
from collections.abc import Iterator

import pytest

from ebpf_lb.model.values import Family, Protocol
from ebpf_lb.plan.forwarding import FrontendKind
from tests.datapath.kernel import Result, only_ipv4
from tests.datapath.node import serve_at_node_port
from tests.datapath.test_icmp import ends, quotation
from tests.datapath.test_pod import PROTOCOLS
from tests.datapath.test_uplink import (
    NODE2_MAC,
    ROUTER_MAC,
    Hook,
    World,
    first,
    hook,
    mac,
    uplink,
    world,
)
from tests.support.fragments import join, split
from tests.support.packets import ACK, ICMP, ICMPV6, TCP, UDP, Packet

__all__ = ["hook", "uplink", "world"]  # the fixtures

MTU = 1400


@pytest.fixture
def narrow(uplink: int) -> Iterator[None]:
    """The uplink takes less than what comes in."""
    for mtu in (MTU, 1500):
        subprocess.run(["ip", "link", "set", "up0", "mtu", str(mtu)], check=True)
        if mtu == MTU:
            yield


def of_size(packet: Packet, size: int) -> Packet:
    """With so much payload that the IP packet has this many bytes."""
    return packet.but(payload=bytes(size - len(packet.but(payload=b"").frame()) + 14))


def opened(hook: Hook, world: World, protocol: int) -> tuple[Packet, Packet]:
    """An established flow to another node: a client's packet, and the backend's."""
    serve_at_node_port(hook.kernel, world, protocol)
    sent = first(world, protocol)
    there = hook("uplink_ingress", sent)
    assert there.redirected
    answer = there.packet.reply()
    assert hook("uplink_ingress", answer).redirected
    return (sent.but(flags=ACK), answer.but(flags=ACK)) if protocol == TCP else (sent, answer)


def is_told(result: Result, big: Packet, mtu: int) -> None:
    """The sender's own packet is quoted, with the size that would have passed."""
    told = result.packet
    assert result.redirected and told.valid
    assert (told.source, told.destination) == (big.destination, big.source)
    assert (told.source_mac, told.destination_mac) == (big.destination_mac, big.source_mac)
    if told.version == 4:
        assert told.protocol == ICMP
        assert struct.unpack("!BBxxHH", told.payload[:8]) == (3, 4, 0, mtu)
    else:
        assert told.protocol == ICMPV6
        assert struct.unpack("!BBxxI", told.payload[:8]) == (2, 0, mtu)
    quoted = quotation(told)
    assert ends(quoted) == ends(big)
    if big.protocol == TCP:
        assert quoted.sequence == big.sequence


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("direction", ["towards the backend", "towards the client"])
@pytest.mark.usefixtures("narrow")
def test_the_sender_is_told(hook: Hook, world: World, protocol: int, direction: str) -> None:
    sent, answer = opened(hook, world, protocol)
    packet = (sent if direction == "towards the backend" else answer).but(dont_fragment=True)
    fits = hook("uplink_ingress", of_size(packet, MTU))
    assert fits.redirected and fits.packet.protocol == protocol
    big = of_size(packet, MTU + 1)
    is_told(hook("uplink_ingress", big), big, MTU)
    assert hook.kernel.count("TOO_BIG") == 1


@pytest.mark.usefixtures("narrow")
def test_also_of_the_first_packet_of_a_flow(hook: Hook, world: World) -> None:
    serve_at_node_port(hook.kernel, world, UDP)
    big = of_size(first(world, UDP).but(dont_fragment=True), 1500)
    is_told(hook("uplink_ingress", big), big, MTU)
    fits = hook("uplink_ingress", of_size(big, MTU))
    assert fits.redirected and fits.packet.destination == world.remote_pod


@pytest.mark.usefixtures("narrow")
def test_joined_packets_are_judged_one_by_one(hook: Hook, world: World) -> None:
    """Offloads have made one of several: what counts is what will be on the wire."""
    sent, _ = opened(hook, world, TCP)
    headers = len(sent.frame()) - 14
    joined = of_size(sent.but(dont_fragment=True), 2700)
    fits = hook("uplink_ingress", joined, MTU - headers)
    assert fits.redirected and fits.packet.destination == world.remote_pod
    is_told(hook("uplink_ingress", joined, MTU - headers + 1), joined, MTU)


@pytest.fixture
def narrow_route(hook: Hook, world: World) -> Iterator[None]:
    """To the backend. Locked, which is when the kernel's forwarding looks at it."""
    version6 = hook.kernel.family is Family.IPV6
    route = ["ip", "-6" if version6 else "-4", "route"]
    way = ["via", "fd30::12" if version6 else "172.30.0.12"]
    subprocess.run([*route, "replace", world.remote_pod, *way, "mtu", "lock", "1350"], check=True)
    yield
    subprocess.run([*route, "del", world.remote_pod], check=True)


def test_a_route_may_be_narrower_than_its_device(
    hook: Hook, world: World, narrow_route: None
) -> None:
    sent, _ = opened(hook, world, UDP)
    small = hook("uplink_ingress", sent)
    assert small.redirected and small.packet.destination_mac == mac(NODE2_MAC)
    big = of_size(sent.but(dont_fragment=True), 1351)
    is_told(hook("uplink_ingress", big), big, 1350)


def test_also_of_a_flow_that_begins_with_too_much(
    hook: Hook, world: World, narrow_route: None
) -> None:
    serve_at_node_port(hook.kernel, world, UDP)
    big = of_size(first(world, UDP).but(dont_fragment=True), 1351)
    is_told(hook("uplink_ingress", big), big, 1350)
    small = hook("uplink_ingress", first(world, UDP))
    assert small.redirected and small.packet.destination_mac == mac(NODE2_MAC)


def test_a_route_that_has_become_narrow(
    hook: Hook, world: World, request: pytest.FixtureRequest
) -> None:
    sent, _ = opened(hook, world, UDP)
    request.getfixturevalue("narrow_route")
    hook.kernel.forget_ways()
    big = of_size(sent.but(dont_fragment=True), 1351)
    is_told(hook("uplink_ingress", big), big, 1350)


def test_an_ipv6_link_takes_1280(hook: Hook, world: World) -> None:
    """A smaller one has no IPv6, so its senders need not believe in less (RFC 8201)."""
    sent, _ = opened(hook, world, UDP)
    version6 = hook.kernel.family is Family.IPV6
    flag, gateway = ("-6", "fd30::12") if version6 else ("-4", "172.30.0.12")
    route = ["ip", flag, "route", "replace", world.remote_pod, "via", gateway]
    subprocess.run([*route, "mtu", "lock", "1000"], check=True)
    try:
        hook.kernel.forget_ways()
        big = of_size(sent.but(dont_fragment=True), 1500)
        is_told(hook("uplink_ingress", big), big, 1280 if version6 else 1000)
    finally:
        subprocess.run(["ip", flag, "route", "del", world.remote_pod], check=True)


def test_the_node_itself_is_told_from_inside(hook: Hook, world: World, narrow: None) -> None:
    """Its own packet past the cgroup hooks: the answer comes in where the reply would."""
    vip = "10.96.0.20" if "." in world.node else "fd00:10:96::20"
    hook.kernel.service(vip, 80, [(world.remote_pod, 9376)], protocol=Protocol.UDP)
    big = of_size(Packet(world.node, vip, 40000, 80, UDP, dont_fragment=True), 1450)
    is_told(hook("uplink_egress", big), big, MTU)


def test_a_reset_that_is_too_big_is_no_cause_for_an_answer(
    hook: Hook, world: World, narrow: None
) -> None:
    sent, _ = opened(hook, world, TCP)
    assert hook("uplink_ingress", of_size(sent.but(flags=4, dont_fragment=True), 1450)).dropped
    assert hook.kernel.count("UNANSWERABLE") == 1


@only_ipv4
class TestMayBeFragmented:
    """IPv4 without DF: only the kernel can do it, and to it the packet must not seem the node's."""

    @pytest.fixture(autouse=True)
    def flow(self, hook: Hook, world: World, narrow: None) -> None:
        self.sent, self.answer = opened(hook, world, UDP)

    def test_the_kernel_fragments_what_is_masqueraded_afterwards(
        self, hook: Hook, world: World
    ) -> None:
        big = of_size(self.sent, 1500)
        there = hook("uplink_ingress", big)
        assert there.passed and there.packet.valid
        assert there.packet == big.but(destination=world.remote_pod, destination_port=80)
        pieces = split(there.packet.but(ttl=big.ttl - 1), 1376)
        assert len(pieces) == 2
        out = [hook("uplink_egress", piece) for piece in pieces]
        assert all(piece.passed for piece in out)
        whole = join(piece.frame for piece in out)
        assert whole.valid
        assert whole == big.but(
            source=world.node,
            destination=world.remote_pod,
            destination_port=80,
            ttl=big.ttl - 1,
            identification=whole.identification,
        )
        assert hook.kernel.count("TOO_BIG") == 0

    def test_if_the_first_fragment_does_not_fit_all_go_that_way(
        self, hook: Hook, world: World
    ) -> None:
        """The kernel puts them together first where it tracks connections."""
        big = of_size(self.sent, 3200)
        there = [hook("uplink_ingress", piece) for piece in split(big, 1480)]
        assert len(there) == 3 and all(piece.passed for piece in there)
        assert join(piece.frame for piece in there) == big.but(
            destination=world.remote_pod, destination_port=80
        )

    def test_if_all_fit_none_does(self, hook: Hook, world: World) -> None:
        big = of_size(self.sent, 3200)
        there = [hook("uplink_ingress", piece) for piece in split(big, 1376)]
        assert all(piece.redirected for piece in there)
        assert join(piece.frame for piece in there).source == world.node

    def test_the_kernel_fragments_replies_too(self, hook: Hook, world: World) -> None:
        """To it they come in from the node itself, which only loopback takes."""
        big = of_size(self.answer, 1500)
        back = hook("uplink_ingress", big)
        assert back.redirected and back.packet.valid
        assert back.packet == big.but(
            source=world.node,
            source_port=30080,
            destination=world.client,
            destination_port=self.sent.source_port,
            source_mac=bytes(6),
            destination_mac=bytes(6),
        )
        for piece in split(back.packet.but(ttl=big.ttl - 1), 1376):
            left = hook("uplink_egress", piece)
            assert left.passed and left.frame == piece
        assert hook.kernel.count("TOO_BIG") == 0

    @pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.name)
    def test_replies_of_an_address_behind_the_uplink(
        self, hook: Hook, world: World, protocol: Protocol
    ) -> None:
        """A strict reverse-path filter takes them where they are."""
        hook.kernel.service(
            "203.0.113.5",
            80,
            [(world.remote_pod, 8080)],
            kind=FrontendKind.LOAD_BALANCER,
            protocol=protocol,
        )
        sent = first(world, int(protocol)).but(destination="203.0.113.5", destination_port=80)
        big = of_size(hook("uplink_ingress", sent).packet.reply(), 1500)
        back = hook("uplink_ingress", big)
        assert back.passed and back.packet.valid
        assert back.packet == big.but(
            source="203.0.113.5",
            source_port=80,
            destination=world.client,
            destination_port=sent.source_port,
        )

    def test_if_the_first_fragment_of_a_reply_does_not_fit_all_go_that_way(
        self, hook: Hook, world: World
    ) -> None:
        big = of_size(self.answer, 3200)
        back = [hook("uplink_ingress", piece) for piece in split(big, 1480)]
        assert len(back) == 3 and all(piece.redirected for piece in back)
        assert {piece.packet.destination_mac for piece in back} == {bytes(6)}
        whole = join(piece.frame for piece in back)
        assert whole.valid and (whole.source, whole.destination) == (world.node, world.client)

    def test_if_all_fragments_of_a_reply_fit_none_does(self, hook: Hook, world: World) -> None:
        back = [hook("uplink_ingress", piece) for piece in split(of_size(self.answer, 3200), 1376)]
        assert all(piece.redirected for piece in back)
        assert {piece.packet.destination_mac for piece in back} == {mac(ROUTER_MAC)}
        assert join(piece.frame for piece in back).source == world.node
