"""The life of a packet that the node's own sockets send to a frontend past the cgroup hooks: raw
sockets, kernel clients, a node without cgroup v2.

Runs in a network namespace with a node's routes and neighbours: an uplink, a tunnel, a pod. Where a
redirected packet goes shows by its MAC addresses; loopback has none.
"""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ebpf_lb.lab import namespaces
from ebpf_lb.model.values import Family, Protocol, parse_address, parse_network
from ebpf_lb.plan.forwarding import FrontendFlag, FrontendKind
from tests.datapath.kernel import LOOPBACK, NODE, Kernel, Result
from tests.datapath.test_icmp import ends, quotation
from tests.datapath.wires import network
from tests.datapath.words import CLOSING, state_of
from tests.support.packets import (
    ACK,
    FIN,
    GATEWAY_MAC,
    ICMPV6,
    RST,
    TCP,
    UDP,
    Packet,
    too_big,
)

NODE_PORT, LOCAL = FrontendKind.NODE_PORT, FrontendFlag.LOCAL
NO_MAC = bytes(6)
UPLINK_MAC, ROUTER_MAC, OTHER_NODE_MAC = (
    "02:00:00:00:00:11",
    "02:00:00:00:00:01",
    "02:00:00:00:00:12",
)
TUNNEL_MAC, TUNNEL_PEER_MAC = "02:00:00:00:02:11", "02:00:00:00:02:12"
POD_GATEWAY_MAC, POD_MAC = "02:00:00:00:03:11", "02:00:00:00:03:02"
# numbers in snat_sources; 1 is the node's address
TUNNEL_SOURCE, GATEWAY_SOURCE = 2, 3


@dataclass(frozen=True)
class World:
    """Addresses. `tunnel`: the node's own at its end of the tunnel; `gateway`: likewise where its
    pod is; `far_pod` is reached by the tunnel, `routed_pod` by the uplink."""

    node: str
    tunnel: str
    gateway: str
    pod: str
    routed_pod: str
    far_pod: str
    vip: str
    router: str
    other_node: str
    outside: str


