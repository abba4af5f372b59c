"""Devices without an Ethernet header (WireGuard, IP-in-IP, tun) as uplinks: real packets by a tun
device, whose TC hooks see what those of the others do."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from ebpf_lb.datapath.loader import ensure_layer_3
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.model.values import Family, Protocol
from ebpf_lb.plan.forwarding import FrontendFlag, FrontendKind
from tests.capabilities import DATAPATH, RAW_SOCKETS, TUN, needs
from tests.datapath import layer3
from tests.datapath.conftest import SETTINGS
from tests.datapath.kernel import Kernel, only_ipv4
from tests.datapath.layer3 import BEYOND, MTU, POD, TUNNEL, UPLINK, Node
from tests.datapath.test_icmp import ends, quotation
from tests.datapath.test_node import OTHER_NODE_MAC, POD_MAC, ROUTER_MAC, UPLINK_MAC, WORLDS, World
from tests.support.fragments import join, split
from tests.support.packets import ACK, ICMP, ICMPV6, RST, TCP, UDP, Packet, parse, too_big

pytestmark = needs(*DATAPATH, RAW_SOCKETS, TUN)

NODE_PORT, CLUSTER_IP = FrontendKind.NODE_PORT, FrontendKind.CLUSTER_IP
PAYLOAD = bytes([1, 0, 0, 4] * 5)  # a chunk, for SCTP
each_protocol = pytest.mark.parametrize("protocol", list(Protocol), ids=lambda p: p.name)


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


NO_MACS = {"source_mac": bytes(6), "destination_mac": bytes(6)}
TO_ROUTER = {"source_mac": mac(UPLINK_MAC), "destination_mac": mac(ROUTER_MAC)}
TO_OTHER_NODE = {"source_mac": mac(UPLINK_MAC), "destination_mac": mac(OTHER_NODE_MAC)}


@pytest.fixture(scope="module")
def _node(loaded_root: Path) -> Iterator[Node]:
    ensure_layer_3(Pins(loaded_root).build(Pins(loaded_root).current.path.resolve().name), SETTINGS)
    with layer3.node(loaded_root) as made:
        yield made


@pytest.fixture
def node(_node: Node, kernel: Kernel, world: World) -> Node:
    layer3.set_up(kernel, _node, world)
    return _node


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


@pytest.fixture
def beyond(kernel: Kernel) -> str:
    return BEYOND[kernel.family]


def asked(client: str, world: World, protocol: int = TCP, **changes: object) -> Packet:
    """A client's packet to the node's port."""
    sent = Packet(client, world.node, 40000, 30080, protocol, payload=PAYLOAD, **NO_MACS)
    return sent.but(**changes)


def serve(kernel: Kernel, world: World, backend: str, protocol: int, *, here: bool = False) -> None:
    backends = [(backend, 9376)]
    kernel.service(
        world.node,
        30080,
        [] if here else backends,
        local=backends if here else [],
        kind=NODE_PORT,
        protocol=Protocol(protocol),
    )


def only(found: list[tuple[str, Packet]], where: str) -> Packet:
    """The one packet that left there, whole."""
    assert [place for place, _ in found] == [where], found
    assert found[0][1].valid
    return found[0][1]


def to_backend(sent: Packet, source: str, backend: str, **changes: object) -> Packet:
    """One hop older, masqueraded as `source` with its own port."""
    return sent.but(
        source=source, destination=backend, destination_port=9376, ttl=sent.ttl - 1, **changes
    )


class TestClientsBeyondTheTunnel:
    @each_protocol
    def test_backend_at_the_uplink(
        self, kernel: Kernel, node: Node, world: World, beyond: str, protocol: Protocol
    ) -> None:
        """A link header is made, and taken off again on the way back."""
        serve(kernel, world, world.routed_pod, protocol)
        for sent in (asked(beyond, world, protocol), asked(beyond, world, protocol, flags=ACK)):
            there = only(node.by(TUNNEL, sent), UPLINK)
            assert there == to_backend(sent, world.node, world.routed_pod, **TO_OTHER_NODE)
            answer = there.reply()
            back = only(node.by(UPLINK, answer), TUNNEL)
            assert back == sent.reply(flags=answer.flags, ttl=answer.ttl - 1)
        assert kernel.count("NEW") == 1

    @each_protocol
    def test_backend_beyond_it_too(
        self, kernel: Kernel, node: Node, world: World, beyond: str, protocol: Protocol
    ) -> None:
        serve(kernel, world, world.far_pod, protocol)
        for sent in (asked(beyond, world, protocol), asked(beyond, world, protocol, flags=ACK)):
            there = only(node.by(TUNNEL, sent), TUNNEL)
            assert there == to_backend(sent, world.tunnel, world.far_pod)
            answer = there.reply()
            back = only(node.by(TUNNEL, answer), TUNNEL)
            assert back == sent.reply(flags=answer.flags, ttl=answer.ttl - 1)

    @each_protocol
    def test_backend_here(
        self, kernel: Kernel, node: Node, world: World, beyond: str, protocol: Protocol
    ) -> None:
        """The pod sees the client; the reply gets the node's address where it leaves."""
        serve(kernel, world, world.pod, protocol, here=True)
        sent = asked(beyond, world, protocol)
        there = only(node.by(TUNNEL, sent), POD)
        assert there.destination_mac == mac(POD_MAC)
        assert there.but(**NO_MACS) == to_backend(sent, beyond, world.pod)
        answer = there.reply()
        back = only(node.by(POD, answer), TUNNEL)
        assert back == sent.reply(flags=answer.flags, ttl=answer.ttl - 1)

    @each_protocol
    def test_refusals(
        self, kernel: Kernel, node: Node, world: World, beyond: str, protocol: Protocol
    ) -> None:
        kernel.service(world.node, 30080, [], kind=NODE_PORT, protocol=protocol)
        sent = asked(beyond, world, protocol)
        refusal = only(node.by(TUNNEL, sent), TUNNEL)
        assert (refusal.source, refusal.destination) == (world.node, beyond)
        if protocol is Protocol.TCP:
            assert refusal.flags == RST | ACK
            assert refusal.acknowledged == sent.sequence + 1 + len(PAYLOAD)
        else:
            version6 = kernel.family is Family.IPV6
            assert refusal.protocol == (ICMPV6 if version6 else ICMP)
            assert refusal.payload[:2] == (b"\x01\x04" if version6 else b"\x03\x03")
            assert ends(quotation(refusal)) == ends(sent)

    def test_local_policy_without_endpoint_here(
        self, kernel: Kernel, node: Node, world: World, beyond: str
    ) -> None:
        kernel.service(
            world.node, 30080, [(world.routed_pod, 9376)], kind=NODE_PORT, flags=FrontendFlag.LOCAL
        )
        assert node.by(TUNNEL, asked(beyond, world), expected=0) == []

    def test_fragments(self, kernel: Kernel, node: Node, world: World, beyond: str) -> None:
        serve(kernel, world, world.routed_pod, UDP)
        sent = asked(beyond, world, UDP, payload=bytes(range(256)) * 16)
        there = node.frames_by(TUNNEL, *split(sent, 1376), expected=3)
        assert [where for where, _ in there] == [UPLINK] * 3
        whole = join(frame for _, frame in there)
        assert whole.valid and whole == to_backend(
            sent, world.node, world.routed_pod, identification=whole.identification,
            **TO_OTHER_NODE,
        )  # fmt: skip
        answer = whole.reply()
        back = node.frames_by(UPLINK, *split(answer, 1344), expected=4)
        assert [where for where, _ in back] == [TUNNEL] * 4
        whole = join(frame for _, frame in back)
        assert whole.valid and ends(whole) == ends(sent.reply())

    def test_too_big_for_the_uplink(
        self, kernel: Kernel, node: Node, world: World, beyond: str
    ) -> None:
        serve(kernel, world, world.routed_pod, UDP)
        sent = asked(beyond, world, UDP, payload=bytes(1330), dont_fragment=True)
        node.place.ip("link set up0 mtu 1300")
        try:
            told = only(node.by(TUNNEL, sent), TUNNEL)
        finally:
            node.place.ip("link set up0 mtu 1500")
        is_told(told, sent, 1300)

    def test_hops_that_end_here(
        self, kernel: Kernel, node: Node, world: World, beyond: str
    ) -> None:
        """The client's traceroute hears of it."""
        serve(kernel, world, world.routed_pod, UDP)
        sent = asked(beyond, world, UDP)
        only(node.by(TUNNEL, sent), UPLINK)
        told = only(node.by(TUNNEL, sent.but(ttl=1)), TUNNEL)
        assert told.payload[:2] == (b"\x0b\x00" if told.version == 4 else b"\x03\x00")
        assert ends(quotation(told)) == ends(sent)

    def test_errors_about_what_was_sent_on(
        self, kernel: Kernel, node: Node, world: World, beyond: str
    ) -> None:
        serve(kernel, world, world.routed_pod, TCP)
        sent = asked(beyond, world)
        there = only(node.by(TUNNEL, sent), UPLINK)
        error = only(node.by(UPLINK, too_big(there, world.router)), TUNNEL)
        assert (error.source, error.destination) == (world.router, beyond)
        assert ends(quotation(error)) == ends(sent)

    def test_errors_about_replies(
        self, kernel: Kernel, node: Node, world: World, beyond: str
    ) -> None:
        serve(kernel, world, world.routed_pod, TCP)
        answer = only(node.by(TUNNEL, asked(beyond, world)), UPLINK).reply()
        back = only(node.by(UPLINK, answer), TUNNEL)
        error = only(node.by(TUNNEL, too_big(back, beyond)), UPLINK)
        assert (error.source, error.destination) == (world.node, world.routed_pod)
        assert (error.source_mac, error.destination_mac) == tuple(TO_OTHER_NODE.values())
        assert ends(quotation(error)) == ends(answer)


