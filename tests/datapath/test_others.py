"""What is not a Service's connection, and frames that a node drops by itself: left as they were."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ebpf_lb.model.values import Family, Protocol, parse_network
from ebpf_lb.plan.forwarding import FrontendKind
from tests.datapath.kernel import Kernel
from tests.datapath.node import NODE_MAC, WORLDS, World, entered_node
from tests.datapath.test_uplink import NODE_PORT, PAUSE_S, Hook, first, mac
from tests.support.packets import ACK, SCTP, SYN, TCP, UDP, Packet

GROUPS = ["01:00:5e:00:00:fb", "33:33:00:00:00:fb", "ff:ff:ff:ff:ff:ff"]
INIT, INIT_ACK = bytes([1, 0, 0, 4] * 5), bytes([2, 0, 0, 4] * 5)


@pytest.fixture(scope="module")
def uplink() -> Iterator[int]:
    with entered_node() as ifindex:
        yield ifindex


@pytest.fixture(params=["tc", "xdp"])
def hook(kernel: Kernel, uplink: int, request: pytest.FixtureRequest) -> Hook:
    kernel.writer.set_interface(uplink, 0, 1, mac(NODE_MAC))
    cidr = "10.244.0.0/16" if kernel.family is Family.IPV4 else "fd00:10:244::/48"
    kernel.writer.set_pod_networks([parse_network(cidr)])
    return Hook(kernel, uplink, request.param == "xdp")


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


def serve(hook: Hook, world: World, protocol: int = TCP, *, here: bool = False) -> None:
    there = [(world.remote_pod, 80)]
    local = [(world.local_pod, 80)] if here else []
    hook.kernel.service(
        world.node, 30080, [] if here else there, local=local,
        kind=NODE_PORT, protocol=Protocol(protocol),
    )  # fmt: skip


def untouched(hook: Hook, name: str, packet: Packet) -> None:
    got = hook(name, packet)
    assert got.passed and got.frame == packet.frame()


@pytest.mark.rule("CO-22")
@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("state", ["first", "later"])
def test_frames_for_others(hook: Hook, world: World, here: bool, state: str) -> None:
    """For another host, as on a hub, or for a group: Linux would not forward them."""
    serve(hook, world, here=here)
    if state == "later":
        assert hook.through(first(world)).sent_on or here
    counted = hook.kernel.counters()
    for address in ["02:00:00:00:99:99", *GROUPS]:
        for flags in (SYN, ACK):
            untouched(hook, "uplink_ingress", first(world).but(
                destination_mac=mac(address), flags=flags
            ))  # fmt: skip
    assert hook.kernel.counters() == counted


@pytest.mark.rule("CO-22")
@pytest.mark.parametrize("address", GROUPS)
def test_a_pods_frames_for_groups(hook: Hook, world: World, address: str) -> None:
    serve(hook, world, here=True)
    asked = first(world).but(source=world.other_pod)
    untouched(hook, "pod_ingress", asked.but(destination_mac=mac(address)))
    assert hook("pod_ingress", asked).packet.destination == world.local_pod


MARTIANS = {
    Family.IPV4: ["127.0.0.5", "0.0.0.1", "224.0.0.9", "240.0.0.9", "172.30.0.11", "10.244.1.77"],
    Family.IPV6: ["::1", "::", "ff02::9", "fe80::9", "fd30::11", "fd00:10:244:1::77"],
}


@pytest.mark.rule("CO-22")
@pytest.mark.parametrize("number", range(6))
def test_martian_sources_meet_the_stack(hook: Hook, world: World, number: int) -> None:
    """Nobody's, this node's own, and what is behind another interface: the stack sees them with
    their source, and drops them, or they end before."""
    source = replace(world, client=MARTIANS[hook.kernel.family][number])
    serve(hook, world)
    got = hook("uplink_ingress", first(source))
    assert got.dropped or (got.passed and got.packet.source == source.client)


@pytest.mark.rule("CO-1")
@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("name", ["uplink_ingress", "pod_ingress", "uplink_egress"])
def test_an_association_opens_with_init(hook: Hook, world: World, name: str, here: bool) -> None:
    serve(hook, world, SCTP, here=here)
    for chunk in range(15):
        sent = first(world, SCTP).but(payload=bytes([chunk, 0, 0, 4] * 5))
        if chunk != 1:
            untouched(hook, name, sent)
    assert not hook.kernel.flows()
    assert hook(name, first(world, SCTP).but(payload=bytes([1, 0, 0, 4] * 5))).frame is not None
    assert hook.kernel.flows()


@pytest.mark.rule("CO-3")
@pytest.mark.parametrize("order", ["the Service first", "the connection first"])
@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
def test_answers_to_the_nodes_own(hook: Hook, world: World, protocol: int, order: str) -> None:
    """It asks (or a pod does that the CNI masquerades) from a port that is a nodePort."""
    payload = {TCP: b"", UDP: b"ask", SCTP: bytes([1, 0, 0, 4] * 5)}[protocol]
    asked = Packet(world.node, world.client, 30080, 53, protocol, payload=payload)
    answer = asked.reply(destination_mac=mac(NODE_MAC))
    if protocol == SCTP:
        answer = answer.but(payload=INIT_ACK)
    if order == "the connection first":
        untouched(hook, "uplink_egress", asked)
        untouched(hook, "uplink_ingress", answer)
        asked = asked.but(flags=ACK)
        if protocol == SCTP:
            asked = asked.but(payload=bytes([0, 0, 0, 4] * 5))
    serve(hook, world, protocol)
    for _ in range(3):
        untouched(hook, "uplink_egress", asked)
        untouched(hook, "uplink_ingress", answer)
        time.sleep(PAUSE_S)
    assert not hook.kernel.count("NEW")
    stranger = first(world, protocol, source_port=54)
    if protocol == SCTP:
        stranger = stranger.but(payload=bytes([1, 0, 0, 4] * 5))
    assert hook.through(stranger).packet.destination == world.remote_pod


@pytest.mark.rule("CO-4")
@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
@pytest.mark.parametrize("out", ["uplink_egress", "pod_egress"])
def test_another_nats_connection_came_first(
    hook: Hook, world: World, protocol: int, out: str
) -> None:
    """A pod's that the CNI masquerades, to the backend of a Service: it keeps its tuple."""
    serve(hook, world, protocol)
    opens = INIT if protocol == SCTP else b""
    own = Packet(world.node, world.remote_pod, 40000, 80, protocol, payload=opens)
    untouched(hook, out, own)
    asked = first(world, protocol)
    there = hook.through(asked.but(payload=opens) if protocol == SCTP else asked)
    assert there.sent_on and there.packet.valid and there.packet.source_port != 40000
    back = hook.through(there.packet.reply()).packet
    assert (back.destination, back.destination_port) == (world.client, 40000)
    untouched(hook, out, own.but(flags=ACK))
    untouched(hook, "uplink_ingress", own.reply(destination_mac=mac(NODE_MAC)))


@pytest.mark.rule("CO-6")
@pytest.mark.parametrize("kind", list(FrontendKind), ids=lambda kind: kind.name)
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("name", ["uplink_ingress", "pod_ingress", "uplink_egress"])
def test_between_two_services(
    hook: Hook, world: World, protocol: int, name: str, kind: FrontendKind
) -> None:
    """Forged, or an answer: two that answer each other's answers would go on for ever. kind: of the
    address that it comes from. (A process of the node's may have a nodePort's number, and ask.)"""
    if (name, kind) == ("uplink_egress", FrontendKind.NODE_PORT):
        return
    vips = ["10.96.0.20", "10.96.0.21"] if "." in world.node else ["fd00:96::20", "fd00:96::21"]
    for vip, its in zip(vips, (kind, FrontendKind.CLUSTER_IP), strict=True):
        hook.kernel.service(
            vip, 53, [(world.remote_pod, 53)], protocol=Protocol(protocol), kind=its
        )
    sent = Packet(vips[0], vips[1], 53, 53, protocol)
    untouched(hook, name, sent)
    assert not hook.kernel.flows()
    other = hook(name, sent.but(source=world.other_pod))
    assert other.packet.destination == world.remote_pod
