"""XDP by itself: what it must send on or drop, and that it leaves everything else as it found it.

That its results are TC's is shown by the uplink's tests, which run with and without it.
"""

import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ebpf_lb.datapath.clock import ticks_per_second
from ebpf_lb.model.values import Family, Protocol, parse_network
from ebpf_lb.plan.forwarding import FrontendFlag, FrontendKind
from tests.datapath.kernel import XDP_DROP, XDP_PASS, XDP_TX, Kernel, Result
from tests.datapath.node import (
    NODE2_MAC,
    NODE_MAC,
    ROUTER_MAC,
    STACK,
    WORLDS,
    World,
    entered_node,
    own_socket,
)
from tests.datapath.words import GENERATION, OF_XDP, TIME
from tests.support.packets import ACK, FIN, ICMP, ICMPV6, RST, SCTP, SYN, TCP, UDP, Packet, packed
from tests.support.packets import too_big as error_about

NODE_PORT = FrontendKind.NODE_PORT
LOAD_BALANCER = FrontendKind.LOAD_BALANCER
PAUSE_S = 1.5 / ticks_per_second()  # longer than a tick


@pytest.fixture(scope="module")
def uplink() -> Iterator[int]:
    with entered_node() as ifindex:
        yield ifindex


@dataclass(frozen=True)
class Uplink:
    """Both places where a packet that comes in by the uplink is looked at."""

    kernel: Kernel
    ifindex: int

    def xdp(self, packet: Packet | bytes) -> Result:
        return self.kernel.run_xdp(packet, self.ifindex)

    def tc(self, packet: Packet | bytes) -> Result:
        return self.kernel.run("uplink_ingress", packet, self.ifindex)

    def by_stack(self, packet: Packet | bytes) -> Result:
        """The whole way through the node where XDP is off."""
        return self._through(packet, xdp=False)

    def through(self, packet: Packet | bytes, *, xdp: bool) -> Result:
        """Likewise, with XDP before TC or without."""
        return self._through(packet, xdp=xdp)

    def _through(self, packet: Packet | bytes, *, xdp: bool) -> Result:
        def run(name: str, one: Packet | bytes) -> Result:
            if name == "uplink_ingress":
                return self.kernel.run_uplink(one, self.ifindex, xdp=xdp)
            return self.kernel.run(name, one, self.ifindex)

        return STACK.through(run, "uplink_ingress", packet)

    def passes(self, frame: Packet | bytes) -> None:
        """To TC, and without a trace."""
        frame = frame if isinstance(frame, bytes) else frame.frame()
        counted, flows = self.kernel.counters(), self.kernel.flows()
        assert self.kernel.run_xdp_frame(frame, self.ifindex) == (XDP_PASS, frame)
        assert (self.kernel.counters(), self.kernel.flows()) == (counted, flows)


@pytest.fixture
def at(kernel: Kernel, uplink: int) -> Uplink:
    kernel.writer.set_interface(uplink, 0, 1, mac(NODE_MAC))
    cidr = "10.244.0.0/16" if kernel.family is Family.IPV4 else "fd00:10:244::/48"
    kernel.writer.set_pod_networks([parse_network(cidr)])
    return Uplink(kernel, uplink)


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


def serve(at: Uplink, world: World, protocol: int = TCP, port: int = 30080) -> None:
    """A NodePort whose one backend is on another node, at the same port."""
    backends = [(world.remote_pod, port)]
    at.kernel.service(world.node, port, backends, protocol=Protocol(protocol), kind=NODE_PORT)


def first(world: World, protocol: int = TCP, source_port: int = 40000) -> Packet:
    payload = {TCP: b"", UDP: b"hello", SCTP: bytes([1, 0, 0, 4] * 5)}[protocol]
    return Packet(world.client, world.node, source_port, 30080, protocol, payload=payload)


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
def test_there_and_back_without_the_stack(at: Uplink, world: World, protocol: int) -> None:
    serve(at, world, protocol)
    sent = first(world, protocol)
    for packet in (sent, sent.but(flags=ACK)):
        there = at.xdp(packet)
        assert there.verdict == XDP_TX and there.packet.valid
        assert there.packet == packet.but(
            source=world.node,
            destination=world.remote_pod,
            ttl=62,
            source_mac=mac(NODE_MAC),
            destination_mac=mac(NODE2_MAC),
        )
    answer = there.packet.reply(ttl=62)
    for packet in (answer, answer.but(flags=ACK | FIN)):
        back = at.xdp(packet)
        assert back.verdict == XDP_TX and back.packet.valid
        assert back.packet == packet.but(
            source=world.node,
            destination=world.client,
            ttl=61,
            source_mac=mac(NODE_MAC),
            destination_mac=mac(ROUTER_MAC),
        )
    assert at.kernel.counters() == {
        "NEW": 1, "ESTABLISHED": 2, "REPLY": 2, "MASQUERADED": 4, "XDP": 4
    }  # fmt: skip


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_to_another_port(at: Uplink, world: World, protocol: int) -> None:
    at.kernel.service(
        world.node, 30080, [(world.remote_pod, 80)], protocol=Protocol(protocol), kind=NODE_PORT
    )
    there = at.xdp(first(world, protocol))
    assert there.verdict == XDP_TX and there.packet.valid and there.packet.destination_port == 80
    back = at.xdp(there.packet.reply())
    assert back.verdict == XDP_TX and back.packet.valid and back.packet.source_port == 30080


