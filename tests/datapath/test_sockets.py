"""The node's own sockets, real ones: translated where they name an address, and never the wiser."""

from __future__ import annotations

import errno
import selectors
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ebpf_lb.datapath.attach.cgroup import attach_cgroup, remove_link
from ebpf_lb.datapath.attach.tc import TrafficControl
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.lab import namespaces
from ebpf_lb.model.values import Family, Protocol, parse_address
from ebpf_lb.plan.forwarding import FrontendFlag, FrontendKind, ServicePortName
from tests.capabilities import CGROUP2, DATAPATH, needs
from tests.datapath import wires
from tests.datapath.kernel import LOOPBACK, NODE, Kernel
from tests.datapath.pod_world import WORLDS, World
from tests.support.packets import TCP, Packet

pytestmark = needs(*DATAPATH, CGROUP2)

PORT, TARGET_PORT = 80, 9376
PATIENCE_S = 30  # for what is sure to come
BACKENDS = {family: [f"{WORLDS[family].backend[:-1]}{n}" for n in range(1, 9)] for family in Family}


@dataclass(frozen=True)
class Place:
    """Where sockets are ours, where they are not, and the cgroup that holds both."""

    node: wires.Namespace
    other: wires.Namespace
    group: Path


def answer(ready: Callable[[], None], ports: tuple[int, ...]) -> None:
    """Says on every connection and datagram which of its addresses was reached."""
    selector = selectors.DefaultSelector()
    for port in ports:
        listening = socket.create_server(
            ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64
        )
        selector.register(listening, selectors.EVENT_READ, port)
        for family in Family:
            for address in (*BACKENDS[family], WORLDS[family].vip):
                kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
                datagrams = socket.socket(kind, socket.SOCK_DGRAM)
                try:
                    datagrams.bind((address, port))
                except OSError:
                    datagrams.close()  # not an address of this namespace
                    continue
                selector.register(datagrams, selectors.EVENT_READ, port)
    ready()
    while True:
        for key, _ in selector.select():
            found = key.fileobj
            assert isinstance(found, socket.socket)
            if found.type == socket.SOCK_STREAM:
                connection, _ = found.accept()
                with connection:
                    connection.sendall(plain(connection.getsockname()[0]).encode())
            else:
                _, sender = found.recvfrom(2048)
                found.sendto(plain(found.getsockname()[0]).encode(), sender)


def plain(address: str) -> str:
    return address.removeprefix("::ffff:")


@pytest.fixture(scope="module")
def place(loaded_root: Path) -> Iterator[Place]:
    with wires.network("node", "other") as (node, other), wires.cgroup("sockets") as group:
        for where in (node, other):
            where.ip("link add d0 type veth peer d1", "link set d1 up", "link set d0 up")
            # sockets that are left alone may send: nobody answers there
            where.ip("route add default dev d0", "route add ::/0 dev d0")
        for family in Family:
            for address in (NODE[family], *BACKENDS[family]):
                node.ip(f"addr add {address} dev d0 {'nodad' if ':' in address else ''}")
            other.ip(f"addr add {WORLDS[family].vip} dev d0 {'nodad' if family == 6 else ''}")
        links = loaded_root / "links-of-sockets"
        attach_cgroup(Pins(loaded_root).current, links, group)
        try:
            with (
                wires.running(node, lambda ready: answer(ready, (TARGET_PORT,))),
                wires.running(other, lambda ready: answer(ready, (PORT,))),
            ):
                yield Place(node, other, group)
        finally:
            for pin in links.iterdir():
                remove_link(pin)
            links.rmdir()


@dataclass(frozen=True)
class Node:
    """The node's sockets. mapped: IPv4 addresses, named through IPv6 sockets."""

    kernel: Kernel
    world: World
    place: Place
    mapped: bool

    @property
    def family(self) -> int:
        ipv4 = self.kernel.family is Family.IPV4 and not self.mapped
        return socket.AF_INET if ipv4 else socket.AF_INET6

    def spelled(self, address: str) -> str:
        return f"::ffff:{address}" if self.mapped else address

    def run(
        self, function: Callable[[socket.socket], object], kind: int, other: bool = False
    ) -> object:
        """What `function` makes of a fresh socket in the node's cgroup."""

        def work() -> object:
            with socket.socket(self.family, kind) as fresh:
                fresh.settimeout(PATIENCE_S)
                return function(fresh)

        return wires.inside(self.place.other if other else self.place.node, work, self.place.group)

    def connect(self, address: str, port: int = PORT, other: bool = False) -> object:
        """TCP: who answered, and whom the socket takes for its peer."""

        def work(fresh: socket.socket) -> object:
            fresh.connect((self.spelled(address), port))
            return fresh.recv(100).decode(), fresh.getpeername()[:2]

        return self.run(work, socket.SOCK_STREAM, other)

    def ask(self, *ends: tuple[str, int], connected: bool = False, other: bool = False) -> object:
        """UDP, one socket: who answered each, and from where by the socket's account."""

        def work(fresh: socket.socket) -> object:
            answers = []
            for address, port in ends:
                if connected:
                    fresh.connect((self.spelled(address), port))
                    fresh.send(b"?")
                    assert fresh.getpeername()[:2] == (self.spelled(address), port)
                else:
                    fresh.sendto(b"?", (self.spelled(address), port))
                data, sender = fresh.recvfrom(100)
                answers.append((data.decode(), sender[:2]))
            return answers

        return self.run(work, socket.SOCK_DGRAM, other)

    def service(self, backends: list[str], **more: object) -> ServicePortName:
        found = [(backend, TARGET_PORT) for backend in backends]
        return self.kernel.service(self.world.vip, PORT, found, **more)  # type: ignore[arg-type]


