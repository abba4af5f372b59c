"""hostRouting: bpf. What is finished where it enters, both ways, and what is left to the stack.

Whether packets then arrive, by a pod's peer or a neighbour, and unseen by netfilter, is the lab's
to show (tests/lab/test_host_routing.py).
"""

import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ebpf_lb.model.values import Family, Protocol, parse_network
from ebpf_lb.plan.forwarding import FrontendKind
from tests.datapath.conftest import SETTINGS
from tests.datapath.kernel import Kernel, Result, loaded
from tests.datapath.node import NODE2_MAC, NODE_MAC, ROUTER_MAC, WORLDS, World, entered_node
from tests.support.fragments import join, split
from tests.support.packets import ACK, SYN, TCP, UDP, Packet

VIP = {Family.IPV4: "10.96.0.77", Family.IPV6: "fd00:10:96::77"}
POD_MAC = "02:00:00:00:01:02"
NODE_PORT = FrontendKind.NODE_PORT


@pytest.fixture(scope="module")
def _root() -> Iterator[Path]:
    with loaded("past", replace(SETTINGS, host_routing=True)) as root:
        yield root


@pytest.fixture(scope="module")
def _kernels(_root: Path) -> dict[Family, Kernel]:
    return {family: Kernel(_root, family) for family in Family}


@pytest.fixture(scope="module")
def uplink() -> Iterator[int]:
    with entered_node() as ifindex:
        for pod in ("10.244.1.2", "fd00:10:244:1::2"):
            neighbour = ["neigh", "replace", pod, "lladdr", POD_MAC, "dev", "cni0"]
            subprocess.run(["ip", *neighbour], check=True)
        yield ifindex


@dataclass(frozen=True)
class Node:
    """`pods`: the interface behind which its pods are."""

    kernel: Kernel
    uplink: int
    pods: int

    def from_pod(self, packet: Packet | bytes) -> Result:
        return self.kernel.run("pod_ingress", packet, self.pods)

    def from_outside(self, packet: Packet | bytes) -> Result:
        return self.kernel.run("uplink_ingress", packet, self.uplink)


@pytest.fixture
def node(kernel: Kernel, uplink: int) -> Node:
    pods = socket.if_nametoindex("cni0")
    kernel.writer.set_interface(uplink, 0, 1, _mac(NODE_MAC))
    kernel.writer.set_interface(pods, 0, 1)
    cidr = "10.244.0.0/16" if kernel.family is Family.IPV4 else "fd00:10:244::/48"
    kernel.writer.set_pod_networks([parse_network(cidr)])
    return Node(kernel, uplink, pods)


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def asked(node: Node, world: World, backend: str, protocol: int = TCP) -> Packet:
    """What a pod of this node sends to a Service with this backend."""
    vip = VIP[node.kernel.family]
    node.kernel.service(vip, 80, [(backend, 8080)], protocol=Protocol(protocol))
    return Packet(world.local_pod, vip, 40000, 80, protocol, flags=SYN if protocol == TCP else 0)


def hop(packet: Packet, source: str, destination: str) -> Packet:
    """One hop older, on another link."""
    return packet.but(
        ttl=packet.ttl - 1, source_mac=_mac(source), destination_mac=_mac(destination)
    )


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_from_a_pod_to_another_node_and_back(node: Node, world: World, protocol: int) -> None:
    sent = asked(node, world, world.remote_pod, protocol)
    for packet in (sent, sent.but(flags=ACK) if protocol == TCP else sent):
        there = node.from_pod(packet)
        assert there.redirected and there.packet.valid
        assert there.packet == hop(
            packet.but(destination=world.remote_pod, destination_port=8080), NODE_MAC, NODE2_MAC
        )
    answer = there.packet.reply(ttl=60)
    back = node.from_outside(answer)
    assert back.redirected and back.packet.valid
    assert (back.packet.source, back.packet.source_port) == (sent.destination, 80)
    assert (back.packet.destination, back.packet.destination_port) == (world.local_pod, 40000)
    assert back.packet.ttl == 59 and back.packet.destination_mac == _mac(POD_MAC)
    assert node.kernel.counters() == {"NEW": 1, "ESTABLISHED": 2, "REPLY": 1}


