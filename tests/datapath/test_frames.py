"""Real frames through attached programs: what the kernel's test run refuses or cannot have.

Frames shorter than an IP header and VLAN tags come from raw sockets through a bridge, which changes
nothing by itself; segments joined by offloads, and checksums left to the device, from real sockets
through a node that routes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ebpf_lb.datapath.attach.tc import TrafficControl
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.lab import namespaces
from ebpf_lb.model.values import Family, Protocol
from tests.capabilities import DATAPATH, RAW_SOCKETS, needs
from tests.datapath import judge, wires
from tests.datapath.judge import Target
from tests.datapath.kernel import Kernel
from tests.datapath.pod_world import WORLDS, World
from tests.support.packets import SCTP, TCP, Packet, packed

pytestmark = needs(*DATAPATH, RAW_SOCKETS)

SINK_MAC = bytes.fromhex("0200000051ee")
SENDER_MAC = bytes.fromhex("020000005e0d")
TARGET_PORT = 9376
_PACKET_AUXDATA, _SOL_PACKET = 8, 263
_VLAN_VALID, _VLAN_TPID_VALID = 1 << 4, 1 << 6
_UDP_SEGMENT = 103
PATIENCE_S = 30  # for what is sure to come


@dataclass(frozen=True)
class Wiring:
    """node routes between client and backend and bridges between sender and sink."""

    node: wires.Namespace
    client: wires.Namespace
    backend: wires.Namespace
    sender: wires.Namespace
    sink: wires.Namespace

    def received_by_node(self) -> int:
        """Buffers that came in from the client, a joined one counted once."""
        with namespaces.entered(self.node.path):
            text = Path("/proc/thread-self/net/dev").read_text()
        line = next(line for line in text.splitlines() if line.strip().startswith("client:"))
        return int(line.split(":")[1].split()[1])


@pytest.fixture(scope="module")
def wiring(loaded_root: Path) -> Iterator[Wiring]:
    names = ("node", "client", "backend", "sender", "sink")
    with wires.network(*names) as (node, client, backend, sender, sink):
        node.sysctl(net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1)
        for other in (client, backend, sender, sink):
            port = other.name.rpartition("-")[2]
            node.ip(f"link add {port} type veth peer eth0 netns {other.name}")
            node.ip(f"link set {port} mtu 9000 up")
            other.ip("link set eth0 mtu 9000 up")
        for family in Family:
            world = WORLDS[family]
            nodad, all_ = ("nodad", "::/0") if family is Family.IPV6 else ("", "0.0.0.0/0")
            gateway = "fd00::1" if family is Family.IPV6 else "169.254.1.1"
            for other, address in ((client, world.client), (backend, world.backend)):
                port = other.name.rpartition("-")[2]
                node.ip(f"addr add {gateway} dev {port} {nodad}", f"route add {address} dev {port}")
                other.ip(
                    f"addr add {address} dev eth0 {nodad}",
                    f"route add {gateway} dev eth0",
                    f"route add {all_} via {gateway}",
                )
        for other in (client, backend):
            other.ip("link set eth0 mtu 1500")
            node.ip(f"link set {other.name.rpartition('-')[2]} mtu 1500")
        node.ip("link add br0 type bridge", "link set br0 mtu 9000 up")
        node.ip("link set sender master br0", "link set sink master br0")
        sink.ip(f"link set eth0 address {SINK_MAC.hex(':')} promisc on")
        if Path("/proc/sys/net/bridge").exists():
            node.sysctl(
                **{
                    f"net__bridge__bridge-nf-call-{table}": 0
                    for table in ("iptables", "ip6tables", "arptables")
                }
            )
        for quiet in (sender, sink):
            quiet.sysctl(net__ipv6__conf__all__disable_ipv6=1)
        with namespaces.entered(node.path), TrafficControl() as control:
            control.use(Pins(loaded_root).current)
            for port in names[1:]:
                assert control.attach(node.ifindex(port))
        yield Wiring(node, client, backend, sender, sink)


@pytest.fixture(params=list(Family), ids=lambda family: family.directory)
def kernel(
    request: pytest.FixtureRequest, _kernels: dict[Family, Kernel], wiring: Wiring
) -> Kernel:
    kernel = _kernels[request.param]
    kernel.reset()
    for port in ("client", "backend", "sender", "sink"):
        kernel.writer.set_interface(wiring.node.ifindex(port), 0, 1, SINK_MAC)
    return kernel


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


# raw frames


class Bench:
    """Sends frames from one raw socket and says how they arrive at the other."""

    def __init__(self, wiring: Wiring) -> None:
        with namespaces.entered(wiring.sender.path):
            self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self._out.bind(("eth0", 0))
        with namespaces.entered(wiring.sink.path):
            self._in = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self._in.bind(("eth0", 3))
        self._in.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self._in.settimeout(PATIENCE_S)

    def close(self) -> None:
        self._out.close()
        self._in.close()

    def through(self, frame: bytes) -> bytes | None:
        """What arrives of this frame, its VLAN tag included; None if nothing does."""
        self._out.send(frame)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                got, extra, _, _ = self._in.recvmsg(65536, 256)
            except TimeoutError:
                return None
            for level, kind, data in extra:
                if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                    status, tag, protocol = struct.unpack("=I12xHH", data[:20])
                    if status & _VLAN_VALID:
                        known = protocol if status & _VLAN_TPID_VALID else 0x8100
                        got = got[:12] + struct.pack("!HH", known, tag) + got[12:]
            if got[6:12] == SENDER_MAC:
                return got
        return None


@pytest.fixture(params=["pod", "uplink"])
def bench(request: pytest.FixtureRequest, wiring: Wiring, loaded_root: Path) -> Iterator[Bench]:
    """Between two interfaces of this role."""
    role: str = request.param
    with namespaces.entered(wiring.node.path), TrafficControl() as control:
        control.use(Pins(loaded_root).current, role)
        for port in ("sender", "sink"):
            assert control.attach(wiring.node.ifindex(port), role)
    found = Bench(wiring)
    yield found
    found.close()


def to_vip(world: World, protocol: int, payload: bytes = b"x" * 24, port: int = 80) -> Packet:
    """What opens a connection."""
    if protocol == SCTP:
        payload = b"\1" + payload[1:]
    return Packet(
        world.client,
        world.vip,
        40000,
        port,
        protocol,
        payload=payload,
        source_mac=SENDER_MAC,
        destination_mac=SINK_MAC,
    )


def serve(kernel: Kernel, world: World, protocol: Protocol = Protocol.TCP) -> None:
    """A Service whose backend is on this node, so that nothing is sent another way."""
    backend = (world.backend, TARGET_PORT)
    kernel.service(world.vip, 80, [], local=[backend], protocol=protocol)


@pytest.mark.parametrize("protocol", list(Protocol), ids=lambda p: p.name)
def test_every_length_of_frame(
    kernel: Kernel, world: World, bench: Bench, protocol: Protocol
) -> None:
    serve(kernel, world, protocol)
    tables = {
        (packed(world.vip), 80, int(protocol)): Target(
            frozenset([packed(world.backend)]), TARGET_PORT
        )
    }
    whole = to_vip(world, protocol).frame()
    header = len(whole) - 24 - (12 if protocol is Protocol.SCTP else 0)
    truncated = 0
    # a frame without any payload is nobody's
    for length in range(15, len(whole) + 1):
        frame = whole[:length]
        got = bench.through(frame)
        assert got is not None, length
        if got == frame:
            truncated += 1
            assert length < header + 16
        else:
            assert not judge.wrong_translation(frame, got, tables), length
    assert kernel.count("TRUNCATED") == truncated
    assert truncated >= header - 15


@pytest.mark.parametrize("kind", [0x8100, 0x88A8])
def test_vlan_tags_are_somebody_elses(
    kernel: Kernel, world: World, bench: Bench, kind: int
) -> None:
    serve(kernel, world)
    frame = to_vip(world, TCP).frame()
    for tag in (0x0001, 0x4500, 0x6FFF):
        tagged = frame[:12] + struct.pack("!HH", kind, tag) + frame[12:]
        assert bench.through(tagged) == tagged
    assert not kernel.counters() and not kernel.flows()


def test_other_protocols_are_somebody_elses(kernel: Kernel, world: World, bench: Bench) -> None:
    serve(kernel, world)
    frame = to_vip(world, TCP).frame()
    for kind in (0x0806, 0x88CC, 0x9000, 0x1234, 46):
        other = frame[:12] + struct.pack("!H", kind) + frame[14:]
        assert bench.through(other) == other
    assert not kernel.counters() and not kernel.flows()


@pytest.mark.parametrize("protocol", list(Protocol), ids=lambda p: p.name)
def test_large_frames(kernel: Kernel, world: World, bench: Bench, protocol: Protocol) -> None:
    serve(kernel, world, protocol)
    for size in (1400, 4000, 8900):
        sent = to_vip(world, protocol, os.urandom(size))
        got = bench.through(sent.frame())
        assert got is not None
        wanted = sent.but(destination=world.backend, destination_port=TARGET_PORT)
        assert got == wanted.frame()


# real sockets

OFFLOADS = {
    "offloads on": {},
    "checksums completed at the node": {"client": False, "backend": False},
}


@pytest.fixture(params=OFFLOADS, ids=lambda name: name.replace(" ", "-"))
def offloads(request: pytest.FixtureRequest, wiring: Wiring) -> Iterator[None]:
    """Where the node's devices compute no checksums, the kernel completes them there, by what we
    made of the packet, and the receiver checks them."""
    wanted: dict[str, bool] = OFFLOADS[request.param]
    for port in wanted:
        wiring.node.offload(port, tx=False)
    yield
    for port in wanted:
        wiring.node.offload(port, tx=True)


@contextmanager
def listening(place: wires.Namespace, address: str, kind: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespaces.entered(place.path), socket.socket(family, kind) as server:
        server.bind((address, TARGET_PORT))
        server.settimeout(PATIENCE_S)
        if kind == socket.SOCK_STREAM:
            server.listen(8)
        yield server


def fresh(place: wires.Namespace, address: str, kind: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespaces.entered(place.path):
        made = socket.socket(family, kind)
    made.settimeout(PATIENCE_S)
    return made


STREAM_BYTES = 32 << 20


def test_a_stream_of_joined_segments(
    kernel: Kernel, world: World, wiring: Wiring, offloads: None
) -> None:
    service = kernel.service(world.vip, 80, [(world.backend, TARGET_PORT)])
    block = os.urandom(1 << 20)
    received = hashlib.sha256()

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(PATIENCE_S)
            while data := connection.recv(1 << 20):
                received.update(data)
            connection.sendall(received.digest() * 4096)

    before = wiring.received_by_node()
    with listening(wiring.backend, world.backend, socket.SOCK_STREAM) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        with fresh(wiring.client, world.vip, socket.SOCK_STREAM) as connection:
            connection.connect((world.vip, 80))
            sent = hashlib.sha256()
            for number in range(STREAM_BYTES >> 20):
                piece = number.to_bytes(8) + block[8:]
                sent.update(piece)
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while data := connection.recv(1 << 20):
                answer += data
        thread.join()
    assert answer == sent.digest() * 4096
    # the last packets may still be under way: both ends were told before they were counted
    end = time.monotonic() + PATIENCE_S
    while True:
        there, back = kernel.count("ESTABLISHED"), kernel.count("REPLY")
        connections, packets, size = kernel.connections(service)
        if packets == there + back or time.monotonic() > end:
            break
    buffers = wiring.received_by_node() - before
    # counted as on the wire: segments of 1428 or 1448 bytes, however many a buffer joins
    segments = STREAM_BYTES / (1448 if kernel.family is Family.IPV4 else 1428)
    assert connections == 1 and packets == there + back
    assert segments <= there < segments * 1.1 + buffers
    assert size > STREAM_BYTES + len(answer)
    assert buffers < there / 3, "the sender joined no segments, so that this shows nothing"


@contextmanager
def refused() -> Iterator[None]:
    """At once, if no more than one packet of it was counted."""
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno == errno.ECONNREFUSED


def test_refusals_of_real_sockets(
    kernel: Kernel, world: World, wiring: Wiring, offloads: None
) -> None:
    kernel.service(world.vip, 80, [])
    kernel.service(world.vip, 80, [], protocol=Protocol.UDP)
    for payload in (b"", b"?", b"x" * 1000):
        with fresh(wiring.client, world.vip, socket.SOCK_STREAM) as tcp, refused():
            tcp.connect((world.vip, 80))
        with fresh(wiring.client, world.vip, socket.SOCK_DGRAM) as udp, refused():
            udp.connect((world.vip, 80))
            udp.send(payload)
            udp.recv(100)
    assert kernel.count("NO_ENDPOINTS") == 6


def echo_back(server: socket.socket, count: int) -> Callable[[], None]:
    def work() -> None:
        for _ in range(count):
            data, sender = server.recvfrom(65536)
            server.sendto(data, sender)

    return work


@pytest.mark.parametrize("size", [0, 1, 1000, 8000])
def test_datagrams_there_and_back(
    kernel: Kernel, world: World, wiring: Wiring, offloads: None, size: int
) -> None:
    """8,000 bytes travel in fragments."""
    kernel.service(world.vip, 80, [(world.backend, TARGET_PORT)], protocol=Protocol.UDP)
    with listening(wiring.backend, world.backend, socket.SOCK_DGRAM) as server:
        thread = threading.Thread(target=echo_back(server, 2))
        thread.start()
        with fresh(wiring.client, world.vip, socket.SOCK_DGRAM) as client:
            client.connect((world.vip, 80))  # hears the VIP and nobody else
            for _ in range(2):
                payload = os.urandom(size)
                client.send(payload)
                assert client.recv(65536) == payload
        thread.join()


def test_joined_datagrams(kernel: Kernel, world: World, wiring: Wiring, offloads: None) -> None:
    """UDP segmentation offload: one buffer, many datagrams."""
    kernel.service(world.vip, 80, [(world.backend, TARGET_PORT)], protocol=Protocol.UDP)
    payload = os.urandom(12_000)
    with (
        listening(wiring.backend, world.backend, socket.SOCK_DGRAM) as server,
        fresh(wiring.client, world.vip, socket.SOCK_DGRAM) as client,
    ):
        client.setsockopt(socket.SOL_UDP, _UDP_SEGMENT, 1200)
        client.connect((world.vip, 80))
        client.send(payload)
        got = [server.recv(65536) for _ in range(10)]
    assert b"".join(got) == payload and {len(part) for part in got} == {1200}
    assert kernel.count("ESTABLISHED") == 10


def test_all_that_a_closed_port_says_comes_back(
    kernel: Kernel, world: World, wiring: Wiring, offloads: None
) -> None:
    """A RST of the backend's own is a reply like any other."""
    kernel.service(world.vip, 80, [(world.backend, TARGET_PORT)])
    with fresh(wiring.client, world.vip, socket.SOCK_STREAM) as tcp, refused():
        tcp.connect((world.vip, 80))
    assert kernel.count("REPLY") == 1
