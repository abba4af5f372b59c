"""NodePorts on loopback addresses: the node's own processes reach them, and nobody else does."""

from __future__ import annotations

import socket

import pytest

from ebpf_lb.model.values import Family, Protocol
from ebpf_lb.plan.forwarding import FrontendKind, ServicePortName
from tests.capabilities import CGROUP2, DATAPATH, needs
from tests.datapath import wires
from tests.datapath.kernel import Kernel
from tests.datapath.pod_world import WORLDS
from tests.datapath.test_sockets import (
    BACKENDS,
    TARGET_PORT,
    Node,
    node,
    place,
    refused,
)
from tests.support.packets import Packet

__all__ = ["node", "place"]  # fixtures

pytestmark = needs(*DATAPATH, CGROUP2)

NODE_PORT = 30080
LOOPBACK = {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}
PROTOCOLS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}


def serve(
    kernel: Kernel, backends: list[str], protocol: Protocol, affinity_timeout_s: int = 0
) -> ServicePortName:
    return kernel.service(
        LOOPBACK[kernel.family],
        NODE_PORT,
        [(backend, TARGET_PORT) for backend in backends],
        protocol=protocol,
        kind=FrontendKind.NODE_PORT,
        affinity_timeout_s=affinity_timeout_s,
    )


def loopbacks(node: Node) -> list[str]:
    one = LOOPBACK[node.kernel.family]
    return [one, "127.8.9.10"] if node.kernel.family is Family.IPV4 else [one]


@pytest.mark.rule("KI-14")
def test_tcp(node: Node) -> None:
    serve(node.kernel, [node.world.backend], Protocol.TCP)
    for address in loopbacks(node):
        peer = (node.spelled(address), NODE_PORT)
        assert node.connect(address, NODE_PORT) == (node.world.backend, peer)


@pytest.mark.parametrize("connected", [True, False])
def test_udp(node: Node, connected: bool) -> None:
    """The answer comes from whom the socket asked."""
    serve(node.kernel, [node.world.backend], Protocol.UDP)
    for address in loopbacks(node):
        sender = (node.spelled(address), NODE_PORT)
        asked = node.ask((address, NODE_PORT), connected=connected)
        assert asked == [(node.world.backend, sender)]


def test_refused_at_once_without_endpoints(node: Node) -> None:
    serve(node.kernel, [], Protocol.TCP)
    with refused():
        node.connect(LOOPBACK[node.kernel.family], NODE_PORT)
    assert node.kernel.count("NO_ENDPOINTS") == 1


def test_affinity_holds(node: Node) -> None:
    """By the node's address, as through its other addresses."""
    serve(node.kernel, BACKENDS[node.kernel.family], Protocol.TCP, affinity_timeout_s=60)
    reached = {
        str(node.connect(address, NODE_PORT)).split(",")[0]
        for address in loopbacks(node)
        for _ in range(6)
    }
    assert len(reached) == 1


@pytest.mark.rule("KI-15")
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("everywhere", [False, True], ids=["that-address", "all-addresses"])
def test_who_listens_at_that_very_address_goes_first(
    node: Node, protocol: Protocol, everywhere: bool
) -> None:
    serve(node.kernel, [node.world.backend], protocol)
    address = LOOPBACK[node.kernel.family]
    own = {Family.IPV4: "0.0.0.0", Family.IPV6: "::"}[node.kernel.family] if everywhere else address

    def work(fresh: socket.socket) -> object:
        family = socket.AF_INET6 if ":" in own else socket.AF_INET
        with socket.socket(family, PROTOCOLS[protocol]) as listening:
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind((own, NODE_PORT))
            if protocol is Protocol.TCP:
                listening.listen()
            fresh.connect((node.spelled(address), NODE_PORT))
            before = node.kernel.count("SOCKET")
            if protocol is Protocol.UDP and not before:
                fresh.send(b"?")
                listening.settimeout(30)
                assert listening.recv(10) == b"?"
            return before

    translated = node.run(work, PROTOCOLS[protocol])
    assert translated == int(everywhere)


def test_another_namespaces_loopback_is_its_own(node: Node) -> None:
    serve(node.kernel, [node.world.backend], Protocol.TCP)
    with refused():
        node.connect(LOOPBACK[node.kernel.family], NODE_PORT, other=True)


@pytest.mark.parametrize("hook", ["pod_ingress", "uplink_ingress", "uplink_egress"])
def test_no_packet_gets_there(kernel: Kernel, hook: str) -> None:
    """Whoever is on a node's wire can send frames for 127.0.0.1."""
    serve(kernel, [WORLDS[kernel.family].backend], Protocol.TCP)
    sent = Packet(WORLDS[kernel.family].client, LOOPBACK[kernel.family], 40000, NODE_PORT, 6)
    result = kernel.run(hook, sent)
    assert result.dropped or result.frame == sent.frame()
    assert not kernel.flows()


def test_it_goes_with_the_service(node: Node) -> None:
    service = serve(node.kernel, [node.world.backend], Protocol.TCP)
    node.kernel.writer.delete(service)
    with refused():
        node.connect(LOOPBACK[node.kernel.family], NODE_PORT)
    assert wires.netns_cookie(node.place.node)
