"""In turn, to the fewest connections, by the client's address: told by counting packets' ways."""

from collections import Counter

import pytest

from ebpf_lb.datapath.dump import dump
from ebpf_lb.datapath.question import Client, Question
from ebpf_lb.datapath.reader import View
from ebpf_lb.model.service import Algorithm
from ebpf_lb.model.values import Family, Protocol, parse_address
from ebpf_lb.plan.forwarding import FrontendKind, Spread, Table
from ebpf_lb.plan.maglev import size_for
from tests.datapath.kernel import LOOPBACK, NODE, Kernel
from tests.datapath.pod_world import INIT_CHUNK
from tests.support.packets import ACK, FIN, RST, SYN, TCP, UDP, Packet

VIP = {Family.IPV4: "10.96.0.20", Family.IPV6: "fd00:10:96::20"}
CLIENT = {Family.IPV4: "10.244.1.2", Family.IPV6: "fd00:10:244:1::2"}
OUTSIDE = {Family.IPV4: "192.0.2.9", Family.IPV6: "2001:db8::9"}
TARGET = 9376
RR, LC, SH = Algorithm.ROUND_ROBIN, Algorithm.LEAST_CONNECTIONS, Algorithm.SOURCE_HASH
PROTOCOLS = [Protocol.TCP, Protocol.UDP]


def backends(kernel: Kernel, number: int) -> list[tuple[str, int]]:
    prefix = "10.244.2." if kernel.family is Family.IPV4 else "fd00:10:244:2::"
    return [(f"{prefix}{one}", TARGET) for one in range(1, number + 1)]


def first(kernel: Kernel, port: int, protocol: int = TCP) -> Packet:
    chunk = INIT_CHUNK if protocol == Protocol.SCTP else b""
    return Packet(CLIENT[kernel.family], VIP[kernel.family], port, 80, protocol, SYN, payload=chunk)


def chosen(kernel: Kernel, packet: Packet, program: str = "pod_ingress") -> str:
    result = kernel.run(program, packet)
    assert result.packet.destination_port == TARGET, kernel.counters()
    return result.packet.destination


class Conversation:
    """A connection by packets at the pod's interface, from its first one to its end."""

    def __init__(self, kernel: Kernel, port: int, protocol: int = TCP) -> None:
        self._kernel, self._asks = kernel, first(kernel, port, protocol)
        self.backend = chosen(kernel, self._asks)
        self._answers = Packet(
            self.backend, CLIENT[kernel.family], TARGET, port, protocol, SYN | ACK,
            sequence=5000, acknowledged=1001,
        )  # fmt: skip

    def _answer(self, **but: object) -> None:
        self._kernel.run("pod_egress", self._answers.but(**but))

    def _ask(self, **but: object) -> str:
        return chosen(self._kernel, self._asks.but(**but))

    def confirm(self) -> "Conversation":
        self._answer()
        self._ask(flags=ACK, sequence=1001, acknowledged=5001)
        return self

    def go_on(self) -> None:
        self._answer(flags=ACK, sequence=5001, acknowledged=1001)
        self._ask(flags=ACK, sequence=1001, acknowledged=5001)

    def close(self) -> None:
        self._ask(flags=FIN | ACK, sequence=1001, acknowledged=5001)
        self._answer(flags=FIN | ACK, sequence=5001, acknowledged=1002)

    def reset(self) -> None:
        self._answer(flags=RST | ACK, sequence=5001)


def held(kernel: Kernel) -> Counter[str]:
    """Connections by backend, as the maps have them."""
    rows = dump(View(kernel.build, kernel.family), "backends")
    return Counter({row["address"]: row["connections"] for row in rows if "connections" in row})


# -- in turn ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [*PROTOCOLS, Protocol.SCTP])
def test_in_turn_each_has_exactly_its_share(kernel: Kernel, protocol: Protocol) -> None:
    kernel.service(VIP[kernel.family], 80, backends(kernel, 3), protocol=protocol, algorithm=RR)
    found = [chosen(kernel, first(kernel, port, protocol)) for port in range(2000, 2030)]
    assert Counter(found) == dict.fromkeys([one for one, _ in backends(kernel, 3)], 10)
    assert found[:3] * 10 == found  # and always in the same order


def test_in_turn_by_weights(kernel: Kernel) -> None:
    table = Table(6, (1, 2, 3), Spread.IN_TURN)
    kernel.service(VIP[kernel.family], 80, backends(kernel, 3), table=table, algorithm=RR)
    found = [chosen(kernel, first(kernel, port)) for port in range(2000, 2060)]
    assert [found.count(address) for address, _ in backends(kernel, 3)] == [10, 20, 30]
    # never the same one three times in a row: they take turns, not shifts
    assert not any(a == b == c for a, b, c in zip(found, found[1:], found[2:], strict=False))


