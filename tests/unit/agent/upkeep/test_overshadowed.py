"""Whose processes are no longer reached, and that it is said once."""

import socket
from pathlib import Path

import pytest

from ebpf_lb.agent.upkeep.overshadowed import INTERVAL_S, Listener, Overshadowed, listeners
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Protocol, parse_address
from tests.unit.agent.fakes import NODE4, Clock, Log

EVIL = ObjectKey("tenant", "evil")
NODE6 = parse_address("fd00::11")


class Node:
    """Its listeners, and frontends of one Service."""

    def __init__(self) -> None:
        self.clock, self.log = Clock(), Log()
        self.listening: list[Listener] = []
        self.taken: set[Listener] = set()
        self.reports: list[tuple[ObjectKey, str]] = []
        self.shadows = Overshadowed(
            lambda: [NODE4, NODE6],
            lambda: self.listening,
            lambda *place: EVIL if place in self.taken else None,
            lambda key, sentence: self.reports.append((key, sentence)),
            self.log,
            self.clock,
        )

    def look(self) -> list[str]:
        self.clock.now += INTERVAL_S
        self.reports.clear()
        self.shadows.check()
        return [sentence for _, sentence in self.reports]


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.mark.parametrize("bound", [bytes(4), bytes(16), NODE4])
def test_a_listener_at_a_services_address(node: Node, bound: bytes) -> None:
    node.listening = [(bound, 22, Protocol.TCP)]
    node.taken = {(NODE4, 22, Protocol.TCP), (NODE4, 80, Protocol.TCP)}
    [sentence] = node.look()
    assert "tenant/evil" in sentence and "172.30.0.11:22/TCP" in sentence
    assert node.look() == []  # it is known
    node.taken.clear()
    assert node.look() == []
    node.taken = {(NODE4, 22, Protocol.TCP)}
    assert len(node.look()) == 1


@pytest.mark.parametrize(
    ("bound", "port", "protocol"),
    [
        (parse_address("127.0.0.1"), 22, Protocol.TCP),
        (bytes(4), 23, Protocol.TCP),
        (bytes(4), 22, Protocol.UDP),
    ],
)
def test_others_are_reached_as_before(
    node: Node, bound: bytes, port: int, protocol: Protocol
) -> None:
    node.listening = [(bound, port, protocol)]
    node.taken = {(NODE4, 22, Protocol.TCP)}
    assert node.look() == []


def test_ipv6_is_not_heard_by_who_listens_on_ipv4_alone(node: Node) -> None:
    node.taken = {(NODE6, 22, Protocol.TCP)}
    node.listening = [(bytes(4), 22, Protocol.TCP)]
    assert node.look() == []
    node.listening = [(bytes(16), 22, Protocol.TCP)]
    assert len(node.look()) == 1


def test_it_is_not_looked_at_all_the_time(node: Node) -> None:
    node.look()
    node.listening = [(bytes(4), 22, Protocol.TCP)]
    node.taken = {(NODE4, 22, Protocol.TCP)}
    node.clock.now += INTERVAL_S / 2
    node.shadows.check()
    assert node.reports == []


def test_the_kernels_tables_are_read(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        found = set(listeners())
        assert (bytes([127, 0, 0, 1]), four.getsockname()[1], Protocol.TCP) in found
        assert (bytes(15) + b"\1", six.getsockname()[1], Protocol.TCP) in found
    assert list(listeners(tmp_path)) == []