def is_told(told: Packet, big: Packet, mtu: int) -> None:
    assert told.destination == big.source  # from whatever address of the node's
    if told.version == 4:
        assert struct.unpack("!BBxxHH", told.payload[:8]) == (3, 4, 0, mtu)
    else:
        assert struct.unpack("!BBxxI", told.payload[:8]) == (2, 0, mtu)
    assert ends(quotation(told)) == ends(big)


class TestClientsAtTheUplink:
    @each_protocol
    def test_backend_beyond_the_tunnel(
        self, kernel: Kernel, node: Node, world: World, protocol: Protocol
    ) -> None:
        """Masqueraded with the node's address in the tunnel."""
        serve(kernel, world, world.far_pod, protocol)
        for sent in (
            asked(world.outside, world, protocol),
            asked(world.outside, world, protocol, flags=ACK),
        ):
            there = only(node.by(UPLINK, sent), TUNNEL)
            assert there == to_backend(sent, world.tunnel, world.far_pod)
            answer = there.reply()
            back = only(node.by(TUNNEL, answer), UPLINK)
            assert back == sent.reply(flags=answer.flags, ttl=answer.ttl - 1, **TO_ROUTER)
        assert kernel.count("NEW") == 1

    def test_later_the_way_is_known(self, kernel: Kernel, node: Node, world: World) -> None:
        """At each tick it is asked for anew, and there is no neighbour to wait for."""
        serve(kernel, world, world.far_pod, TCP)
        sent = asked(world.outside, world)
        first = only(node.by(UPLINK, sent), TUNNEL)
        kernel.forget_ways()
        later = only(node.by(UPLINK, sent.but(flags=ACK)), TUNNEL)
        assert later == first.but(flags=ACK)

    def test_fragments(self, kernel: Kernel, node: Node, world: World) -> None:
        serve(kernel, world, world.far_pod, UDP)
        sent = asked(world.outside, world, UDP, payload=bytes(range(256)) * 16)
        there = node.frames_by(UPLINK, *split(sent, 1352), expected=4)
        assert [where for where, _ in there] == [TUNNEL] * 4
        whole = join(frame for _, frame in there)
        assert whole.valid and ends(whole)[0] == world.tunnel
        answer = whole.reply()
        back = node.frames_by(TUNNEL, *split(answer, 1352), expected=4)
        assert [where for where, _ in back] == [UPLINK] * 4
        whole = join(frame for _, frame in back)
        assert whole.valid and whole == sent.reply(
            identification=whole.identification, ttl=answer.ttl - 1, **TO_ROUTER
        )

    def test_too_big_for_the_tunnel(self, kernel: Kernel, node: Node, world: World) -> None:
        serve(kernel, world, world.far_pod, UDP)
        sent = asked(world.outside, world, UDP, payload=bytes(1400), dont_fragment=True)
        is_told(only(node.by(UPLINK, sent), UPLINK), sent, MTU)

    @only_ipv4
    def test_the_kernel_fragments_what_may_be(
        self, kernel: Kernel, node: Node, world: World
    ) -> None:
        serve(kernel, world, world.far_pod, UDP)
        sent = asked(world.outside, world, UDP, payload=bytes(range(200)) * 7)
        there = node.frames_by(UPLINK, sent, expected=2)
        assert [where for where, _ in there] == [TUNNEL] * 2
        whole = join(frame for _, frame in there)
        assert whole.valid
        assert whole == to_backend(
            sent, world.tunnel, world.far_pod, identification=whole.identification
        )

    def test_errors_about_what_was_sent_on(self, kernel: Kernel, node: Node, world: World) -> None:
        serve(kernel, world, world.far_pod, UDP)
        sent = asked(world.outside, world, UDP)
        there = only(node.by(UPLINK, sent), TUNNEL)
        error = only(node.by(TUNNEL, too_big(there, world.far_pod)), UPLINK)
        assert (error.source, error.destination) == (world.node, world.outside)
        assert (error.source_mac, error.destination_mac) == tuple(TO_ROUTER.values())
        assert ends(quotation(error)) == ends(sent)

    def test_what_is_no_services_is_left_alone(
        self, kernel: Kernel, node: Node, world: World, beyond: str
    ) -> None:
        serve(kernel, world, world.far_pod, TCP)
        for sent, where in (
            (Packet(beyond, world.outside, 1, 2, TCP), UPLINK),
            (Packet(world.outside, beyond, 1, 2, UDP, payload=b"?"), TUNNEL),
        ):
            other = UPLINK if where == TUNNEL else TUNNEL
            got = only(node.by(other, sent), where)
            assert got.but(**NO_MACS) == sent.but(ttl=sent.ttl - 1, **NO_MACS)
        assert not kernel.flows()


