"""How long a connection's entry lives, who may end it, and who gives way in a full table.

Packets may be forged: by who knows the ends of somebody's connection, and by who makes up clients.
Neither must hold an entry for long, nor end, move or hold up what others have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family, Protocol, parse_network
from tests.bench.feeder import Feeder, Traffic
from tests.capabilities import DATAPATH, needs
from tests.datapath.kernel import Kernel, kernels
from tests.datapath.node import WORLDS, entered_node
from tests.datapath.one_service import (
    ABORT,
    COOKIE_ACK,
    COOKIE_ECHO,
    INIT,
    INIT_ACK,
    SCTP_DATA,
    Connection,
    Service,
)
from tests.datapath.test_sweep import events
from tests.datapath.words import (
    ABORTED,
    ANSWERED,
    CLOSING,
    ESTABLISHED,
    NEW,
    ORIGINAL_FIN,
    REPEATED,
    REPLY_FIN,
    RESET,
    SIGNPOST,
    state_of,
)
from tests.support.packets import ACK, FIN, GATEWAY_MAC, PSH, RST, SYN, TCP

pytestmark = needs(*DATAPATH)

CAPACITY = 1024
SETTINGS = Settings(flows=CAPACITY, services=1024, backends=4096, affinity=64, sockets=64)
DAY_S = 86_400


@pytest.fixture(scope="module")
def _kernels() -> Iterator[dict[Family, Kernel]]:
    with kernels("lifetimes", SETTINGS) as both:
        yield both


@pytest.fixture(scope="module")
def uplink() -> Iterator[int]:
    with entered_node() as ifindex:
        yield ifindex


def service_of(protocol: Protocol) -> Callable[[Kernel, int, bool], Service]:
    def made(kernel: Kernel, uplink: int, masqueraded: bool) -> Service:
        kernel.writer.set_interface(uplink, 0, 1, GATEWAY_MAC)
        family = kernel.family
        cidr = "10.244.0.0/16" if family is Family.IPV4 else "fd00:10:244::/48"
        kernel.writer.set_pod_networks([parse_network(cidr)])
        return Service(kernel, uplink, WORLDS[family], masqueraded, protocol)

    return made


@pytest.fixture(params=[False, True], ids=["direct", "masqueraded"])
def masqueraded(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def tcp(kernel: Kernel, uplink: int, masqueraded: bool) -> Service:
    return service_of(Protocol.TCP)(kernel, uplink, masqueraded)


@pytest.fixture
def udp(kernel: Kernel, uplink: int, masqueraded: bool) -> Service:
    return service_of(Protocol.UDP)(kernel, uplink, masqueraded)


@pytest.fixture
def sctp(kernel: Kernel, uplink: int, masqueraded: bool) -> Service:
    return service_of(Protocol.SCTP)(kernel, uplink, masqueraded)


@pytest.mark.rule("CO-8")
class TestWhatMakesItLast:
    """Both ends, the client after the backend."""

    WRONG = (
        {"flags": ACK},
        {"flags": ACK | PSH, "payload": b"blind"},
        {"flags": FIN},
        {"flags": FIN | ACK},
        {"flags": FIN | ACK, "acknowledged": 1002},
        {"flags": SYN},
        {"flags": SYN | ACK, "acknowledged": 1001},
        {"flags": 0},
    )

    @pytest.mark.parametrize("answers", [0, 1, 3])
    @pytest.mark.parametrize("segment", WRONG, ids=str)
    def test_not_what_anybody_may_send(
        self, tcp: Service, segment: dict[str, object], answers: int
    ) -> None:
        connection = Connection(tcp, tcp.client(), tcp.ask(tcp.client()).packet)
        for _ in range(answers):
            connection.back(flags=SYN | ACK)
        for _ in range(2):
            connection.there(**segment)
        assert tcp.state == (ANSWERED if answers else NEW)
        tcp.kernel.age(SETTINGS.tcp_syn_s + 1)
        tcp.kernel.sweep()
        assert not tcp.kernel.flows()

    @pytest.mark.parametrize(
        ("last", "state"),
        [({"flags": ACK}, ESTABLISHED), ({"flags": FIN | ACK}, ORIGINAL_FIN)],
        ids=["ACK", "FIN"],
    )
    def test_the_answer_to_the_syn_ack(
        self, tcp: Service, last: dict[str, object], state: int
    ) -> None:
        connection = Connection(tcp, tcp.client(), tcp.ask(tcp.client()).packet)
        connection.back(flags=SYN | ACK, sequence=0xFFFFFFFF)
        connection.there(**last, acknowledged=1)
        assert tcp.state == ANSWERED
        connection.there(**last, acknowledged=0)
        assert tcp.state == state

    def test_a_backend_that_goes_on(self, tcp: Service) -> None:
        """It has had an answer to its SYN-ACK that did not come by here, or of which nothing is
        known any more."""
        connection = Connection(tcp, tcp.client(), tcp.ask(tcp.client()).packet)
        connection.back(flags=SYN | ACK)
        connection.back(flags=ACK | PSH, payload=b"220 ready")
        assert tcp.state == ESTABLISHED

    @pytest.mark.parametrize(
        ("packets", "state"),
        [
            ("c", NEW),
            ("ccc", NEW),
            ("cb", ANSWERED),
            ("cbbb", ANSWERED),
            ("cbc", REPEATED),
            ("cbccc", REPEATED),
            ("cbcb", ESTABLISHED),
            ("cbbccb", ESTABLISHED),
        ],
    )
    def test_a_second_round_trip_of_udp(self, udp: Service, packets: str, state: int) -> None:
        connection = Connection(udp, udp.client(), udp.ask(udp.client()).packet)
        for sender in packets[1:]:
            connection.there() if sender == "c" else connection.back()
        assert udp.state == state
        udp.kernel.age(SETTINGS.udp_new_s + 1)
        udp.kernel.sweep()
        assert bool(udp.kernel.flows()) == (state == ESTABLISHED)

    def test_an_sctp_association(self, sctp: Service) -> None:
        connection = Connection(sctp, sctp.client(), sctp.ask(sctp.client()).packet)
        for _ in range(2):
            connection.there(payload=INIT)
            connection.back(payload=INIT_ACK)
            connection.there(payload=SCTP_DATA)
        assert sctp.state == ANSWERED
        connection.there(payload=COOKIE_ECHO)
        assert sctp.state == ANSWERED
        connection.back(payload=COOKIE_ACK)
        assert sctp.state == ESTABLISHED


@pytest.mark.rule("CO-7")
class TestForgedEnds:
    IDLE_S = 14

    @pytest.mark.parametrize("who", ["client", "backend"])
    @pytest.mark.parametrize("ports", [1, 2])
    def test_a_reset_ends_nothing_that_goes_on(self, tcp: Service, who: str, ports: int) -> None:
        connections = [tcp.established(40000 + number) for number in range(ports)]
        forge = connections[0].there if who == "client" else connections[0].back
        forge(flags=RST, sequence=0x12345678)
        assert RESET in tcp.states()
        tcp.serve(2)
        tcp.kernel.age(self.IDLE_S)
        assert all(connection.lives for connection in connections)
        assert tcp.states() == {ESTABLISHED}
        tcp.kernel.age(SETTINGS.tcp_established_s - 1)
        assert all(connection.lives for connection in connections)

    def test_an_idle_connection_survives_it_for_an_hour(self, tcp: Service) -> None:
        connection = tcp.established()
        connection.there(flags=RST)
        tcp.kernel.age(SETTINGS.reset_s - 1)
        assert connection.lives

    @pytest.mark.parametrize("first", [RST, FIN, FIN | ACK], ids=["RST", "FIN", "FIN-ACK"])
    @pytest.mark.parametrize("pause_s", [0, 1, 20])
    def test_and_then_a_syn(self, tcp: Service, first: int, pause_s: int) -> None:
        connection = tcp.established()
        connection.there(flags=first)
        tcp.kernel.age(pause_s)
        there = connection.there(flags=SYN, sequence=7)
        assert there.packet.destination == connection.first.destination
        assert there.packet.source_port == connection.first.source_port
        connection.there(flags=RST)
        connection.there(flags=SYN, sequence=9)
        assert connection.lives
        assert connection.lives
        assert tcp.kernel.count("NEW") == 1

    def test_after_a_real_one_a_syn_opens_anew_elsewhere(self, tcp: Service) -> None:
        """If the backend has left, since nobody must be sent there any more."""
        connection = tcp.established()
        connection.back(flags=RST)
        tcp.serve(2)
        assert connection.there(flags=SYN).packet.destination == tcp.backend(2)
        assert tcp.kernel.count("NEW") == 2

    def test_a_reset_connection_may_be_opened_again(self, tcp: Service) -> None:
        """By the backend that it had."""
        connection = tcp.established()
        connection.there(flags=RST)
        connection.there(flags=SYN, sequence=5000)
        connection.back(flags=SYN | ACK, sequence=7000)
        connection.there(flags=ACK, acknowledged=7001)
        connection.back(flags=ACK)
        assert tcp.state == ESTABLISHED

    def test_a_side_that_sends_data_has_not_ended(self, tcp: Service) -> None:
        connection = tcp.established()
        steps = (
            (connection.there, {"flags": FIN | ACK}, ORIGINAL_FIN),
            (connection.there, {"flags": ACK}, ORIGINAL_FIN),
            (connection.back, {"flags": ACK, "payload": b"more"}, ORIGINAL_FIN),
            (connection.there, {"flags": ACK, "payload": b"more"}, ESTABLISHED),
            (connection.back, {"flags": FIN | ACK}, REPLY_FIN),
            (connection.there, {"flags": FIN | ACK, "payload": b"last"}, CLOSING),
            (connection.there, {"flags": ACK}, CLOSING),
            (connection.back, {"flags": ACK}, CLOSING),
            (connection.back, {"flags": ACK, "payload": b"more"}, ORIGINAL_FIN),
            (connection.there, {"flags": ACK, "payload": b"more"}, ESTABLISHED),
        )
        for send, fields, state in steps:
            send(**fields)
            assert tcp.state == state, fields
        tcp.kernel.age(SETTINGS.time_wait_s + 1)
        assert connection.lives

    def test_one_fin_holds_up_nobody(self, tcp: Service) -> None:
        connection = tcp.established()
        connection.there(flags=FIN | ACK)
        tcp.serve(2)
        tcp.kernel.age(SETTINGS.tcp_established_s - 1)
        assert connection.lives

    @pytest.mark.parametrize("who", ["client", "backend"])
    def test_an_abort(self, sctp: Service, who: str) -> None:
        connection = sctp.established()
        (connection.there if who == "client" else connection.back)(payload=ABORT)
        assert sctp.state == RESET
        sctp.serve(2)
        sctp.kernel.age(self.IDLE_S)
        assert connection.lives
        assert sctp.state == ESTABLISHED

    def test_a_connection_that_is_being_opened(self, tcp: Service) -> None:
        """A forged reset does not keep it from that."""
        connection = Connection(tcp, tcp.client(), tcp.ask(tcp.client()).packet)
        connection.there(flags=RST)
        assert tcp.state == ABORTED
        connection.back(flags=SYN | ACK)
        connection.back(flags=RST)
        assert tcp.state == ABORTED
        connection.there(flags=ACK, acknowledged=1001)
        assert tcp.state == ESTABLISHED


@pytest.mark.rule("CO-9", "CO-11", "CO-12")
class TestSynOnAKnownTuple:
    def test_a_copy_reaches_the_same_backend(self, tcp: Service) -> None:
        """Whatever others are there by now: of eight more, the tuple's hash would choose one."""
        before = tcp.ask(tcp.client()).packet
        tcp.serve(*range(1, 10))
        assert tcp.ask(tcp.client()).packet == before
        assert tcp.kernel.count("NEW") == 1

    @pytest.mark.parametrize("answered", [False, True])
    @pytest.mark.parametrize("pause_s", [0, 1, 5])
    def test_but_not_one_that_has_left(self, tcp: Service, answered: bool, pause_s: int) -> None:
        there = tcp.ask(tcp.client()).packet
        if answered:
            tcp.answer(there.reply())
        tcp.serve(2)
        tcp.kernel.age(pause_s)
        for _ in range(3):
            assert tcp.ask(tcp.client()).packet.destination == tcp.backend(2)
        assert tcp.kernel.count("NEW") == 2

    def test_nor_one_of_another_service(self, tcp: Service) -> None:
        """The address went to a Service that lives on, and the backend serves the old one still."""
        tcp.ask(tcp.client())
        tcp.serve(2, name="green", port=30081)
        exchange_ports(tcp)
        assert tcp.ask(tcp.client()).packet.destination == tcp.backend(2)

    def test_an_established_connection_keeps_its_own(self, tcp: Service) -> None:
        connection = tcp.established()
        tcp.serve(2)
        there = connection.there(flags=SYN, sequence=5)
        assert there.packet.destination == connection.first.destination
        assert connection.lives

    @pytest.mark.parametrize("end", ["both FINs", "refused"])
    def test_after_the_end_it_is_a_new_one(self, tcp: Service, end: str) -> None:
        if end == "both FINs":
            connection = tcp.established()
            connection.there(flags=FIN | ACK)
            connection.back(flags=FIN | ACK)
        else:
            Connection(tcp, tcp.client(), tcp.ask(tcp.client()).packet).back(flags=RST | ACK)
        tcp.ask(tcp.client())
        assert tcp.kernel.count("NEW") == 2

    def test_an_init_too(self, sctp: Service) -> None:
        sctp.ask(sctp.client())
        sctp.serve(2)
        assert sctp.ask(sctp.client()).packet.destination == sctp.backend(2)