def test_masqueraded_from_outside_and_back(node: Node, world: World) -> None:
    node.kernel.service(world.node, 30080, [(world.remote_pod, 8080)], kind=NODE_PORT)
    sent = Packet(world.client, world.node, 40000, 30080, TCP, flags=SYN)
    there = node.from_outside(sent)
    assert there.redirected and there.packet.valid
    assert there.packet == hop(
        sent.but(source=world.node, destination=world.remote_pod, destination_port=8080),
        NODE_MAC, NODE2_MAC,
    )  # fmt: skip
    answer = there.packet.reply(ttl=60)
    back = node.from_outside(answer)
    assert back.redirected and back.packet.valid
    assert back.packet == hop(
        answer.but(source=world.node, destination=world.client, source_port=30080),
        NODE_MAC, ROUTER_MAC,
    )  # fmt: skip
    assert node.kernel.counters() == {"NEW": 1, "ESTABLISHED": 1, "REPLY": 1, "MASQUERADED": 2}


def test_to_a_pod_of_this_node_from_outside(node: Node, world: World) -> None:
    """The pod sees an address of the node, and its answer goes straight back to the client."""
    node.kernel.service(world.node, 30080, [(world.local_pod, 8080)], kind=NODE_PORT)
    sent = Packet(world.client, world.node, 40000, 30080, TCP, flags=SYN)
    there = node.from_outside(sent)
    assert there.redirected and there.packet.valid
    assert there.packet.source == world.node and there.packet.destination == world.local_pod
    assert there.packet.destination_mac == _mac(POD_MAC)
    back = node.from_pod(there.packet.reply())
    assert back.redirected and back.packet.valid
    assert back.packet.source == world.node and back.packet.destination == world.client
    assert back.packet.destination_mac == _mac(ROUTER_MAC)


def test_fragments_go_as_their_flow_does(node: Node, world: World) -> None:
    """Else netfilter would see an answer without its question, and masquerade it."""
    asking = asked(node, world, world.remote_pod, UDP)
    assert node.from_pod(asking).redirected
    there = [node.from_pod(one) for one in split(asking.but(payload=bytes(range(250)) * 12), 1400)]
    assert all(one.redirected for one in there)
    whole = join([one.frame for one in there])
    assert whole.valid and whole.destination == world.remote_pod and whole.source == asking.source
    back = [node.from_outside(one) for one in split(whole.reply(), 1400)]
    assert all(one.redirected for one in back)
    answer = join([one.frame for one in back])
    assert answer.valid and answer.source == asking.destination


def by_the_stack(node: Node, packet: Packet, backend: str) -> None:
    """Its destination is translated, and nothing else done."""
    done = node.from_pod(packet)
    assert done.passed and done.packet.valid
    assert done.packet == packet.but(destination=backend, destination_port=8080)


class TestLeftToTheStack:
    def test_the_last_hop(self, node: Node, world: World) -> None:
        """Who ends it there tells the client."""
        sent = asked(node, world, world.remote_pod)
        assert node.from_pod(sent).redirected
        by_the_stack(node, sent.but(flags=ACK, ttl=1), world.remote_pod)
        assert node.from_pod(sent.but(flags=ACK)).redirected

    def test_too_big_for_its_way(self, node: Node, world: World) -> None:
        sent = asked(node, world, world.remote_pod)
        assert node.from_pod(sent).redirected
        by_the_stack(node, sent.but(flags=ACK, payload=bytes(1500)), world.remote_pod)
        assert node.from_pod(sent.but(flags=ACK, payload=bytes(1300))).redirected

    def test_a_hairpin(self, node: Node, world: World) -> None:
        sent = asked(node, world, world.local_pod)
        assert node.from_pod(sent).passed

    def test_a_backend_that_is_the_nodes_own_process(self, node: Node, world: World) -> None:
        by_the_stack(node, asked(node, world, world.node), world.node)

    def test_a_client_that_the_node_would_answer_by_another_interface(
        self, node: Node, world: World
    ) -> None:
        """A strict reverse-path filter drops it, and only the stack knows whether there is one."""
        sent = asked(node, world, world.remote_pod).but(source=world.client)
        by_the_stack(node, sent, world.remote_pod)

    def test_what_is_not_a_services(self, node: Node, world: World) -> None:
        """From a backend's own port, too, where replies might come from."""
        assert node.from_pod(asked(node, world, world.local_pod)).passed
        foreign = Packet(world.local_pod, world.remote_pod, 8080, 4711, TCP, flags=SYN)
        done = node.from_pod(foreign)
        assert done.passed and done.frame == foreign.frame()
