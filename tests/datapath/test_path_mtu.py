"""Packets that are too big for their way: all but the node's own are the stack's affair."""

import struct
import subprocess
from collections.abc import Iterator

import pytest

from ebpf_lb.model.values import Family, Protocol
from tests.datapath.kernel import Result, only_ipv4
from tests.datapath.node import serve_at_node_port
from tests.datapath.test_icmp import ends, quotation
from tests.datapath.test_uplink import (
    Hook,
    World,
    first,
    hook,
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
    there = hook.through(sent)
    assert there.sent_on
    answer = there.packet.reply()
    assert hook.through(answer).sent_on
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


def between(sent: Packet, world: World) -> Packet:
    """What the stack is to see of a packet: it says itself what is too big."""
    if sent.destination == world.node and sent.destination_port == 30080:
        return sent.but(destination=world.remote_pod, destination_port=80)
    return sent.but(destination=world.client, destination_port=40000)


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("direction", ["towards the backend", "towards the client"])
@pytest.mark.usefixtures("narrow")
def test_what_is_too_big_is_the_stacks(
    hook: Hook, world: World, protocol: int, direction: str
) -> None:
    sent, answer = opened(hook, world, protocol)
    packet = (sent if direction == "towards the backend" else answer).but(dont_fragment=True)
    fits = hook("uplink_ingress", of_size(packet, MTU))
    assert fits.redirected == hook.xdp
    big = of_size(packet, MTU + 1)
    there = hook("uplink_ingress", big)
    assert there.passed and there.packet == between(big, world)
    assert hook.through(of_size(packet, MTU)).sent_on


@pytest.mark.usefixtures("narrow")
def test_also_the_first_packet_of_a_flow(hook: Hook, world: World) -> None:
    serve_at_node_port(hook.kernel, world, UDP)
    big = of_size(first(world, UDP).but(dont_fragment=True), 1500)
    there = hook("uplink_ingress", big)
    assert there.passed and there.packet == between(big, world)
    fits = hook.through(of_size(big, MTU))
    assert fits.sent_on and fits.packet.destination == world.remote_pod


@pytest.fixture
def narrow_route(hook: Hook, world: World) -> Iterator[None]:
    """To the backend. Locked, which is when the kernel's look-up at XDP tells of it."""
    version6 = hook.kernel.family is Family.IPV6
    route = ["ip", "-6" if version6 else "-4", "route"]
    way = ["via", "fd30::12" if version6 else "172.30.0.12"]
    subprocess.run([*route, "replace", world.remote_pod, *way, "mtu", "lock", "1350"], check=True)
    yield
    subprocess.run([*route, "del", world.remote_pod], check=True)


@pytest.mark.parametrize("begins", ["small", "big", "before the route narrows"])
def test_a_route_may_be_narrower_than_its_device(
    hook: Hook, world: World, begins: str, request: pytest.FixtureRequest
) -> None:
    """XDP leaves to the stack what is too big for either; and a flow whose way it may not keep, for
    good."""
    if begins != "before the route narrows":
        request.getfixturevalue("narrow_route")
    serve_at_node_port(hook.kernel, world, UDP)
    big = of_size(first(world, UDP).but(dont_fragment=True), 1351)
    small = first(world, UDP)
    for packet in (big, small) if begins == "big" else (small,):
        assert hook.through(packet).packet.destination == world.remote_pod
    if begins == "before the route narrows":
        request.getfixturevalue("narrow_route")
        hook.kernel.forget_ways()
    there = hook("uplink_ingress", big)
    assert there.passed and there.packet == between(big, world)
    by_xdp = hook.xdp and begins == "before the route narrows"
    assert hook("uplink_ingress", small).redirected == by_xdp


def test_the_node_itself_is_told_from_inside(hook: Hook, world: World, narrow: None) -> None:
    """Its own packet past the cgroup hooks: the answer comes in where the reply would."""
    vip = "10.96.0.20" if "." in world.node else "fd00:10:96::20"
    hook.kernel.service(vip, 80, [(world.remote_pod, 9376)], protocol=Protocol.UDP)
    big = of_size(Packet(world.node, vip, 40000, 80, UDP, dont_fragment=True), 1450)
    is_told(hook("uplink_egress", big), big, MTU)


@only_ipv4
class TestMayBeFragmented:
    """IPv4 without DF: the kernel does it between the hooks."""

    @pytest.fixture(autouse=True)
    def flow(self, hook: Hook, world: World, narrow: None) -> None:
        self.sent, self.answer = opened(hook, world, UDP)

    def test_what_is_masqueraded_afterwards(self, hook: Hook, world: World) -> None:
        big = of_size(self.sent, 1500)
        there = hook("uplink_ingress", big)
        assert there.passed and there.packet == between(big, world)
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

    def test_fragments_that_are_fragmented_again(self, hook: Hook, world: World) -> None:
        """The kernel puts them together first where it tracks connections."""
        big = of_size(self.sent, 3200)
        there = [hook("uplink_ingress", piece) for piece in split(big, 1480)]
        assert len(there) == 3 and all(piece.passed for piece in there)
        assert join(piece.frame for piece in there) == between(big, world)

    @pytest.mark.parametrize("size", [1376, 1480])
    def test_replies(self, hook: Hook, world: World, size: int) -> None:
        big = of_size(self.answer, 3200)
        back = [hook("uplink_ingress", piece) for piece in split(big, size)]
        if hook.xdp and size == 1376:  # no piece is too big: as their flow goes, past the stack
            assert all(piece.redirected for piece in back)
            restored = join(piece.frame for piece in back)
            assert restored.valid and restored.source == world.node
            assert (restored.source_port, restored.destination) == (30080, world.client)
            return
        assert all(piece.passed for piece in back)
        whole = join(piece.frame for piece in back)
        assert whole == between(big, world)
        left = [hook("uplink_egress", piece) for piece in split(whole, 1376)]
        restored = join(piece.frame for piece in left)
        assert restored.valid
        assert restored == whole.but(source=world.node, source_port=30080)
