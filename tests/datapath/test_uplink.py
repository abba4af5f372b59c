"""A packet's life at an uplink: outside clients, backends here and elsewhere, and the way back.

Runs in a network namespace with the routes and neighbours of a node, since the way out is asked of
the kernel.
"""

import ipaddress
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import pytest

from ebpf_lb.datapath.clock import ticks_per_second
from ebpf_lb.datapath.writer.hashes import filter_bit
from ebpf_lb.model.values import Family, Protocol, parse_address, parse_network
from ebpf_lb.plan.forwarding import FrontendFlag, FrontendKind
from tests.datapath.kernel import Kernel, Result
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
from tests.datapath.words import ANSWERED, CLOSING, ESTABLISHED, RESET, state_of
from tests.support.fragments import join, split
from tests.support.packets import ACK, FIN, RST, SCTP, TCP, UDP, Packet, packed, parse, too_big

PAUSE_S = 1.5 / ticks_per_second()  # longer than a tick
NODE_PORT, LOCAL = FrontendKind.NODE_PORT, FrontendFlag.LOCAL


@pytest.fixture(scope="module")
def uplink() -> Iterator[int]:
    """A node's namespace, entered by the whole test process; yields the uplink's ifindex."""
    with entered_node() as ifindex:
        yield ifindex


@dataclass(frozen=True)
class Hook:
    """Runs uplink programs as on the uplink: at TC alone, or at XDP before."""

    kernel: Kernel
    ifindex: int
    xdp: bool

    def __call__(self, name: str, packet: Packet | bytes, segment: int = 0) -> Result:
        if name == "uplink_ingress" and not segment:  # XDP knows no joined packets
            return self.kernel.run_uplink(packet, self.ifindex, xdp=self.xdp)
        return self.kernel.run(name, packet, self.ifindex, segment)

    def through(self, packet: Packet | bytes, ingress: str = "uplink_ingress") -> Result:
        """A packet's whole way through the node, past the stack where XDP finishes it."""
        return STACK.through(self, ingress, packet)


@pytest.fixture(params=["tc", "xdp"])
def hook(kernel: Kernel, uplink: int, request: pytest.FixtureRequest) -> Hook:
    kernel.writer.set_interface(uplink, 0, 1, mac(NODE_MAC))
    cidr = "10.244.0.0/16" if kernel.family is Family.IPV4 else "fd00:10:244::/48"
    kernel.writer.set_pod_networks([parse_network(cidr)])
    return Hook(kernel, uplink, request.param == "xdp")


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


def first(world: World, protocol: int = TCP, source_port: int = 40000) -> Packet:
    payload = b"hello" if protocol == UDP else b""
    return Packet(world.client, world.node, source_port, 30080, protocol, payload=payload)


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


@pytest.mark.rule("VE-13")
@pytest.mark.parametrize("protocol", list(Protocol), ids=lambda p: p.name)
def test_backend_on_this_node_sees_the_client(hook: Hook, world: World, protocol: Protocol) -> None:
    hook.kernel.service(
        world.node, 30080, [], local=[(world.local_pod, 80)], protocol=protocol, kind=NODE_PORT
    )
    sent = first(world, protocol).but(payload=bytes([1, 0, 0, 4] * 5))
    there = hook("uplink_ingress", sent)
    assert there.passed and there.packet.valid
    assert there.packet == sent.but(destination=world.local_pod, destination_port=80)
    answer = there.packet.reply()
    back = hook("uplink_egress", answer)
    assert back.passed and back.packet.valid
    assert back.packet == answer.but(source=world.node, source_port=30080)


def sharing_the_filter_bit(hook: Hook, address: str, near: str) -> str:
    """An address not unlike `near` that the filter cannot tell from `address`."""
    words = hook.kernel.maps.vip_filter.count
    wanted = filter_bit(packed(address), words)
    head, first = packed(near)[:-4], packed(near)[-4]
    # not by the last three bytes alone: they do not reach every bit
    some = (head + bytes([first ^ n & 15]) + (n >> 4).to_bytes(3) for n in range(1 << 28))
    return next(str(ipaddress.ip_address(a)) for a in some if filter_bit(a, words) == wanted)