class TestWithTc:
    """One connection table, and a flow goes for life as it began: through the stack, or past it.
    The kernel's connection tracking would take half a connection for another one, or for none."""

    @pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
    def test_a_flow_begun_at_tc_stays_there(self, at: Uplink, world: World, protocol: int) -> None:
        serve(at, world, protocol)
        there = at.by_stack(first(world, protocol))
        assert there.passed
        at.passes(first(world, protocol))
        at.passes(there.packet.reply())
        assert at.by_stack(there.packet.reply()).passed
        assert at.kernel.count("NEW") == 1

    @pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
    def test_a_flow_begun_at_xdp_goes_on_at_tc(
        self, at: Uplink, world: World, protocol: int
    ) -> None:
        serve(at, world, protocol)
        there = at.xdp(first(world, protocol))
        assert there.verdict == XDP_TX
        again = at.tc(first(world, protocol))
        assert again.redirected and again.frame == there.frame
        back = at.tc(there.packet.reply())
        assert back.redirected and back.packet.valid
        assert back.frame == at.xdp(there.packet.reply()).frame
        assert back.packet.source == world.node and back.packet.destination == world.client
        assert at.kernel.count("NEW") == 1

    def test_fragments_of_a_flow_begun_at_xdp(self, at: Uplink, world: World) -> None:
        serve(at, world, UDP)
        there = at.xdp(first(world, UDP))
        for sent in (first(world, UDP), there.packet.reply()):
            for offset, more in ((0, True), (800, False)):
                got = at.tc(sent.but(payload=bytes(800), fragment=(offset, more)))
                assert got.redirected and got.packet.ttl == sent.ttl - 1
                ends = {got.packet.source, got.packet.destination}
                assert ends in ({world.node, world.remote_pod}, {world.node, world.client})

    def test_an_error_about_a_flow_begun_at_xdp(self, at: Uplink, world: World) -> None:
        """Connection tracking would call it invalid: it knows no packet of the flow."""
        serve(at, world)
        there = at.xdp(first(world))
        back = at.xdp(there.packet.reply())
        router = "172.30.0.1" if at.kernel.family is Family.IPV4 else "fd30::1"
        for about, hearer in ((there, world.client), (back, world.remote_pod)):
            got = at.tc(error_about(about.packet, router))
            assert got.redirected and got.packet.valid
            assert (got.packet.source, got.packet.destination) == (router, hearer)

    def test_what_must_be_answered_takes_the_stack(self, at: Uplink, world: World) -> None:
        serve(at, world)
        assert at.xdp(first(world)).verdict == XDP_TX
        for other in ({"ttl": 1}, {"payload": bytes(1600)}):
            got = at.tc(first(world).but(flags=ACK, **other))
            assert got.passed
            ends = (got.packet.source, got.packet.destination)
            assert ends == (world.client, world.remote_pod)

    def states(self, at: Uplink) -> list[tuple[int, object]]:
        """Of all flows, without the time, the Service's number, the count of tenants, and whether
        the flow goes past the stack."""
        kept = ~(TIME | 0xFFFF << 32 | GENERATION | OF_XDP)
        return sorted((word & kept, entry[1:]) for word, entry in at.kernel.flows())  # type: ignore[index]

    @pytest.mark.parametrize("last", [ACK | FIN, RST])
    @pytest.mark.parametrize("protocol", [TCP, UDP])
    def test_the_same_bytes_counters_and_states(
        self, at: Uplink, world: World, protocol: int, last: int
    ) -> None:
        """Of frames of many kinds, until the connections end."""
        serve(at, world, protocol)
        start = first(world, protocol, 1024)
        there = [start, start.but(udp_checksum=False)]
        if at.kernel.family is Family.IPV4:
            there.append(start.but(options=b"\x01\x01\x01\x00"))
        else:
            there.append(start.but(extensions=((60, bytes([protocol, 0, 1, 4, 0, 0, 0, 0])),)))
        there += [
            first(world, protocol, port).but(payload=bytes(range(length)), flags=flags, ttl=ttl)
            for port in (1024, 40000, 65535)
            for flags in (SYN, ACK, last)
            for length, ttl in ((0, 64), (1, 2), (7, 1), (200, 255))
        ]

        outcomes = []
        for xdp in (False, True):
            at.kernel.reset()
            at.kernel.writer.set_interface(at.ifindex, 0, 1, mac(NODE_MAC))
            serve(at, world, protocol)
            sent = [at.through(one, xdp=xdp) for one in there]
            back = [at.through(one.packet.reply(), xdp=xdp) for one in sent]
            assert all(one.sent_on for one in (*sent, *back))
            counted = at.kernel.counters()
            on_their_way = counted.pop("XDP", 0)
            outcomes.append(([one.frame for one in (*sent, *back)], counted, self.states(at)))
            assert on_their_way == sum(one.redirected for one in (*sent, *back))
            assert (on_their_way > 0) == xdp
        assert outcomes[0] == outcomes[1]

    @pytest.mark.rule("CO-25")
    def test_udp_whose_checksum_comes_out_as_zero(self, at: Uplink, world: World) -> None:
        """It is sent as 0xffff: 0 would say that there is none (RFC 768)."""
        serve(at, world, UDP)
        there = at.xdp(first(world, UDP).but(payload=b"\0\0")).frame
        field = there[14 + (20 if at.kernel.family is Family.IPV4 else 40) + 6 :][:2]
        zero = at.xdp(first(world, UDP).but(payload=field)).frame
        assert zero[len(there) - 4 : len(there) - 2] == b"\xff\xff"

    def test_a_way_that_changed_is_left_to_tc(self, at: Uplink, world: World) -> None:
        """And TC must hear that it is time to ask for it anew."""
        serve(at, world)
        assert at.xdp(first(world)).verdict == XDP_TX
        time.sleep(PAUSE_S)
        family = "-4" if at.kernel.family is Family.IPV4 else "-6"
        hop = "172.30.0.77" if at.kernel.family is Family.IPV4 else "fd30::77"
        route = ["ip", family, "route", "replace", world.remote_pod, "via", hop, "dev", "up0"]
        subprocess.run(route, check=True)
        try:
            at.passes(first(world).but(flags=ACK))  # its neighbour is not known
            got = at.tc(first(world).but(flags=ACK))
            assert got.redirected and got.packet.destination == world.remote_pod
        finally:
            subprocess.run(["ip", family, "route", "del", world.remote_pod], check=True)
        time.sleep(PAUSE_S)
        assert at.xdp(first(world).but(flags=ACK)).verdict == XDP_TX