def exchange_ports(service: Service) -> None:
    """`web` at 30080 and `green` at 30081 become each other's."""
    service.serve(1, name="web", port=30082)
    service.serve(2, name="green", port=30080)
    service.serve(1, name="web", port=30081)


@pytest.mark.rule("CO-15", "CO-16")
class TestUdpFollowsItsFrontend:
    def test_ports_exchanged(self, udp: Service) -> None:
        udp.serve(2, name="green", port=30081)
        connection = udp.established()
        exchange_ports(udp)
        udp.kernel.age(1)
        assert udp.ask(connection.began).packet.destination == udp.backend(2)
        assert udp.kernel.count("NEW") == 2

    def test_a_port_taken_away(self, udp: Service) -> None:
        """The Service lives on; what is sent there is what it is without us."""
        connection = udp.established()
        udp.serve(1, port=30099)
        udp.kernel.age(1)
        for _ in range(2):
            got = udp.ask(connection.began)
            assert got.passed and got.packet == connection.began

    def test_and_stays_while_all_is_as_it_was(self, udp: Service) -> None:
        connection = udp.established()
        udp.serve(1, 2, 3, 4)
        for _ in range(5):
            udp.kernel.age(5)
            assert connection.lives
        assert udp.kernel.count("NEW") == 1