class TestTheFilterErrs:
    """It spares look-ups. Of an address that shares its bit with one of ours it says ours."""

    @pytest.mark.parametrize("protocol", [TCP, UDP])
    def test_about_a_client_outside(self, hook: Hook, world: World, protocol: int) -> None:
        local = [(world.local_pod, 80)]
        hook.kernel.service(
            world.node, 30080, [], local=local, protocol=Protocol(protocol), kind=NODE_PORT
        )
        stranger = sharing_the_filter_bit(hook, world.node, world.client)
        answer = hook("uplink_ingress", first(world, protocol).but(source=stranger)).packet.reply()
        back = hook("uplink_egress", answer)
        assert back.passed and back.packet.valid
        assert back.packet == answer.but(source=world.node, source_port=30080)

    @pytest.mark.parametrize("backend", ["local_pod", "remote_pod"])
    @pytest.mark.parametrize("protocol", [TCP, UDP])
    def test_about_a_pod(self, hook: Hook, world: World, backend: str, protocol: int) -> None:
        """Its replies are restored where they reach it and nowhere before: the stack knows them."""
        vip = "10.96.0.20" if "." in world.node else "fd00:10:96::20"
        address = getattr(world, backend)
        hook.kernel.service(vip, 80, [(address, 9376)], protocol=Protocol(protocol))
        pod = sharing_the_filter_bit(hook, vip, world.local_pod)
        subprocess.run(["ip", "route", "replace", pod, "dev", "cni0"], check=True)
        there = hook("pod_ingress", Packet(pod, vip, 40000, 80, protocol))
        assert there.passed and there.packet.destination == address
        answer = there.packet.reply()
        ingress = "pod_ingress" if backend == "local_pod" else "uplink_ingress"
        between = hook(ingress, answer)
        assert between.passed and between.packet == answer
        error = too_big(there.packet, address)
        between = hook(ingress, error)
        assert between.passed and between.packet == error
        back = hook("pod_egress", answer)
        assert back.packet == answer.but(source=vip, source_port=80)


@pytest.mark.rule("VE-3")
@pytest.mark.parametrize("protocol", list(Protocol), ids=lambda p: p.name)
@pytest.mark.parametrize("client", ["client", "other_pod"])
def test_backend_on_another_node(hook: Hook, world: World, protocol: Protocol, client: str) -> None:
    """Cross-node SNAT: in and out by the uplink, one hop older each time."""
    hook.kernel.service(
        world.node, 30080, [(world.remote_pod, 80)], protocol=protocol, kind=NODE_PORT
    )
    sent = first(world, protocol).but(
        source=getattr(world, client), payload=bytes([1, 0, 0, 4] * 5)
    )
    there = hook.through(sent)
    assert there.sent_on and there.packet.valid
    assert there.packet == sent.but(
        source=world.node,
        destination=world.remote_pod,
        destination_port=80,
        ttl=sent.ttl - 1,
        source_mac=mac(NODE_MAC),
        destination_mac=mac(NODE2_MAC),
    )
    answer = there.packet.reply(ttl=62)
    back = hook.through(answer)
    assert back.sent_on and back.packet.valid
    assert back.packet == answer.but(
        source=world.node,
        source_port=30080,
        destination=sent.source,
        destination_port=40000,
        ttl=61,
        source_mac=mac(NODE_MAC),
        destination_mac=mac(ROUTER_MAC),
    )
    again = hook.through(sent.but(flags=ACK))
    assert again.sent_on and again.packet.source == world.node
    assert hook.kernel.count("NEW") == 1


def test_hop_limit_ends_here(hook: Hook, world: World) -> None:
    """XDP leaves that to the stack, which tells the sender; see test_icmp for what he hears."""
    hook.kernel.service(world.node, 30080, [(world.remote_pod, 80)], kind=NODE_PORT)
    sent = first(world)
    there = hook.through(sent.but(ttl=2))
    assert there.packet.ttl == 1 and there.packet.destination == world.remote_pod
    old = hook("uplink_ingress", sent.but(ttl=1))
    assert old.passed and old.packet.ttl == 1
    assert (old.packet.source, old.packet.destination) == (world.client, world.remote_pod)
    back = hook("uplink_ingress", there.packet.reply().but(ttl=1))
    assert back.passed and back.packet.ttl == 1 and back.packet.destination == world.client


