"""More clients than the affinity table remembers: whoever was longest away is forgotten and chooses
anew; nobody is refused, no connection is lost, and no other counter than the table's own fill level
tells of it."""

from collections.abc import Callable

import pytest

from tests.datapath import test_pod
from tests.datapath.conftest import SETTINGS
from tests.datapath.kernel import Kernel
from tests.support.packets import ACK, Packet

CLIENTS = 2 * SETTINGS.affinity
BACKENDS = 8
Ask = Callable[[int, int], Packet]


@pytest.fixture
def ask(kernel: Kernel) -> Ask:
    """The packet by which a client (its number, its port) opens a connection, translated."""
    world = test_pod.WORLDS[kernel.family]
    stem = world.backend.rpartition("." if kernel.family == 4 else ":")[0]
    dot = "." if kernel.family == 4 else ":"
    backends = [(f"{stem}{dot}{number}", 9376) for number in range(101, 101 + BACKENDS)]
    kernel.service(world.vip, 80, backends, affinity_timeout_s=10800)

    def client(number: int) -> str:
        high, low = divmod(number, 250)
        return f"10.77.{high}.{low + 1}" if kernel.family == 4 else f"fd77::{high:x}:{low + 1:x}"

    def asked(number: int, port: int = 40000) -> Packet:
        sent = test_pod.first(world).but(source=client(number), source_port=port)
        got = kernel.run("pod_ingress", sent)
        assert got.passed and got.packet.destination in dict(backends)
        return got.packet

    return asked


def remembered(kernel: Kernel) -> int:
    with kernel.open("affinity") as table:
        return len(list(table.keys()))


def test_nobody_is_refused_and_the_last_are_remembered(kernel: Kernel, ask: Ask) -> None:
    first = ask(0, 40000)
    for number in range(CLIENTS):
        ask(number, 40000)
    assert SETTINGS.affinity // 2 < remembered(kernel) <= SETTINGS.affinity
    counted = kernel.counters()
    assert set(counted) <= {"NEW", "ESTABLISHED"}
    last = {ask(CLIENTS - 1, port).destination for port in range(41000, 41020)}
    assert last == {ask(CLIENTS - 1, 40000).destination}
    # one who was forgotten chooses anew, and keeps to that
    again = {ask(0, port).destination for port in range(42000, 42020)}
    assert len(again) == 1
    assert first.destination  # whichever that was


def test_connections_of_the_forgotten_stay(kernel: Kernel, ask: Ask) -> None:
    """Also where their client has chosen another backend since."""
    world = test_pod.WORLDS[kernel.family]
    held = ask(0, 40000)
    assert kernel.run("pod_egress", held.reply()).passed  # established
    confirms = {"flags": ACK, "acknowledged": held.sequence + 1}
    asked = held.but(destination=world.vip, destination_port=80, **confirms)
    assert kernel.run("pod_ingress", asked).packet.destination == held.destination
    for number in range(1, CLIENTS):
        ask(number, 40000)
    more = held.but(destination=world.vip, destination_port=80, flags=ACK)
    assert kernel.run("pod_ingress", more).packet.destination == held.destination


def test_a_client_that_comes_often_is_not_forgotten(kernel: Kernel, ask: Ask) -> None:
    seen = set()
    for number in range(1, CLIENTS):
        ask(number, 40000)
        if number % (SETTINGS.affinity // 8) == 0:
            seen.add(ask(0, 40000 + number).destination)
    assert len(seen) == 1