@pytest.mark.rule("CO-14")
class TestTimes:
    def test_a_fin_sent_again_is_translated_for_two_minutes(self, tcp: Service) -> None:
        connection = tcp.established()
        connection.there(flags=FIN | ACK)
        connection.back(flags=FIN | ACK)
        tcp.kernel.age(SETTINGS.time_wait_s - 1)
        assert connection.back(flags=FIN | ACK).packet.source == connection.began.destination
        assert connection.there().packet.destination == connection.first.destination
        assert tcp.state == CLOSING
        tcp.kernel.age(SETTINGS.time_wait_s + 1)
        assert connection.back(flags=FIN | ACK).packet.source == connection.first.destination

    @pytest.mark.parametrize("days", [1, 12.4, 24.8, 24.86, 25, 26, 49.7, 100, 300])
    def test_what_has_expired_does_not_come_back(self, tcp: Service, days: float) -> None:
        """Without an agent, which would take it out."""
        connection = tcp.established()
        tcp.kernel.age(days * DAY_S)
        got = connection.back()
        assert got.packet.source == connection.first.destination


FLOOD = 3 * CAPACITY
WATCHED, NEWCOMERS = 8, 40


@dataclass
class Flood:
    """What somebody sends who makes up clients: `ask` makes the client's packets of a flow, one
    after the other, and `answers` says which of them the backend answers, and how."""

    flags: tuple[int, ...]
    answers: tuple[int | None, ...]