@pytest.mark.rule("CO-28")
def test_source_ports_do_not_collide(hook: Hook, world: World) -> None:
    """Two clients with one port, masqueraded towards one backend, get two ports."""
    hook.kernel.service(world.node, 30080, [(world.remote_pod, 80)], kind=NODE_PORT)
    clients = [first(world), first(world).but(source=world.other_pod)]
    there = [hook.through(sent).packet for sent in clients]
    assert there[0].source_port == 40000 != there[1].source_port
    for sent, got in zip(clients, there, strict=True):
        back = hook.through(got.reply()).packet
        assert (back.destination, back.destination_port) == (sent.source, 40000)


@pytest.mark.rule("CO-24")
def test_fragments_of_two_clients_keep_apart(hook: Hook, world: World) -> None:
    """Masqueraded towards one backend they have one source; the identification must tell."""
    hook.kernel.service(
        world.node, 30080, [(world.remote_pod, 80)], kind=NODE_PORT, protocol=Protocol.UDP
    )
    sent = [
        first(world, UDP).but(source=source, payload=bytes([number]) * 3000, fragment=(0, True))
        for number, source in enumerate((world.client, world.client[:-1] + "7"))
    ]
    ids = set()
    for _ in range(2):  # the clients' next datagrams keep apart as well
        frames = zip(*(split(packet, 1400) for packet in sent), strict=True)
        there = [[hook.through(each).frame for each in pair] for pair in frames]
        whole = [join(pieces) for pieces in zip(*there, strict=True)]
        assert all(packet.valid and packet.source == world.node for packet in whole)
        assert [packet.payload for packet in whole] == [packet.payload for packet in sent]
        ids |= {parse(frame).identification for frame in there[0]}
    assert len(ids) == 4


def test_what_a_first_fragment_left_is_forgotten(hook: Hook, world: World) -> None:
    """Half a minute later another datagram may have its identification."""
    hook.kernel.service(
        world.node, 30080, [(world.remote_pod, 80)], kind=NODE_PORT, protocol=Protocol.UDP
    )
    whole = first(world, UDP).but(payload=bytes(2000), fragment=(0, True), identification=7)
    head, tail = split(whole, 1400)
    assert all(hook.through(each).packet.destination == world.remote_pod for each in (head, tail))
    fragment, ago = hook.kernel.layout.struct("fragment"), int(31 * ticks_per_second())
    with hook.kernel.open("fragments") as table:
        for key, value in list(table.items()):
            noted = fragment.unpack(value)
            table.update(key, fragment.pack(**noted._asdict() | {"noted": noted.noted - ago}))
    assert hook("uplink_ingress", tail).frame == tail


@pytest.mark.rule("CO-16")
def test_udp_leaves_from_an_address_that_the_node_has(hook: Hook, world: World) -> None:
    """The one that it was masqueraded with is gone: the next tick's datagrams have another."""
    hook.kernel.service(
        world.node, 30080, [(world.remote_pod, 80)], kind=NODE_PORT, protocol=Protocol.UDP
    )
    sent, writer = first(world, UDP), hook.kernel.writer
    assert hook.through(sent).packet.source == world.node
    other = world.node[:-1] + "9"
    writer.set_snat_source(2, parse_address(other))
    writer.set_interface(hook.ifindex, 0, 2, mac(NODE_MAC))
    writer.clear_snat_source(1)
    time.sleep(PAUSE_S)
    there = hook.through(sent).packet
    assert (there.source, there.destination) == (other, world.remote_pod)
    assert hook.through(there.reply()).packet.destination == world.client


@pytest.mark.parametrize("identification", [0, 7])
def test_fragments_with_options_behind_their_header(
    hook: Hook, world: World, identification: int
) -> None:
    """IPv6: there the first one's identification is not looked for; then all keep theirs."""
    if hook.kernel.family is Family.IPV4:
        return
    hook.kernel.service(
        world.node, 30080, [(world.remote_pod, 80)], kind=NODE_PORT, protocol=Protocol.UDP
    )
    whole = first(world, UDP).but(payload=bytes(2000), fragment=(0, True))
    head, tail = split(whole.but(identification=identification), 1400)
    options = bytes([head[54], 0, 1, 4, 0, 0, 0, 0])
    length = struct.pack("!H", struct.unpack_from("!H", head, 18)[0] + len(options))
    head = head[:18] + length + head[20:54] + b"\x3c" + head[55:62] + options + head[62:]
    there = [hook.through(frame) for frame in (head, tail)]
    assert [one.sent_on for one in there] == [True, True]
    assert there[0].frame[58:62] == there[1].frame[58:62] == head[58:62]