@pytest.fixture(params=["ipv4", "mapped", "ipv6"])
def node(request: pytest.FixtureRequest, _kernels: dict[Family, Kernel], place: Place) -> Node:
    family = Family.IPV6 if request.param == "ipv6" else Family.IPV4
    kernel = _kernels[family]
    kernel.reset()
    kernel.writer.set_config(wires.netns_cookie(place.node), False, 1000)
    return Node(kernel, WORLDS[family], place, request.param == "mapped")


def test_tcp(node: Node) -> None:
    service = node.service([node.world.backend])
    for round_ in range(1, 4):
        assert node.connect(node.world.vip) == (
            node.world.backend,
            (node.spelled(node.world.vip), PORT),
        )
        assert node.kernel.connections(service)[0] == round_
        assert node.kernel.count("SOCKET") == round_
    assert not node.kernel.flows()


@pytest.mark.rule("CO-5")
@pytest.mark.parametrize("first", ["the Service", "its backend"])
def test_a_service_and_its_backend_from_one_tcp_port(node: Node, first: str) -> None:
    """Connected to the backend alike, the second one would have no address to connect from."""
    node.service([node.world.backend])
    ends = [(node.world.vip, PORT), (node.world.backend, TARGET_PORT)]
    if first == "its backend":
        ends.reverse()

    def work(one: socket.socket) -> object:
        with socket.socket(node.family, socket.SOCK_STREAM) as other:
            for each in (one, other):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                each.setblocking(False)
            one.bind(("", 0))
            other.bind(("", one.getsockname()[1]))
            return [
                each.connect_ex((node.spelled(address), port))
                for each, (address, port) in zip((one, other), ends, strict=True)
            ]

    assert node.run(work, socket.SOCK_STREAM) == [errno.EINPROGRESS, errno.EINPROGRESS]
    assert not node.kernel.count("SOCKET")  # packets are translated


def test_a_port_of_its_own_makes_no_difference(node: Node) -> None:
    node.service([node.world.backend])

    def work(fresh: socket.socket) -> object:
        fresh.bind(("", 0))
        fresh.connect((node.spelled(node.world.vip), PORT))
        return fresh.recv(100).decode()

    assert node.run(work, socket.SOCK_STREAM) == node.world.backend
    assert node.kernel.count("SOCKET") == 1


@pytest.mark.parametrize("connected", [True, False])
def test_udp(node: Node, connected: bool) -> None:
    node.service(BACKENDS[node.kernel.family], protocol=Protocol.UDP)
    vip = (node.world.vip, PORT)
    answers = node.ask(vip, vip, vip, connected=connected)
    assert isinstance(answers, list)
    assert {sender for _, sender in answers} == {(node.spelled(vip[0]), PORT)}
    # one socket keeps to one backend
    assert len({backend for backend, _ in answers}) == 1
    assert node.kernel.count("SOCKET") == 3


def test_connections_are_spread(node: Node) -> None:
    node.service(BACKENDS[node.kernel.family])

    def work() -> set[str]:
        reached = set()
        for _ in range(240):
            with socket.create_connection(
                (node.spelled(node.world.vip), PORT), PATIENCE_S
            ) as fresh:
                reached.add(fresh.recv(100).decode())
        return reached

    reached = wires.inside(node.place.node, work, node.place.group)
    # some backend is missed by chance in one of 10^13 runs
    assert reached == set(BACKENDS[node.kernel.family])


@contextmanager
def refused() -> Iterator[None]:
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno == errno.ECONNREFUSED


@pytest.mark.parametrize("port", [PORT, 81])
def test_refusals_are_heard_at_once(node: Node, port: int) -> None:
    """Without endpoints, and at a port that no Service serves; again and again."""
    for protocol in (Protocol.TCP, Protocol.UDP):
        node.service([], protocol=protocol)
    for _ in range(3):
        with refused():
            node.connect(node.world.vip, port)
        with refused():
            node.ask((node.world.vip, port))
        with refused():
            node.ask((node.world.vip, port), connected=True)
    assert node.kernel.count("NO_ENDPOINTS" if port == PORT else "UNSERVED_PORT") == 9