def test_a_packet_once_more_takes_no_turn(kernel: Kernel) -> None:
    kernel.service(VIP[kernel.family], 80, backends(kernel, 2), algorithm=RR)
    for port in range(2000, 2010):
        found = {chosen(kernel, first(kernel, port)) for _ in range(3)}
        assert len(found) == 1
    assert sum(dump(View(kernel.build, kernel.family), "turns")[0][which] for which in
               ("cluster", "local")) == 10  # fmt: skip


def test_the_question_takes_no_turn(kernel: Kernel) -> None:
    kernel.service(VIP[kernel.family], 80, backends(kernel, 2), algorithm=RR)
    view = View(kernel.build, kernel.family)
    vip, client = parse_address(VIP[kernel.family]), parse_address(CLIENT[kernel.family])
    for port in range(2000, 2006):
        answers = {
            Question(view).ask(Client.POD, (client, port), (vip, 80), TCP).backend for _ in range(3)
        }
        assert answers == {parse_address(chosen(kernel, first(kernel, port)))}


def test_masqueraded_ones_and_those_of_the_node_take_turns_too(kernel: Kernel) -> None:
    """The same counter at every hook: a client outside, a pod, the node itself."""
    kernel.service(
        VIP[kernel.family], 80, backends(kernel, 3), kind=FrontendKind.EXTERNAL_IP, algorithm=RR
    )
    found = Counter[str]()
    for number in range(10):
        outside = first(kernel, 3000 + number).but(source=OUTSIDE[kernel.family])
        found[chosen(kernel, outside, "uplink_ingress")] += 1
        found[chosen(kernel, first(kernel, 3000 + number))] += 1
        own = first(kernel, 3000 + number).but(source=NODE[kernel.family])
        found[chosen(kernel, own, "uplink_egress")] += 1
    assert set(found.values()) == {10}


def test_xdp_leaves_the_choice_to_tc(kernel: Kernel) -> None:
    kernel.service(
        VIP[kernel.family], 80, backends(kernel, 2), kind=FrontendKind.EXTERNAL_IP, algorithm=RR
    )
    found = Counter[str]()
    for number in range(10):
        packet = first(kernel, 3000 + number).but(source=OUTSIDE[kernel.family])
        found[kernel.run_uplink(packet, LOOPBACK, xdp=True).packet.destination] += 1
    assert set(found.values()) == {5}


def test_affinity_goes_before_turns(kernel: Kernel) -> None:
    kernel.service(VIP[kernel.family], 80, backends(kernel, 4), affinity_timeout_s=60, algorithm=RR)
    assert len({chosen(kernel, first(kernel, port)) for port in range(2000, 2012)}) == 1


# -- by the client's address -----------------------------------------------------------------------


def test_an_address_keeps_to_one_backend(kernel: Kernel) -> None:
    many = backends(kernel, 8)
    table = Table(size_for(8))
    kernel.service(VIP[kernel.family], 80, many, name="web", table=table, algorithm=SH)
    prefix = CLIENT[kernel.family][:-1]
    clients = [f"{prefix}{number}" for number in range(100, 200)]

    def of(client: str, port: int) -> str:
        return chosen(kernel, first(kernel, port).but(source=client))

    before = {client: of(client, 2000) for client in clients}
    assert len(set(before.values())) == 8
    kernel.forget_flows()
    assert all(of(client, port) == before[client] for client in clients for port in (77, 4000))
    # another one leaves: who did not have it keeps what he has
    gone = many.pop(3)[0]
    kernel.forget_flows()
    kernel.service(VIP[kernel.family], 80, many, name="web", table=table, algorithm=SH)
    after = {client: of(client, 2000) for client in clients}
    moved = [one for one in clients if before[one] != gone and after[one] != before[one]]
    assert len(moved) <= 5 and gone not in after.values()


# -- to the fewest connections -------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_open_connections_are_even(kernel: Kernel, protocol: Protocol) -> None:
    kernel.service(VIP[kernel.family], 80, backends(kernel, 5), protocol=protocol, algorithm=LC)
    found = Counter(chosen(kernel, first(kernel, port, protocol)) for port in range(2000, 2100))
    assert found == held(kernel) == dict.fromkeys([one for one, _ in backends(kernel, 5)], 20)


def test_unequal_lengths(kernel: Kernel) -> None:
    """Whoever has long ones gets no others until all have as many; in turn would be 10 each."""
    kernel.service(VIP[kernel.family], 80, backends(kernel, 3), algorithm=LC)
    slow = Conversation(kernel, 2000).confirm()
    for port in range(2001, 2021):
        short = Conversation(kernel, port).confirm()
        assert short.backend != slow.backend
        short.close()
    assert held(kernel) == Counter({slow.backend: 1})
    more = [Conversation(kernel, port).confirm() for port in range(2100, 2105)]
    assert set((held(kernel)).values()) == {2}
    assert Counter(one.backend for one in more)[slow.backend] == 1