class TestTheNodesOwn:
    """Past the cgroup hooks, and with a strict reverse-path filter."""

    CASES: ClassVar = {
        "vip by the tunnel, backend by the uplink": (TUNNEL, UPLINK),
        "vip by the tunnel, backend by the tunnel": (TUNNEL, TUNNEL),
        "vip by the uplink, backend by the tunnel": (UPLINK, TUNNEL),
        "vip is its own address, backend by the tunnel": ("lo", TUNNEL),
    }

    @pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
    def case(
        self, request: pytest.FixtureRequest, node: Node, world: World, kernel: Kernel
    ) -> Iterator[tuple[str, str, str]]:
        """The VIP, where its backend is, and the backend."""
        towards, behind = self.CASES[request.param]
        backend = world.far_pod if behind == TUNNEL else world.routed_pod
        if towards != TUNNEL:
            yield (world.vip if towards == UPLINK else world.node), behind, backend
            return
        node.place.ip(f"route add {world.vip} dev tun0")
        yield world.vip, behind, backend
        node.place.ip(f"route del {world.vip} dev tun0")

    @pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP], ids=lambda p: p.name)
    def test_there_and_back(
        self,
        kernel: Kernel,
        node: Node,
        world: World,
        case: tuple[str, str, str],
        protocol: Protocol,
    ) -> None:
        vip, behind, backend = case
        kind = CLUSTER_IP if vip == world.vip else NODE_PORT
        kernel.service(vip, 30080, [(backend, 9376)], kind=kind, protocol=protocol)
        source = world.tunnel if behind == TUNNEL else world.node
        stream = protocol is Protocol.TCP
        node.forget()
        with node.socket(vip, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as own:
            if stream:
                own.setblocking(False)
                own.connect_ex((vip, 30080))
            else:
                own.connect((vip, 30080))
                own.send(b"hello")
            [(where, frame)] = node.leaving(1)[:1]
            there = parse(frame)
            assert where == behind
            assert (there.source, there.destination, there.destination_port) == (
                source, backend, 9376,
            )  # fmt: skip
            answer = there.reply(payload=b"" if stream else b"well", ttl=3)
            answer = answer.but(acknowledged=there.sequence + 1)
            node.frames_by(behind, answer, expected=int(stream))  # TCP's is acknowledged
            own.settimeout(30)
            if stream:
                assert own.getpeername()[:2] == (vip, 30080)  # ENOTCONN until then
            else:
                assert own.recv(100) == b"well"

    def test_refused(self, kernel: Kernel, node: Node, world: World) -> None:
        kernel.service(world.vip, 80, [])
        kernel.service(world.vip, 80, [], protocol=Protocol.UDP)
        node.place.ip(f"route add {world.vip} dev tun0")
        try:
            tcp = node.socket(world.vip, socket.SOCK_STREAM)
            with tcp, pytest.raises(ConnectionRefusedError):
                tcp.connect((world.vip, 80))
            with node.socket(world.vip, socket.SOCK_DGRAM) as udp:
                udp.connect((world.vip, 80))
                udp.send(b"hello")
                with pytest.raises(ConnectionRefusedError):
                    udp.recv(100)
        finally:
            node.place.ip(f"route del {world.vip} dev tun0")

    def test_errors_reach_it(self, kernel: Kernel, node: Node, world: World) -> None:
        """The backend's port is closed."""
        kernel.service(world.vip, 80, [(world.far_pod, 9376)], protocol=Protocol.UDP)
        with node.socket(world.vip, socket.SOCK_DGRAM) as own:
            own.connect((world.vip, 80))
            node.forget()
            own.send(b"hello")
            [(where, frame)] = node.leaving(1)
            assert where == TUNNEL
            node.frames_by(TUNNEL, closed_port(parse(frame)), expected=0)
            with pytest.raises(ConnectionRefusedError):
                own.recv(100)


def closed_port(about: Packet) -> Packet:
    quoted = about.frame()[14:]
    version4 = about.version == 4
    head = struct.pack("!BBHI", *((3, 3) if version4 else (1, 4)), 0, 0)
    error = Packet(
        about.destination,
        about.source,
        protocol=ICMP if version4 else ICMPV6,
        payload=head + quoted,
    )
    return error.with_icmp_checksum()