@pytest.mark.rule("CO-28")
def test_a_port_of_the_nodes_own_is_left_to_it(hook: Hook, world: World) -> None:
    hook.kernel.service(
        world.node, 30080, [(world.remote_pod, 80)], kind=NODE_PORT, protocol=Protocol.UDP
    )
    family = socket.AF_INET if hook.kernel.family is Family.IPV4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as own:
        own.bind((world.node, 40000))
        own.connect((world.remote_pod, 80))
        there = hook.through(first(world, UDP))
    assert there.sent_on and there.packet.source_port != 40000


class TestTheNodesOwnConnectionTakesAPortInUse:
    """Towards the same backend, by the very port that a client's masqueraded flow has there."""

    @pytest.fixture(params=[TCP, UDP, SCTP])
    def protocol(self, request: pytest.FixtureRequest) -> int:
        return int(request.param)

    @pytest.fixture
    def answer(self, hook: Hook, world: World, protocol: int) -> Packet:
        """The backend's to the client."""
        hook.kernel.service(
            world.node,
            30080,
            [(world.remote_pod, 80)],
            kind=NODE_PORT,
            protocol=Protocol(protocol),
        )
        answer = hook.through(self.opens(first(world, protocol))).packet.reply()
        if protocol == SCTP:
            answer = answer.but(payload=bytes([2, 0, 0, 4] * 5))
        assert (answer.destination, answer.destination_port) == (world.node, 40000)
        assert hook.through(answer).packet.destination == world.client
        return answer

    def opens(self, packet: Packet) -> Packet:
        """An association, by INIT."""
        return packet.but(payload=bytes([1, 0, 0, 4] * 5)) if packet.protocol == SCTP else packet

    @pytest.mark.rule("CO-4", "CO-28")
    @pytest.mark.parametrize("whose", ["a socket", "another NAT"])
    @pytest.mark.parametrize("out", ["uplink_egress", "pod_egress"])
    def test_both_live(
        self, hook: Hook, world: World, protocol: int, answer: Packet, out: str, whose: str
    ) -> None:
        own = self.opens(Packet(world.node, world.remote_pod, 40000, 80, protocol))
        # a kernel may lack sockets of SCTP: who sends it needs none here
        real = whose == "a socket" and protocol != SCTP
        socket_or_none = own_socket(world, protocol, 40000) if real else nullcontext()
        with socket_or_none:
            asked = hook(out, own)
            assert asked.passed and asked.packet.valid
            port = asked.packet.source_port
            assert port != 40000 and asked.packet == own.but(source_port=port)
            heard = asked.packet.reply(destination_mac=mac(NODE_MAC))
            told = hook("uplink_ingress", heard)
            assert told.passed and told.packet.valid
            assert told.packet == heard.but(destination_port=40000)
            time.sleep(PAUSE_S)
            goes_on = {"payload": bytes([0, 0, 0, 4] * 5)} if protocol == SCTP else {"flags": ACK}
            again = own.but(**goes_on)
            assert hook(out, again).packet == again.but(source_port=port)
            back = hook.through(answer.but(**goes_on))
            assert back.sent_on and back.packet.destination == world.client
            there = hook.through(first(world, protocol).but(**goes_on))
            assert there.sent_on and there.packet.source_port == 40000

    def test_others_are_left_alone(
        self, hook: Hook, world: World, protocol: int, answer: Packet
    ) -> None:
        """Another port, and another backend."""
        for own in (
            Packet(world.node, world.remote_pod, 40001, 80, protocol),
            Packet(world.node, world.remote_pod, 40000, 81, protocol),
            Packet(world.node, world.other_pod, 40000, 80, protocol),
        ):
            result = hook("uplink_egress", self.opens(own))
            assert result.passed and result.frame == self.opens(own).frame()
        assert len(hook.kernel.flows()) == 3  # with what keeps the first one's port

    def test_a_masqueraded_flow_has_no_need_of_a_socket(
        self, hook: Hook, world: World, protocol: int, answer: Packet
    ) -> None:
        """An answer after a pause is the client's, whatever sockets there are that never spoke."""
        if protocol == SCTP:
            return
        with own_socket(world, protocol, 40000):
            time.sleep(PAUSE_S)
            back = hook.through(answer)
            assert back.sent_on and back.packet.destination == world.client