def test_every_end_is_counted(kernel: Kernel) -> None:
    kernel.service(VIP[kernel.family], 80, backends(kernel, 2), algorithm=LC)
    several = [Conversation(kernel, port) for port in range(2000, 2006)]
    assert sum(held(kernel).values()) == 6
    several[0].confirm().close()
    several[1].confirm().reset()
    several[2].reset()  # refused by its backend
    assert sum(held(kernel).values()) == 3
    # the reset was forged: both go on, and it counts again
    several[1].go_on()
    assert sum(held(kernel).values()) == 4
    kernel.age(7200 * 2)
    kernel.sweep()
    assert not any(held(kernel).values())


def test_a_repeated_syn_stays_and_counts_once(kernel: Kernel) -> None:
    kernel.service(VIP[kernel.family], 80, backends(kernel, 4), algorithm=LC)
    (backend,) = {chosen(kernel, first(kernel, 2000)) for _ in range(5)}
    assert held(kernel)[backend] == 1


def test_a_tuple_used_again_counts_once(kernel: Kernel) -> None:
    kernel.service(VIP[kernel.family], 80, backends(kernel, 2), algorithm=LC)
    for _ in range(4):
        Conversation(kernel, 2000).confirm().close()
    Conversation(kernel, 2000)
    assert sum(held(kernel).values()) == 1


def test_what_makes_room_is_no_longer_counted(kernel: Kernel) -> None:
    """More than the table holds: nothing counts of those that were thrown out."""
    kernel.service(VIP[kernel.family], 80, backends(kernel, 2), protocol=Protocol.UDP, algorithm=LC)
    for port in range(2000, 5000):
        kernel.run("pod_ingress", first(kernel, port, UDP))
    live = Counter(str(entry.backend) for _, entry in kernel.flows())  # type: ignore[attr-defined]
    assert sum(live.values()) < 3000
    assert sorted(held(kernel).values()) == sorted(live.values())


def test_by_weights(kernel: Kernel) -> None:
    table = Table(3, (1, 2, 5), Spread.ONE_EACH)
    many = backends(kernel, 3)
    kernel.service(VIP[kernel.family], 80, many, table=table, algorithm=LC)
    for port in range(2000, 2080):
        chosen(kernel, first(kernel, port))
    assert [held(kernel)[address] for address, _ in many] == [10, 20, 50]


@pytest.mark.parametrize("number", [64, 65, 200])
def test_many_backends(kernel: Kernel, number: int) -> None:
    """Exact up to 64; of more, one of the least of 64 that stand in a row."""
    many = backends(kernel, number)
    kernel.service(VIP[kernel.family], 80, many, algorithm=LC)
    for port in range(2000, 2000 + 2 * number):
        chosen(kernel, first(kernel, port))
    found = held(kernel)
    assert sum(found.values()) == 2 * number
    if number <= 64:
        assert set(found.values()) == {2}
    else:
        assert max(found.values()) <= 4


def test_those_masqueraded_and_those_of_the_node_count(kernel: Kernel) -> None:
    kernel.service(
        VIP[kernel.family], 80, backends(kernel, 3), kind=FrontendKind.EXTERNAL_IP, algorithm=LC
    )
    for number in range(10):
        outside = first(kernel, 3000 + number).but(source=OUTSIDE[kernel.family])
        chosen(kernel, outside, "uplink_ingress")
        chosen(kernel, first(kernel, 3000 + number))
        own = first(kernel, 3000 + number).but(source=NODE[kernel.family])
        chosen(kernel, own, "uplink_egress")
    assert set(held(kernel).values()) == {10}


def test_who_returns_is_not_flooded(kernel: Kernel) -> None:
    """A backend that was not ready for a while still has its connections."""
    vip, many = VIP[kernel.family], backends(kernel, 2)
    kernel.service(vip, 80, many, name="web", algorithm=LC)
    for port in range(2000, 2020):
        chosen(kernel, first(kernel, port))
    kernel.service(vip, 80, many[:1], name="web", has_any=True, algorithm=LC)
    for port in range(2020, 2030):
        assert chosen(kernel, first(kernel, port)) == many[0][0]
    kernel.writer.housekeeping(1e9)
    kernel.service(vip, 80, many, name="web", algorithm=LC)
    assert [held(kernel)[address] for address, _ in many] == [20, 10]
    found = [chosen(kernel, first(kernel, port)) for port in range(2030, 2040)]
    assert set(found) == {many[1][0]}


def test_the_dump_says_how(kernel: Kernel) -> None:
    kernel.service(VIP[kernel.family], 80, backends(kernel, 2), algorithm=LC)
    view = View(kernel.build, kernel.family)
    (row,) = dump(view, "services")
    assert row["algorithm"] == "lc" and "LEAST_CONNECTIONS" in row["flags"]
    chosen(kernel, first(kernel, 2000))
    assert sorted(row["connections"] for row in dump(view, "connections")) == [0, 1]
    assert {row["weight"] for row in dump(view, "backends")} == {1}