WORLDS = {
    Family.IPV4: World(
        NODE[Family.IPV4], "10.244.1.0", "10.244.1.1", "10.244.1.2", "10.244.3.7", "10.244.2.7",
        "10.96.0.20", "172.30.0.1", "172.30.0.12", "192.0.2.9",
    ),
    Family.IPV6: World(
        NODE[Family.IPV6], "fd00:10:244:1::", "fd00:10:244:1::1", "fd00:10:244:1::2",
        "fd00:10:244:3::7", "fd00:10:244:2::7", "fd00:10:96::20", "fd30::1", "fd30::12",
        "2001:db8::9",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Interfaces:
    path: Path
    uplink: int
    tunnel: int
    pod: int


def commands(world: World, version: int) -> Iterator[str]:
    bits, prefix = (32, 24) if version == 4 else (128, 64)
    nodad = "" if version == 4 else "nodad"
    yield f"addr add {world.node}/{prefix} dev up0 {nodad}"
    yield f"addr add {world.tunnel}/{bits} dev vx0 {nodad}"
    yield f"addr add {world.gateway}/{bits} dev pod0 {nodad}"
    peer = "10.244.2.0" if version == 4 else "fd00:10:244:2::"
    for address, mac, device in (
        (world.router, ROUTER_MAC, "up0"),
        (world.other_node, OTHER_NODE_MAC, "up0"),
        (peer, TUNNEL_PEER_MAC, "vx0"),
        (world.pod, POD_MAC, "pod0"),
    ):
        yield f"neigh add {address} lladdr {mac} dev {device}"
    yield f"route add default via {world.router} dev up0"
    yield f"route add {world.routed_pod}/{bits} via {world.other_node} dev up0"
    yield f"route add {world.far_pod}/{bits} via {peer} dev vx0 onlink"
    yield f"route add {world.pod}/{bits} dev pod0"


@pytest.fixture(scope="module")
def interfaces() -> Iterator[Interfaces]:
    with network("node") as [node]:
        for name, mac in (("up0", UPLINK_MAC), ("vx0", TUNNEL_MAC), ("pod0", POD_GATEWAY_MAC)):
            node.ip(
                f"link add {name} address {mac} type veth peer name {name}-peer",
                f"link set {name}-peer up",
                f"link set {name} up",
            )
        node.sysctl(net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1)
        for family, world in WORLDS.items():
            for command in commands(world, family):
                node.ip(command)
        yield Interfaces(node.path, *(node.ifindex(name) for name in ("up0", "vx0", "pod0")))


@dataclass(frozen=True)
class Node:
    """Runs programs as on one of the node's interfaces."""

    kernel: Kernel
    interfaces: Interfaces

    def out(self, packet: Packet) -> Result:
        return self._run("uplink_egress", packet, self.interfaces.uplink)

    def by_uplink(self, packet: Packet) -> Result:
        return self._run("uplink_ingress", packet, self.interfaces.uplink)

    def by_tunnel(self, packet: Packet) -> Result:
        return self._run("uplink_ingress", packet, self.interfaces.tunnel)

    def by_pod(self, packet: Packet) -> Result:
        return self._run("pod_ingress", packet, self.interfaces.pod)

    def loopback(self, packet: Packet) -> Result:
        """What is sent by loopback has no addresses on its link."""
        bare = packet.but(source_mac=NO_MAC, destination_mac=NO_MAC)
        return self._run("loopback_egress", bare, LOOPBACK)

    def _run(self, name: str, packet: Packet, ifindex: int) -> Result:
        with namespaces.entered(self.interfaces.path):
            return self.kernel.run(name, packet, ifindex)


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


@pytest.fixture
def node(kernel: Kernel, interfaces: Interfaces, world: World) -> Node:
    kernel.writer.set_snat_source(TUNNEL_SOURCE, parse_address(world.tunnel))
    kernel.writer.set_snat_source(GATEWAY_SOURCE, parse_address(world.gateway))
    kernel.writer.set_interface(interfaces.uplink, 0, 1, GATEWAY_MAC)
    kernel.writer.set_interface(interfaces.tunnel, 0, TUNNEL_SOURCE, GATEWAY_MAC)
    kernel.writer.set_interface(interfaces.pod, 0, GATEWAY_SOURCE)
    kernel.writer.set_interface(LOOPBACK, 0, 0)
    return Node(kernel, interfaces)


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def macs(packet: Packet) -> tuple[bytes, bytes]:
    """From and to whom."""
    return packet.source_mac, packet.destination_mac


def to_uplink(packet: Packet) -> Packet:
    """As the stack hands a packet to a remote address to the uplink."""
    return packet.but(source_mac=mac(UPLINK_MAC), destination_mac=mac(ROUTER_MAC))


class TestToVips:
    """The stack sends what is for a VIP by the default route, with the uplink's address."""

    def sent(self, world: World, protocol: int = TCP, **changes: object) -> Packet:
        payload = b"hello" if protocol == UDP else b""
        sent = Packet(world.node, world.vip, 40000, 80, protocol, payload=payload)
        return to_uplink(sent).but(**changes)

    def test_by_the_same_uplink(self, node: Node, world: World) -> None:
        """Nobody sees a difference to a socket that asked for the backend itself."""
        sent = self.sent(world)
        node.kernel.service(world.vip, 80, [(world.routed_pod, 9376)])
        there = node.out(sent)
        assert there.redirected and there.packet.valid
        assert there.packet == sent.but(
            destination=world.routed_pod,
            destination_port=9376,
            source_mac=mac(UPLINK_MAC),
            destination_mac=mac(OTHER_NODE_MAC),
        )
        answer = there.packet.reply()
        back = node.by_uplink(answer)
        assert back.passed and back.packet.valid
        assert back.packet == answer.but(source=world.vip, source_port=80)

    @pytest.mark.parametrize("protocol", list(Protocol), ids=lambda p: p.name)
    def test_by_the_tunnel(self, node: Node, world: World, protocol: Protocol) -> None:
        """There, the uplink's address would be a stranger's. The answer is received by the uplink,
        from where the node expects what comes from the VIP."""
        sent = self.sent(world, protocol, payload=bytes([1, 0, 0, 4] * 5))
        node.kernel.service(world.vip, 80, [(world.far_pod, 9376)], protocol=protocol)
        there = node.out(sent)
        assert there.redirected and there.packet.valid
        assert there.packet == sent.but(
            source=world.tunnel,
            destination=world.far_pod,
            destination_port=9376,
            source_mac=mac(TUNNEL_MAC),
            destination_mac=mac(TUNNEL_PEER_MAC),
        )
        answer = there.packet.reply(ttl=1)  # it has arrived: nobody passes it on
        back = node.by_tunnel(answer)
        assert back.redirected and back.packet.valid
        assert back.packet == sent.reply(
            payload=answer.payload,
            ttl=1,
            flags=answer.flags,
            source_mac=mac(ROUTER_MAC),
            destination_mac=mac(UPLINK_MAC),
        )
        again = node.out(sent.but(flags=ACK)).packet
        assert (again.source, again.destination) == (world.tunnel, world.far_pod)
        assert node.kernel.count("NEW") == 1

    def test_to_a_pod_here(self, node: Node, world: World) -> None:
        sent = self.sent(world)
        node.kernel.service(world.vip, 80, [], local=[(world.pod, 9376)])
        there = node.out(sent)
        assert there.redirected and there.packet.valid
        assert (there.packet.source, there.packet.destination) == (world.gateway, world.pod)
        assert macs(there.packet) == (mac(POD_GATEWAY_MAC), mac(POD_MAC))
        back = node.by_pod(there.packet.reply())
        assert back.redirected and back.packet.valid
        assert back.packet == sent.reply(
            source_mac=mac(ROUTER_MAC), destination_mac=mac(UPLINK_MAC)
        )

    def test_to_another_process_of_the_node(self, node: Node, world: World) -> None:
        """A pod in the host's network: there and back by loopback."""
        sent = self.sent(world)
        node.kernel.service(world.vip, 80, [], local=[(world.node, 6443)])
        there = node.out(sent)
        assert there.redirected and there.packet.valid
        assert (there.packet.source, there.packet.destination) == (world.node, world.node)
        assert there.packet.destination_port == 6443
        assert macs(there.packet) == (NO_MAC, NO_MAC)
        back = node.loopback(there.packet.reply())
        assert back.redirected and back.packet.valid
        assert back.packet == sent.reply(
            source_mac=mac(ROUTER_MAC), destination_mac=mac(UPLINK_MAC)
        )

    def test_a_connection_of_its_own_to_the_backend_keeps_its_answers(
        self, node: Node, world: World
    ) -> None:
        """Linux gives one port to connections with different ends: to the VIP, and to a backend."""
        node.kernel.service(world.vip, 80, [(world.routed_pod, 9376)], protocol=Protocol.UDP)
        kind = socket.AF_INET if node.kernel.family is Family.IPV4 else socket.AF_INET6
        with (
            namespaces.entered(node.interfaces.path),
            socket.socket(kind, socket.SOCK_DGRAM) as own,
        ):
            own.bind((world.node, 40000))
            own.connect((world.routed_pod, 9376))
            there = node.out(self.sent(world, UDP)).packet
        assert there.source == world.node and there.source_port != 40000
        direct = Packet(world.routed_pod, world.node, 9376, 40000, UDP, payload=b"direct")
        assert node.by_uplink(direct).packet == direct
        back = node.by_uplink(there.reply()).packet
        assert (back.source, back.destination_port) == (world.vip, 40000)

    def test_two_vips_with_one_backend(self, node: Node, world: World) -> None:
        node.kernel.service(world.vip, 80, [], local=[(world.pod, 9376)])
        node.kernel.service(world.vip, 81, [], local=[(world.pod, 9376)])
        sent = [self.sent(world).but(destination_port=port) for port in (80, 81)]
        there = [node.out(each).packet for each in sent]
        assert there[0].source_port != there[1].source_port
        for asked, got in zip(sent, there, strict=True):
            back = node.by_pod(got.reply())
            assert back.redirected
            assert (back.packet.source, back.packet.source_port) == (
                world.vip,
                asked.destination_port,
            )

    def test_refused_and_dropped(self, node: Node, world: World) -> None:
        sent = self.sent(world)
        node.kernel.service(world.vip, 80, [])
        got = node.out(sent)
        assert got.redirected and got.packet.flags == RST | ACK
        node.kernel.service(world.vip, 81, [(world.far_pod, 80)], flags=LOCAL)
        assert node.out(sent.but(destination_port=81)).dropped
        assert node.kernel.count("NO_LOCAL_ENDPOINTS") == 1


class TestToItsOwnAddresses:
    """What the node asks of a frontend that is an address of its own goes by loopback."""

    def sent(self, world: World, protocol: int = TCP, **changes: object) -> Packet:
        payload = b"hello" if protocol == UDP else b""
        sent = Packet(world.node, world.node, 40000, 30080, protocol, payload=payload)
        return sent.but(source_mac=NO_MAC, destination_mac=NO_MAC).but(**changes)

    @pytest.mark.rule("KI-13")
    @pytest.mark.parametrize("protocol", list(Protocol), ids=lambda p: p.name)
    @pytest.mark.parametrize("place", ["here", "routed", "tunnelled"])
    def test_there_and_back(self, node: Node, world: World, place: str, protocol: Protocol) -> None:
        address, source, way, come_back = {
            "here": (world.pod, world.gateway, (POD_GATEWAY_MAC, POD_MAC), node.by_pod),
            "routed": (world.routed_pod, world.node, (UPLINK_MAC, OTHER_NODE_MAC), node.by_uplink),
            "tunnelled": (
                world.far_pod, world.tunnel, (TUNNEL_MAC, TUNNEL_PEER_MAC), node.by_tunnel,
            ),
        }[place]  # fmt: skip
        node.kernel.service(world.node, 30080, [(address, 80)], protocol=protocol, kind=NODE_PORT)
        sent = self.sent(world, protocol, payload=bytes([1, 0, 0, 4] * 5))
        there = node.loopback(sent)
        assert there.redirected and there.packet.valid
        assert there.packet == sent.but(
            source=source,
            destination=address,
            destination_port=80,
            source_mac=mac(way[0]),
            destination_mac=mac(way[1]),
        )
        answer = there.packet.reply()
        back = come_back(answer)
        assert back.redirected and back.packet.valid
        assert back.packet == sent.reply(payload=answer.payload, flags=answer.flags)
        assert node.loopback(sent.but(flags=ACK)).packet.destination == address
        assert node.kernel.count("NEW") == 1

    def test_another_process_of_the_node(self, node: Node, world: World) -> None:
        """Both ways are received by loopback once more, so that the kernel's connection tracking
        sees two whole connections."""
        node.kernel.service(world.node, 30080, [], local=[(world.node, 6443)], kind=NODE_PORT)
        sent = self.sent(world)
        there = node.loopback(sent)
        assert there.redirected and there.packet.valid
        assert there.packet == sent.but(destination_port=6443)
        again = node.loopback(there.packet)
        assert again.passed and again.packet == there.packet
        back = node.loopback(there.packet.reply())
        assert back.redirected and back.packet.valid
        assert back.packet == sent.reply()
        node.loopback(sent.but(flags=ACK, acknowledged=1001))
        node.loopback(sent.but(flags=FIN | ACK))
        node.loopback(there.packet.reply(flags=FIN | ACK))
        assert {state_of(word) for word, _ in node.kernel.flows()} == {CLOSING}

    @pytest.mark.parametrize("packet_bytes", [1500, 1501, 3000])
    def test_too_big_for_the_way(self, node: Node, world: World, packet_bytes: int) -> None:
        """Loopback's MTU is not a link's. IPv4: the kernel may fragment; IPv6: the sender hears."""
        node.kernel.service(
            world.node, 30080, [(world.routed_pod, 80)], protocol=Protocol.UDP, kind=NODE_PORT
        )
        ipv4 = node.kernel.family is Family.IPV4
        payload = bytes(packet_bytes - 8 - (20 if ipv4 else 40))
        sent = self.sent(world, UDP, payload=payload, identification=0, dont_fragment=True)
        there = node.loopback(sent)
        assert there.redirected and there.packet.valid
        if packet_bytes == 1500:
            assert macs(there.packet) == (mac(UPLINK_MAC), mac(OTHER_NODE_MAC))
            assert there.packet.dont_fragment == sent.dont_fragment
            return
        assert macs(there.packet) == (NO_MAC, NO_MAC)
        if ipv4:
            assert there.packet.destination == world.routed_pod
            assert not there.packet.dont_fragment
            again = node.loopback(sent).packet
            assert again.identification != there.packet.identification
        else:
            assert there.packet.protocol == ICMPV6 and there.packet.payload[0] == 2

    def test_without_endpoints(self, node: Node, world: World) -> None:
        for protocol in Protocol:
            node.kernel.service(world.node, 30080, [], kind=NODE_PORT, protocol=protocol)
        got = node.loopback(self.sent(world))
        assert got.redirected and got.packet.flags == RST | ACK
        assert macs(got.packet) == (NO_MAC, NO_MAC)
        got = node.loopback(self.sent(world, UDP))
        assert got.redirected and (got.packet.source, got.packet.destination) == (world.node,) * 2
        assert got.packet.protocol in (1, 58)

    def test_source_ranges(self, node: Node, world: World) -> None:
        """An LB address on the node itself, which is then its own source as well."""
        for port, network_ in ((80, world.node), (81, world.outside)):
            node.kernel.service(
                world.node,
                port,
                [],
                local=[(world.pod, 80)],
                kind=FrontendKind.LOAD_BALANCER,
                flags=FrontendFlag.SOURCE_RANGES,
                source_ranges=[
                    parse_network(f"{network_}/{32 if node.kernel.family is Family.IPV4 else 128}")
                ],
            )
        assert node.loopback(self.sent(world, destination_port=80)).redirected
        assert node.loopback(self.sent(world, destination_port=81)).dropped

    @pytest.mark.rule("VE-5")
    def test_policy_local_takes_the_short_way(self, node: Node, world: World) -> None:
        node.kernel.service(world.node, 30080, [(world.far_pod, 80)], kind=NODE_PORT, flags=LOCAL)
        assert node.loopback(self.sent(world)).packet.destination == world.far_pod

    def test_what_is_no_frontend_passes(self, node: Node, world: World) -> None:
        node.kernel.service(world.node, 30080, [], local=[(world.pod, 80)], kind=NODE_PORT)
        for sent in (
            self.sent(world, destination_port=22),
            self.sent(world, destination_port=22, flags=ACK),
            self.sent(world, UDP),
            self.sent(world).reply(),
        ):
            got = node.loopback(sent)
            assert got.passed and got.frame == sent.frame()
        assert not node.kernel.flows() and not node.kernel.counters()

    def test_the_services_end_does_not_end_its_connections(self, node: Node, world: World) -> None:
        service = node.kernel.service(
            world.node, 30080, [], local=[(world.pod, 80)], kind=NODE_PORT
        )
        there = node.loopback(self.sent(world)).packet
        node.by_pod(there.reply())
        node.kernel.writer.delete(service)
        assert node.loopback(self.sent(world, flags=ACK)).packet.destination == world.pod


class TestErrors:
    """The node hears of what it asked for, where it expects it."""

    def test_from_a_router_in_the_tunnel(self, node: Node, world: World) -> None:
        """Its own address is not a stranger's where it comes in."""
        sent = to_uplink(Packet(world.node, world.vip, 40000, 80, UDP, payload=b"hello"))
        node.kernel.service(world.vip, 80, [(world.far_pod, 53)], protocol=Protocol.UDP)
        there = node.out(sent).packet
        got = node.by_tunnel(too_big(there, world.far_pod[:-1] + "1"))
        assert got.passed and got.packet.valid
        assert got.packet.destination == world.node
        assert ends(quotation(got.packet)) == ends(sent)

    @pytest.mark.parametrize("asked", ["vip", "node"])
    def test_from_the_backend(self, node: Node, world: World, asked: str) -> None:
        address = getattr(world, asked)
        sent = Packet(world.node, address, 40000, 30080, UDP, payload=b"hello")
        kind = FrontendKind.CLUSTER_IP if asked == "vip" else NODE_PORT
        node.kernel.service(
            address, 30080, [], local=[(world.pod, 53)], protocol=Protocol.UDP, kind=kind
        )
        there = (node.out if asked == "vip" else node.loopback)(sent).packet
        got = node.by_pod(too_big(there, world.pod))
        assert got.redirected and got.packet.valid
        assert (got.packet.source, got.packet.destination) == (address, world.node)
        expected = (mac(ROUTER_MAC), mac(UPLINK_MAC)) if asked == "vip" else (NO_MAC, NO_MAC)
        assert macs(got.packet) == expected
        assert ends(quotation(got.packet)) == ends(sent)

    def test_from_the_nodes_socket(self, node: Node, world: World) -> None:
        """Its own, about an answer that came too late: to the backend, by its way."""
        node.kernel.service(
            world.node, 30080, [(world.far_pod, 53)], protocol=Protocol.UDP, kind=NODE_PORT
        )
        there = node.loopback(
            Packet(world.node, world.node, 40000, 30080, UDP, payload=b"hello")
        ).packet
        answer = there.reply()
        heard = node.by_tunnel(answer).packet
        got = node.loopback(too_big(heard, world.node))
        assert got.redirected and got.packet.valid
        assert (got.packet.source, got.packet.destination) == (world.tunnel, world.far_pod)
        assert macs(got.packet) == (mac(TUNNEL_MAC), mac(TUNNEL_PEER_MAC))
        assert ends(quotation(got.packet)) == ends(answer)

    def test_between_two_processes_of_the_node(self, node: Node, world: World) -> None:
        node.kernel.service(
            world.node, 30080, [], local=[(world.node, 53)], protocol=Protocol.UDP, kind=NODE_PORT
        )
        sent = Packet(world.node, world.node, 40000, 30080, UDP, payload=b"hello")
        there = node.loopback(sent).packet
        got = node.loopback(too_big(there, world.node))
        assert got.redirected and got.packet.valid
        assert ends(quotation(got.packet)) == ends(sent)