class TestTrafficPolicyLocal:
    def service(self, hook: Hook, world: World, *, here: bool) -> None:
        hook.kernel.service(
            world.node,
            30080,
            [(world.remote_pod, 80)],
            local=[(world.local_pod, 80)] if here else [],
            kind=NODE_PORT,
            flags=LOCAL,
        )

    @pytest.mark.rule("VE-6")
    def test_only_backends_here(self, hook: Hook, world: World) -> None:
        self.service(hook, world, here=True)
        for port in range(1000, 1030):
            got = hook("uplink_ingress", first(world, source_port=port)).packet
            assert (got.source, got.destination) == (world.client, world.local_pod)

    @pytest.mark.rule("VE-6", "VE-12")
    def test_none_here_is_silence(self, hook: Hook, world: World) -> None:
        self.service(hook, world, here=False)
        assert hook("uplink_ingress", first(world)).dropped
        assert hook.kernel.count("NO_LOCAL_ENDPOINTS") == 1

    @pytest.mark.rule("VE-17")
    def test_pods_of_other_nodes_ask_from_outside(self, hook: Hook, world: World) -> None:
        """Their short way is on their own node. Here it would lead past us on the way back."""
        asked = first(world).but(source=world.other_pod)
        self.service(hook, world, here=False)
        assert hook("uplink_ingress", asked).dropped
        self.service(hook, world, here=True)
        for port in range(1000, 1030):
            got = hook("uplink_ingress", asked.but(source_port=port)).packet
            assert (got.source, got.destination) == (world.other_pod, world.local_pod)

    @pytest.mark.rule("VE-4")
    def test_pods_take_the_short_way(self, hook: Hook, world: World) -> None:
        self.service(hook, world, here=False)
        there = hook.kernel.run("pod_ingress", first(world).but(source=world.local_pod))
        assert there.passed and there.packet.destination == world.remote_pod
        assert there.packet.source == world.local_pod

    @pytest.mark.rule("VE-1")
    def test_no_endpoint_anywhere_is_refused(self, hook: Hook, world: World) -> None:
        hook.kernel.service(world.node, 30080, [], kind=NODE_PORT, flags=LOCAL)
        got = hook("uplink_ingress", first(world))
        assert got.redirected and got.packet.flags == RST | ACK


@pytest.mark.rule("VE-9")
def test_source_ranges(hook: Hook, world: World) -> None:
    ranges = ["192.0.2.0/28"] if hook.kernel.family is Family.IPV4 else ["2001:db8::/120"]
    hook.kernel.service(
        world.node,
        30080,
        [],
        local=[(world.local_pod, 80)],
        kind=FrontendKind.LOAD_BALANCER,
        flags=FrontendFlag.SOURCE_RANGES,
        source_ranges=[parse_network(text) for text in ranges],
    )
    assert hook("uplink_ingress", first(world)).packet.destination == world.local_pod
    stranger = "192.0.2.77" if hook.kernel.family is Family.IPV4 else "2001:db8:1::9"
    assert hook("uplink_ingress", first(world).but(source=stranger)).dropped
    assert hook.kernel.count("SOURCE_RANGE") == 1


def test_what_is_no_services_leaves_as_it_came(hook: Hook, world: World) -> None:
    hook.kernel.service(world.node, 30080, [(world.remote_pod, 80)], kind=NODE_PORT)
    for sent in (
        first(world).but(destination_port=22),
        first(world).but(destination=world.local_pod),
        first(world, UDP),
    ):
        for program in ("uplink_ingress", "uplink_egress"):
            result = hook(program, sent)
            assert result.passed and result.frame == sent.frame()
    assert not hook.kernel.flows()


def test_without_route_the_stack_says_so(hook: Hook, world: World) -> None:
    nowhere = "10.99.0.1" if hook.kernel.family is Family.IPV4 else "fd99::1"
    subprocess.run(["ip", "route", "replace", "prohibit", nowhere], check=True)
    hook.kernel.service(world.node, 30080, [(nowhere, 80)], kind=NODE_PORT)
    there = hook("uplink_ingress", first(world))
    assert there.passed
    assert (there.packet.source, there.packet.destination) == (world.client, nowhere)