def test_drop_leaves_the_address_alone(node: Node) -> None:
    """Traffic policy Local without a local endpoint: silence, so that clients try again."""
    node.service(
        [node.world.backend], protocol=Protocol.UDP, flags=FrontendFlag.LOCAL, has_any=True
    )

    def work(fresh: socket.socket) -> object:
        fresh.settimeout(0.3)
        fresh.connect((node.spelled(node.world.vip), PORT))
        fresh.send(b"?")
        with pytest.raises(TimeoutError):
            fresh.recv(100)
        return fresh.getpeername()[:2]

    assert node.run(work, socket.SOCK_DGRAM) == (node.spelled(node.world.vip), PORT)


def test_pods_in_the_same_cgroup_are_left_alone(node: Node) -> None:
    """Told by the network namespace: there the very address has a listener of its own."""
    for protocol in (Protocol.TCP, Protocol.UDP):
        node.service([node.world.backend], protocol=protocol)
    vip = (node.world.vip, PORT)
    assert node.connect(*vip, other=True) == (vip[0], (node.spelled(vip[0]), PORT))
    assert node.ask(vip, other=True) == [(vip[0], (node.spelled(vip[0]), PORT))]
    assert node.kernel.count("SOCKET") == 0


def test_other_destinations_are_left_alone(node: Node) -> None:
    for protocol in (Protocol.TCP, Protocol.UDP):
        node.service([node.world.backend], protocol=protocol)
    end = (node.world.backend, TARGET_PORT)
    seen = (node.spelled(end[0]), TARGET_PORT)
    assert node.connect(*end) == (end[0], seen)
    assert node.ask(end) == node.ask(end, connected=True) == [(end[0], seen)]
    # one socket, by Service and directly to another backend: each answer from whom was asked
    other = (node.world.other_backend, TARGET_PORT)
    vip = (node.world.vip, PORT)
    answers = node.ask(vip, other, vip)
    assert answers == [
        (end[0], (node.spelled(vip[0]), PORT)),
        (other[0], (node.spelled(other[0]), TARGET_PORT)),
        (end[0], (node.spelled(vip[0]), PORT)),
    ]


@pytest.mark.rule("AF-6")
def test_affinity_is_the_same_through_sockets_and_packets(node: Node) -> None:
    """One table: the node is the same client at TC and at its sockets."""
    kernel, vip = node.kernel, node.world.vip
    node.service(BACKENDS[kernel.family], affinity_timeout_s=60)
    packet = Packet(NODE[kernel.family], vip, 1234, PORT, TCP)
    chosen = kernel.run("pod_ingress", packet).packet.destination
    reached = {str(node.connect(vip)) for _ in range(6)}
    assert reached == {str((chosen, (node.spelled(vip), PORT)))}

    rest = [backend for backend in BACKENDS[kernel.family] if backend != chosen]
    kernel.service(vip, PORT, [(b, TARGET_PORT) for b in rest], affinity_timeout_s=60, name="s0")
    following = {str(node.connect(vip)) for _ in range(6)}
    assert len(following) == 1 and following != reached
    for port in range(2000, 2006):
        packet = packet.but(source_port=port)
        again = kernel.run("pod_ingress", packet).packet.destination
        assert following == {str((again, (node.spelled(vip), PORT)))}


def test_a_socket_follows_to_a_new_backend(node: Node) -> None:
    """Unconnected: its next datagram goes to who serves by then."""
    vip = (node.world.vip, PORT)
    for backend in (node.world.backend, node.world.other_backend):
        node.kernel.service(
            vip[0], PORT, [(backend, TARGET_PORT)], protocol=Protocol.UDP, name="moving"
        )
        assert node.ask(vip) == [(backend, (node.spelled(vip[0]), PORT))]


def test_many_services_from_one_socket(node: Node) -> None:
    """A resolver with one socket: each answer from the address that was asked."""
    stem = node.world.vip[:-2]
    vips = [f"{stem}{number}" for number in range(100, 108)]
    for vip, backend in zip(vips, BACKENDS[node.kernel.family], strict=True):
        node.kernel.service(vip, PORT, [(backend, TARGET_PORT)], protocol=Protocol.UDP)
    answers = node.ask(*((vip, PORT) for vip in vips))
    assert answers == [
        (backend, (node.spelled(vip), PORT))
        for vip, backend in zip(vips, BACKENDS[node.kernel.family], strict=True)
    ]