FLOODS = {
    "SYN": Flood((SYN,), (None,)),
    "answered SYN": Flood((SYN,), (SYN | ACK,)),
    "SYN and blind ACK": Flood((SYN, ACK), (SYN | ACK, None)),
    "SYN and blind FIN": Flood((SYN, FIN | ACK, FIN), (SYN | ACK, None, None)),
    "refused SYN": Flood((SYN,), (RST | ACK,)),
    "ACK": Flood((ACK,), (None,)),
    "refused ACK": Flood((ACK,), (RST,)),
    "FIN": Flood((FIN,), (None,)),
    "RST": Flood((RST,), (None,)),
    "SYN and RST": Flood((SYN, RST), (None, None)),
}


@pytest.mark.rule("CO-8", "CO-30")
class TestFloods:
    """Of a table that they could fill many times over."""

    def flood(self, service: Service, flood: Flood) -> None:
        for number in range(FLOOD):
            client = service.client(
                1024 + number % 30000, source=_counted_up(service.world.client, 1 + number // 7)
            )
            for flags, answer in zip(flood.flags, flood.answers, strict=True):
                got = service.ask(client.but(flags=flags) if service.protocol == TCP else client)
                if answer is not None and not got.dropped:
                    fields = {"flags": answer} if service.protocol == TCP else {}
                    service.answer(got.packet.reply(**fields))

    def newcomers(self, service: Service) -> int:
        """How many new connections succeed."""
        return sum(service.established(50000 + n).lives for n in range(NEWCOMERS))

    @pytest.mark.parametrize("kind", FLOODS)
    def test_by_tcp(self, tcp: Service, kind: str) -> None:
        watched = [tcp.established(40000 + number) for number in range(WATCHED)]
        for connection in watched[::2]:
            connection.there(flags=RST)
            assert connection.lives
        self.flood(tcp, FLOODS[kind])
        assert self.newcomers(tcp) == NEWCOMERS
        tcp.serve(2)
        assert all(connection.lives for connection in watched)

    @pytest.mark.parametrize("answered", [False, True])
    def test_by_udp(self, udp: Service, answered: bool) -> None:
        watched = [udp.established(40000 + number) for number in range(WATCHED)]
        self.flood(udp, Flood((0,), (0 if answered else None,)))
        assert self.newcomers(udp) == NEWCOMERS
        assert all(connection.lives for connection in watched)

    @pytest.mark.parametrize("answer", [None, INIT_ACK, ABORT], ids=["", "answered", "refused"])
    def test_by_sctp(self, sctp: Service, answer: bytes | None) -> None:
        watched = [sctp.established(40000 + number) for number in range(WATCHED)]
        for connection in watched[::2]:
            connection.there(payload=ABORT)
            assert connection.lives
        for number in range(FLOOD):
            source = _counted_up(sctp.world.client, 1 + number // 7)
            client = sctp.client(1024 + number % 30000, source=source)
            got = sctp.ask(client)
            if answer is not None and not got.dropped:
                sctp.answer(got.packet.reply(payload=answer))
                sctp.ask(client.but(payload=SCTP_DATA))
        assert self.newcomers(sctp) == NEWCOMERS
        assert all(connection.lives for connection in watched)

    def test_answered_datagrams_give_way_to_tcp(self, udp: Service) -> None:
        """Three thousand name look-ups, and then connections."""
        self.flood(udp, Flood((0,), (0,)))
        tcp = Service(udp.kernel, udp.ifindex, udp.world, udp.masqueraded, Protocol.TCP)
        assert self.newcomers(tcp) == NEWCOMERS

    def test_who_gives_way_first(self, tcp: Service) -> None:
        """What was never confirmed, then what has been closed or reset for a while, nobody else."""
        kernel = tcp.kernel
        kinds = {CLOSING: "EVICTED_CLOSING", RESET: "EVICTED_RESET"}
        made = [tcp.established(1000 + number) for number in range(3 * CAPACITY)]
        for number, connection in enumerate(made):
            if number % 3 == 0:
                connection.there(flags=FIN | ACK)
                connection.back(flags=FIN | ACK)
            elif number % 3 == 1:
                connection.there(flags=RST)
        assert {CLOSING, RESET, ESTABLISHED} <= tcp.states()
        for state, event in kinds.items():
            assert not events(kernel).get(event), "nothing has been silent for long"
            assert state in tcp.states()
        kernel.age(SETTINGS.closing_s + 1)
        left = [state_of(word) for word, _ in kernel.flows()].count(ESTABLISHED)
        for number in range(3 * CAPACITY):
            tcp.ask(tcp.client(20000 + number))
        assert events(kernel)["EVICTED_CLOSING"] and events(kernel)["EVICTED_RESET"]
        assert [state_of(word) for word, _ in kernel.flows()].count(ESTABLISHED) == left


def _counted_up(address: str, number: int) -> str:
    separator = ":" if ":" in address else "."
    head, _ = address.rsplit(separator, 1)
    if separator == ":":
        return f"{head}:{number:x}"
    first, second, _ = head.split(".")
    return f"{first}.{second}.{number // 250}.{number % 250 + 1}"


@pytest.mark.rule("CO-8", "CO-29")
def test_ports_for_masquerading_come_free(uplink: int) -> None:
    """More connections to one backend than there are ports, none of which was ever confirmed: new
    ones find a port, and established ones keep theirs."""
    with kernels("ports", Settings(flows=1 << 18)) as both:
        for kernel in both.values():
            service = service_of(Protocol.TCP)(kernel, uplink, True)
            world = service.world
            watched = [service.established(20000 + number) for number in range(50)]
            feeder = Feeder(kernel.family, uplink)
            crowd = Traffic(_counted_up(world.client, 1), world.node, 30080, TCP, 70_000, flags=SYN)
            feeder.run(kernel.program("uplink_ingress"), crowd, 70_000)
            assert kernel.count("NEW") > 60_000
            turned = sum(1 for word, _ in kernel.flows() if word & SIGNPOST)
            assert turned > 40_000
            before = kernel.count("SNAT_PORTS")
            new = [service.established(21000 + number) for number in range(200)]
            assert kernel.count("SNAT_PORTS") == before
            assert all(connection.lives for connection in (*watched, *new))
            assert before < 1000