@pytest.mark.rule("VE-15")
@pytest.mark.parametrize("backend", ["remote_pod", "local_pod"])
def test_masquerade_all(hook: Hook, world: World, backend: str) -> None:
    """Configured so, a pod's connection to a ClusterIP shows the backend the node's address."""
    vip = "10.96.0.20" if "." in world.node else "fd00:10:96::20"
    client = world.local_pod + "9"
    hook.kernel.writer.set_config(0, True, 0)
    hook.kernel.service(vip, 80, [(getattr(world, backend), 9376)])
    sent = Packet(client, vip, 40000, 80, TCP)
    there = hook.through(sent, "pod_ingress")
    assert there.passed and there.packet.valid
    assert there.packet.source == world.node
    assert there.packet.destination == getattr(world, backend)
    answer = there.packet.reply()
    back = hook.through(answer, "uplink_ingress" if backend == "remote_pod" else "pod_ingress")
    assert back.passed and back.packet.valid
    assert (back.packet.source, back.packet.destination) == (vip, client)
    assert (back.packet.source_port, back.packet.destination_port) == (80, 40000)


@pytest.mark.rule("VE-15", "VE-16")
@pytest.mark.parametrize("known", [True, False], ids=["pods-known", "pods-unknown"])
@pytest.mark.parametrize("client", ["client", "other_pod"])
def test_cluster_ip_from_outside(hook: Hook, world: World, client: str, known: bool) -> None:
    """Clients that are not pods are masqueraded, where that is known, also to a backend here."""
    vip = "10.96.0.20" if "." in world.node else "fd00:10:96::20"
    if not known:
        hook.kernel.writer.set_pod_networks([])
    hook.kernel.service(vip, 80, [], local=[(world.local_pod, 9376)])
    asker = getattr(world, client)
    sent = Packet(asker, vip, 40000, 80, TCP)
    there = hook.through(sent)
    masqueraded = known and client == "client"
    assert there.packet.valid and there.passed
    assert there.packet.source == (world.node if masqueraded else asker)
    assert there.packet.destination == world.local_pod
    answer = there.packet.reply()
    back = hook.through(answer, "pod_ingress") if masqueraded else hook("uplink_egress", answer)
    assert back.packet.valid and back.passed
    assert (back.packet.source, back.packet.destination) == (vip, asker)
    assert (back.packet.source_port, back.packet.destination_port) == (80, 40000)


class TestSignposts:
    """What leads replies back to SNATed flows lives and ends with them."""

    def states(self, hook: Hook) -> list[int]:
        return sorted(state_of(word) for word, _ in hook.kernel.flows())

    def established(self, hook: Hook, world: World) -> tuple[Packet, Packet]:
        hook.kernel.service(world.node, 30080, [(world.remote_pod, 80)], kind=NODE_PORT)
        sent = first(world)
        answer = hook.through(sent).packet.reply()
        hook.through(answer)
        assert self.states(hook) == [ANSWERED, ANSWERED]
        hook.through(sent.but(flags=ACK, acknowledged=1001))
        assert self.states(hook) == [ESTABLISHED, ESTABLISHED]
        return sent, answer

    @pytest.mark.parametrize("who", ["client resets", "backend resets", "both finish"])
    def test_they_close_together(self, hook: Hook, world: World, who: str) -> None:
        sent, answer = self.established(hook, world)
        if who == "client resets":
            hook.through(sent.but(flags=RST))
        elif who == "backend resets":
            hook.through(answer.but(flags=RST))
        else:
            hook.through(answer.but(flags=FIN | ACK))
            hook.through(sent.but(flags=FIN | ACK))
        assert self.states(hook) == [CLOSING if who == "both finish" else RESET] * 2

    def test_a_flood_of_masqueraded_syns_leaves_established_ones(
        self, hook: Hook, world: World
    ) -> None:
        sent, answer = self.established(hook, world)
        dropped = sum(
            hook.through(sent.but(source_port=port)).dropped for port in range(1024, 1024 + 3000)
        )
        assert dropped == 0  # unanswered ones make room for new ones
        back = hook.through(answer.but(flags=ACK)).packet
        assert (back.destination, back.destination_port) == (world.client, 40000)