def test_what_is_to_be_dropped_ends_here(at: Uplink, world: World) -> None:
    kernel = at.kernel
    kernel.service(
        world.node, 30080, [(world.remote_pod, 80)], kind=NODE_PORT, flags=FrontendFlag.LOCAL
    )
    kernel.service(
        world.node,
        30081,
        [(world.remote_pod, 80)],
        kind=LOAD_BALANCER,
        flags=FrontendFlag.SOURCE_RANGES,
        source_ranges=[parse_network("203.0.113.0/24" if "." in world.node else "2001:db8:9::/48")],
    )
    for port in (30080, 30081):
        sent = first(world).but(destination_port=port)
        got = at.xdp(sent)
        assert got.verdict == XDP_DROP and got.packet == sent
    assert kernel.counters() == {"NO_LOCAL_ENDPOINTS": 1, "SOURCE_RANGE": 1}
    assert not kernel.flows()


class TestLeftToTc:
    """Passed, with every byte as it was, nothing counted and no flow changed."""

    def test_what_is_no_services(self, at: Uplink, world: World) -> None:
        serve(at, world)
        at.passes(first(world).but(destination=world.local_pod))
        at.passes(first(world).but(destination_port=22))
        at.passes(first(world, UDP))

    def test_backends_on_this_node(self, at: Uplink, world: World) -> None:
        at.kernel.service(world.node, 30080, [], local=[(world.local_pod, 80)], kind=NODE_PORT)
        at.passes(first(world))
        there = at.tc(first(world))
        assert there.passed and there.packet.destination == world.local_pod
        at.passes(first(world).but(flags=ACK))

    def test_refusals(self, at: Uplink, world: World) -> None:
        at.kernel.service(world.node, 30080, [], kind=NODE_PORT)
        at.passes(first(world))
        assert at.tc(first(world)).packet.flags == RST | ACK

    def test_sctp_whose_ports_change(self, at: Uplink, world: World) -> None:
        """Its checksum is TC's business. The flow begins there."""
        at.kernel.service(
            world.node, 30080, [(world.remote_pod, 80)], protocol=Protocol.SCTP, kind=NODE_PORT
        )
        sent = first(world, SCTP)
        got = at.xdp(sent)
        assert got.verdict == XDP_PASS and got.frame == sent.frame()
        there = at.by_stack(sent)
        assert there.passed and there.packet.valid and there.packet.destination_port == 80
        at.passes(sent)
        at.passes(there.packet.reply())
        assert at.kernel.count("NEW") == 1

    def test_fragments_and_errors(self, at: Uplink, world: World) -> None:
        serve(at, world, UDP)
        there = at.xdp(first(world, UDP))
        big = first(world, UDP).but(payload=bytes(800))
        for offset, more in ((0, True), (800, False)):
            at.passes(big.but(fragment=(offset, more)))
        router = "172.30.0.1" if at.kernel.family is Family.IPV4 else "fd30::1"
        at.passes(error_about(there.packet, router))
        echo = ICMP if at.kernel.family is Family.IPV4 else ICMPV6
        kind = 8 if at.kernel.family is Family.IPV4 else 128
        at.passes(
            Packet(world.client, world.node, protocol=echo, payload=bytes([kind, 0]) + bytes(14))
        )

    def test_other_frames(self, at: Uplink, world: World) -> None:
        serve(at, world)
        frame = first(world).frame()
        at.passes(frame[:12] + bytes.fromhex("81000005") + frame[12:])  # VLAN
        at.passes(frame[:12] + bytes.fromhex("0806") + frame[14:])  # ARP
        at.passes(frame[:12] + bytes.fromhex("88b5") + bytes(range(46)))  # an experiment
        for length in (14, 20, 33, 34, 53, 54, 60):
            if length < len(frame):
                at.passes(frame[:length])

    @pytest.mark.parametrize("protocol", [TCP, UDP])
    def test_checksums_that_a_device_is_to_complete(
        self, at: Uplink, world: World, protocol: int
    ) -> None:
        """A virtual device hands over such packets: their field is the pseudo-header's sum."""
        serve(at, world, protocol)
        at.passes(partial(first(world, protocol)))
        there = at.xdp(first(world, protocol))
        at.passes(partial(first(world, protocol).but(flags=ACK)))
        at.passes(partial(there.packet.reply()))

    def test_sctp_checksums_that_a_device_is_to_compute(self, at: Uplink, world: World) -> None:
        serve(at, world, SCTP)
        frame = bytearray(first(world, SCTP).frame())
        at_ = 14 + (20 if at.kernel.family is Family.IPV4 else 40) + 8
        frame[at_ : at_ + 4] = bytes(4)
        at.passes(bytes(frame))

    def test_too_big_for_the_way_out(self, at: Uplink, world: World) -> None:
        serve(at, world)
        assert at.xdp(first(world)).verdict == XDP_TX
        at.passes(first(world).but(flags=ACK, payload=bytes(1600)))
        assert at.xdp(first(world).but(flags=ACK, payload=bytes(1400))).verdict == XDP_TX

    def test_replies_to_the_nodes_own_connection(self, at: Uplink, world: World) -> None:
        """It took a port that a masqueraded flow has, so it is masqueraded itself."""
        serve(at, world, UDP)
        there = at.xdp(first(world, UDP))
        own = Packet(world.node, world.remote_pod, 40000, 30080, UDP)
        with own_socket(world, UDP, own.source_port, own.destination_port):
            asked = at.kernel.run("uplink_egress", own, at.ifindex)
            assert asked.passed and asked.packet.source_port != own.source_port
            at.passes(asked.packet.reply())
            assert at.xdp(there.packet.reply()).verdict == XDP_TX


def partial(packet: Packet) -> bytes:
    """The frame as a local stack hands it to a device that completes checksums."""
    frame = bytearray(packet.frame())
    start = 14 + (20 if packet.version == 4 else 40)
    length = len(frame) - start
    pseudo = packed(packet.source) + packed(packet.destination)
    pseudo += struct.pack("!HH", length, packet.protocol)
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    field = start + (16 if packet.protocol == TCP else 6)
    frame[field : field + 2] = struct.pack("!H", total)
    return bytes(frame)


def test_the_counters_of_a_service(at: Uplink, world: World) -> None:
    service = at.kernel.service(world.node, 30080, [(world.remote_pod, 80)], kind=NODE_PORT)
    sent = first(world)
    there = at.xdp(sent)
    at.xdp(there.packet.reply())
    size = len(sent.frame()) - 14
    assert at.kernel.connections(service) == (1, 2, 2 * size)
    assert Counter(at.kernel.counters())["XDP"] == 2