def test_an_unconnected_socket_keeps_to_its_backend_while_that_serves(node: Node) -> None:
    """As its packets' flow would: endpoints that are added change nothing, one that leaves does."""
    vip, name = (node.world.vip, PORT), "growing"
    all_of_them = BACKENDS[node.kernel.family]

    def service(backends: list[str]) -> None:
        found = [(backend, TARGET_PORT) for backend in backends]
        node.kernel.service(*vip, found, protocol=Protocol.UDP, name=name)

    def ask(fresh: socket.socket) -> str:
        fresh.sendto(b"?", (node.spelled(vip[0]), PORT))
        answer, sender = fresh.recvfrom(100)
        assert sender[:2] == (node.spelled(vip[0]), PORT)
        return answer.decode()

    def work() -> None:
        sockets = [socket.socket(node.family, socket.SOCK_DGRAM) for _ in range(6)]
        for each in sockets:
            each.settimeout(PATIENCE_S)
        service(all_of_them[:1])
        assert {ask(each) for each in sockets} == {all_of_them[0]}
        service(all_of_them)
        for _ in range(2):
            assert {ask(each) for each in sockets} == {all_of_them[0]}
        service(all_of_them[1:3])
        later = [ask(each) for each in sockets]
        assert set(later) <= set(all_of_them[1:3])
        service(all_of_them[1:])
        assert [ask(each) for each in sockets] == later

    wires.inside(node.place.node, work, node.place.group)


@pytest.mark.parametrize("backends", [1, 2, 8])
def test_two_services_with_the_same_backends_from_one_socket(node: Node, backends: int) -> None:
    """Asked at once: by whose address each answer comes can be told, or the socket is not served
    (packets of it are)."""
    one, other = node.world.vip, node.world.other_vip
    for vip in (one, other):
        found = [(backend, TARGET_PORT) for backend in BACKENDS[node.kernel.family][:backends]]
        node.kernel.service(vip, PORT, found, protocol=Protocol.UDP)

    def work() -> list[set[str]]:
        with ExitStack() as ends, selectors.DefaultSelector() as answered:
            found = [set[str]() for _ in range(100)]
            for heard in found:
                fresh = ends.enter_context(socket.socket(node.family, socket.SOCK_DGRAM))
                answered.register(fresh, selectors.EVENT_READ, heard)
                for vip in (one, other):
                    fresh.sendto(b"?", (node.spelled(vip), PORT))
            due = node.kernel.count("SOCKET")  # what was translated is answered
            while due and (ready := answered.select(PATIENCE_S)):
                for key, _ in ready:
                    assert isinstance(key.fileobj, socket.socket)
                    key.data.add(plain(key.fileobj.recvfrom(100)[1][0]))
                    due -= 1
            assert not due
            return found

    heard = wires.inside(node.place.node, work, node.place.group)
    assert all(one in each for each in heard)
    # both Services agree by chance, and three more tries do not help: one of 16, or of 4,096; so
    # many of a hundred in one of 10^10 runs
    unserved = sum(other not in each for each in heard)
    assert unserved == 100 if backends == 1 else unserved < (30 if backends == 2 else 5)


@pytest.fixture
def with_loopback(node: Node, loaded_root: Path) -> Iterator[None]:
    """Loopback as the agent makes it: with our program, and accepting what the node itself says."""
    with namespaces.entered(node.place.node.path), TrafficControl() as control:
        namespaces.set_sysctls({"net/ipv4/conf/lo/accept_local": 1})
        control.use(Pins(loaded_root).current, "loopback")
        control.attach(LOOPBACK, "loopback")
        try:
            yield
        finally:
            control.detach(LOOPBACK)


@pytest.mark.usefixtures("with_loopback")
@pytest.mark.parametrize("ports", [2, 12])
def test_node_ports_with_one_backend_from_one_socket(node: Node, ports: int) -> None:
    """All asked before any answer is read: each answers for itself. Where the socket's note has
    room for one only, packets of the others are translated at loopback, by a port of their own."""
    own = NODE[node.kernel.family]
    node.kernel.writer.set_snat_source(1, parse_address(own))
    ends = [(own, 30080 + number) for number in range(ports)]
    backend = (BACKENDS[node.kernel.family][0], TARGET_PORT)
    for end in ends:
        node.kernel.service(
            *end, [], local=[backend], protocol=Protocol.UDP, kind=FrontendKind.NODE_PORT
        )

    def work(fresh: socket.socket) -> object:
        fresh.bind(("", 0))
        heard = []
        for _ in range(2):
            for address, port in ends:
                fresh.sendto(b"?", (node.spelled(address), port))
            heard.append(sorted(fresh.recvfrom(100)[1][:2] for _ in ends))
        return heard

    wanted = sorted((node.spelled(address), port) for address, port in ends)
    assert node.run(work, socket.SOCK_DGRAM) == [wanted] * 2
    assert node.kernel.count("NEW") == ports - 1
