"""The same flows on two processors at once: one entry, one backend each.

Two test runs go through the same flows in the kernel, each on its own processor. Creating a flow
takes longer than finding it, so whoever is behind catches up, and then they race for every flow.

A processor may be taken away in the middle of it. If the other one meets just that flow then, it
gives up after some tries (CONTENTION): the sender's next packet finds the flow, and here it is sent
again. Other processes must not do that, however much they have to do, so both lanes go before them;
a hypervisor may.
"""

from __future__ import annotations

import ipaddress
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest

from ebpf_lb.datapath.dump import dump
from ebpf_lb.datapath.reader import View
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.service import Algorithm
from ebpf_lb.model.values import Family, Protocol
from tests.bench.feeder import Feeder, Traffic
from tests.capabilities import DATAPATH, Capability, needs
from tests.datapath.kernel import Kernel, kernels
from tests.datapath.pod_world import WORLDS, World
from tests.datapath.test_sweep import events
from tests.datapath.words import CLOSING, PORTED, SIGNPOST, state_of
from tests.support.packets import ACK, FIN, SYN, TCP, UDP

TWO_PROCESSORS = Capability(
    "two processors", "a machine with more than one", lambda: len(os.sched_getaffinity(0)) > 1
)
pytestmark = needs(*DATAPATH, TWO_PROCESSORS)

FLOWS = 3000
HOME = 8  # flows of one client, protocol and port
TAKEN_AWAY = 5  # as often may a processor be taken away during a race, and not for each flow
# the product's own: so many entries that no flow is pushed out by others
SETTINGS = Settings(services=1024, backends=4096)


def go_first() -> None:
    """Before all processes without a real-time priority; where that is not allowed, beside them."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


@dataclass(frozen=True)
class Race:
    """One family's programs with two feeders."""

    kernel: Kernel
    feeders: tuple[Feeder, Feeder]

    @property
    def world(self) -> World:
        return WORLDS[self.kernel.family]

    def to(self, vip: str, protocol: int) -> Traffic:
        return Traffic(self.world.client, vip, 80, protocol, FLOWS, flags=SYN)

    def run(self, *lanes: tuple[str, Traffic], first: bool = True) -> int:
        """Each (program, traffic) on a processor of its own, all of its flows once; again one after
        the other if a packet was lost. Returns how many packets were not. first: before all other
        processes."""
        before = self.kernel.count("CONTENTION")
        self._run_at_once(*lanes, first=first)
        lost = self.kernel.count("CONTENTION") - before
        assert lost <= TAKEN_AWAY
        for lane in lanes if lost else ():
            self._run_at_once(lane)
        assert self.kernel.count("CONTENTION") == before + lost
        return sum(traffic.flows for _, traffic in lanes) * (2 if lost else 1) - lost

    def counted(self) -> set[str]:
        """All reasons that packets were counted for, but that one."""
        return set(self.kernel.counters()) - {"CONTENTION"}

    def _run_at_once(self, *lanes: tuple[str, Traffic], first: bool = True) -> None:
        rendezvous = threading.Barrier(len(lanes))
        failures: list[BaseException] = []

        def work(feeder: Feeder, processor: int, program: str, traffic: Traffic) -> None:
            try:
                os.sched_setaffinity(0, {processor})
                if first:
                    go_first()
                rendezvous.wait(60)
                feeder.run(self.kernel.program(program), traffic, traffic.flows)
            except BaseException as error:
                failures.append(error)
                rendezvous.abort()

        processors = sorted(os.sched_getaffinity(0))
        threads = [
            threading.Thread(target=work, args=(feeder, processor, *lane))
            for feeder, processor, lane in zip(self.feeders, processors, lanes, strict=False)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def entries(self) -> list[Any]:
        return [entry for _, entry in self.kernel.flows()]


@pytest.fixture(scope="module")
def _races() -> Iterator[dict[Family, Race]]:
    with kernels("races", SETTINGS) as both:
        yield {f: Race(kernel, (Feeder(f), Feeder(f))) for f, kernel in both.items()}


@pytest.fixture(params=list(Family), ids=lambda family: family.directory)
def race(request: pytest.FixtureRequest, _races: dict[Family, Race]) -> Race:
    race = _races[request.param]
    race.kernel.reset()
    return race


def backends(world: World) -> list[tuple[str, int]]:
    return [(f"{world.backend[:-1]}{n}", 8080) for n in range(1, 9)]


@pytest.mark.parametrize("protocol", list(Protocol), ids=lambda p: p.name)
def test_one_new_flow_on_two_processors(race: Race, protocol: Protocol) -> None:
    """A retransmission by another queue: both find the winner's entry."""
    kernel, world = race.kernel, race.world
    service = kernel.service(world.vip, 80, backends(world), protocol=protocol)
    lane = ("pod_ingress", race.to(world.vip, int(protocol)))
    translated = race.run(lane, lane)
    held = Counter(entry.client_port for entry in race.entries())
    assert len(held) == FLOWS and set(held.values()) == {1}
    assert kernel.count("NEW") == kernel.connections(service)[0] == FLOWS
    assert kernel.count("ESTABLISHED") == kernel.connections(service)[1] == translated
    assert race.counted() == {"NEW", "ESTABLISHED"}


def test_in_turn_on_two_processors(race: Race) -> None:
    """Two connections have the same turn only where one has lost the race for it again and again:
    no processor loses so often, but one that is taken away for a while."""
    kernel, world = race.kernel, race.world
    kernel.service(world.vip, 80, backends(world), algorithm=Algorithm.ROUND_ROBIN)
    lane = race.to(world.vip, TCP)
    other = replace(lane, client=str(ipaddress.ip_address(world.client) + 64))
    race.run(("pod_ingress", lane), ("pod_ingress", other))
    entries = race.entries()
    assert len(entries) == 2 * FLOWS
    (row,) = dump(View(kernel.build, kernel.family), "turns")
    # what found its flow's place taken in the middle has had a turn, and gets another
    assert abs(row["cluster"] - 2 * FLOWS) <= 2 * TAKEN_AWAY
    shares = Counter(bytes(entry.backend) for entry in entries)
    assert len(shares) == len(backends(world))
    assert max(shares.values()) - min(shares.values()) <= 1 + 2 * TAKEN_AWAY


def test_choices_that_change_during_the_race(race: Race) -> None:
    """The tables name other backends all the time: still one entry a flow."""
    kernel, world = race.kernel, race.world
    kernel.service(world.vip, 80, backends(world)[:1], name="web")
    stop = threading.Event()

    def change() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            kernel.service(world.vip, 80, [backends(world)[turn % 8]], name="web")
            time.sleep(0)

    changing = threading.Thread(target=change)
    changing.start()
    time.sleep(0.01)
    try:
        lane = ("pod_ingress", race.to(world.vip, TCP))
        race.run(lane, lane, first=False)  # else nobody could change anything meanwhile
    finally:
        stop.set()
        changing.join()
    held = Counter(entry.client_port for entry in race.entries())
    assert len(held) == FLOWS and set(held.values()) == {1}
    # the later SYN opens anew where the first one's backend has left by then
    assert kernel.count("NEW") >= FLOWS
    assert race.counted() == {"NEW", "ESTABLISHED"}


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_two_vips_with_one_backend_at_once(race: Race, protocol: int) -> None:
    """They clash, whoever comes first; then replies tell them apart by the port."""
    kernel, world = race.kernel, race.world
    for vip in (world.vip, world.other_vip):
        kernel.service(vip, 80, [(world.backend, 8080)], protocol=Protocol(protocol))
    race.run(
        ("pod_ingress", race.to(world.vip, protocol)),
        ("pod_ingress", race.to(world.other_vip, protocol)),
    )
    flows = [entry for entry in race.entries() if not entry.word & SIGNPOST]
    signposts = [entry for entry in race.entries() if entry.word & SIGNPOST]
    snated = [entry for entry in flows if entry.word & PORTED]
    held = Counter(entry.client_port for entry in flows)
    assert len(held) == FLOWS and set(held.values()) == {2}
    # of each two, one keeps its port; the other has a port of its own and a signpost for it
    assert len(snated) == len(signposts) == FLOWS
    assert {entry.client_port for entry in snated} == set(held)
    assert Counter(entry.snat_port for entry in snated) == Counter(
        entry.client_port for entry in signposts
    )
    assert all(entry.snat_port != entry.client_port for entry in snated)
    assert kernel.count("NEW") == 2 * FLOWS
    assert race.counted() == {"NEW", "ESTABLISHED"}


def fill_homes(race: Race, protocol: int, but: int = 0) -> list[str]:
    """Every client has so many flows that its home is full, but for some; and VIPs for two more."""
    kernel, world = race.kernel, race.world
    vips = [str(ipaddress.ip_address(world.vip) + number) for number in range(HOME + 2)]
    for number, vip in enumerate(vips):
        backend = (f"{world.backend[:-1]}{number + 1}", 8080)
        kernel.service(vip, 80, [backend], protocol=Protocol(protocol))
    for vip in vips[: HOME - but]:
        race.run(("pod_ingress", race.to(vip, protocol)))
    return vips[HOME - but :]


def snated(race: Race) -> tuple[list[Any], list[Any]]:
    """Flows that replies do not lead to by themselves, and their signposts."""
    entries = race.entries()
    return (
        [entry for entry in entries if entry.word & PORTED and not entry.word & SIGNPOST],
        [entry for entry in entries if entry.word & SIGNPOST],
    )


def are_paired(flows: list[Any], signposts: list[Any]) -> None:
    """Each flow has a port of its own towards its backend, and one signpost for it."""

    def ends(port: int, entry: Any) -> tuple[int, bytes]:
        return port, bytes(entry.backend)

    seen = Counter(ends(flow.snat_port, flow) for flow in flows)
    assert set(seen.values()) <= {1}
    assert seen == Counter(ends(signpost.client_port, signpost) for signpost in signposts)


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_one_new_flow_for_the_overflow_on_two_processors(race: Race, protocol: int) -> None:
    vip, _ = fill_homes(race, protocol)
    before = race.kernel.count("NEW")
    lane = ("pod_ingress", race.to(vip, protocol))
    race.run(lane, lane)
    packed = ipaddress.ip_address(vip).packed
    flows, signposts = snated(race)
    held = Counter(entry.client_port for entry in flows if bytes(entry.vip) == packed)
    # a few homes have room: others' flows are spread unevenly
    assert len(held) > FLOWS * 0.9 and set(held.values()) == {1}
    are_paired(flows, signposts)
    assert race.kernel.count("NEW") - before == FLOWS
    assert race.counted() == {"NEW", "ESTABLISHED"}
    assert events(race.kernel)["OVERFLOW"] >= len(held)


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_two_flows_race_for_the_last_place_at_home(race: Race, protocol: int) -> None:
    """One stays, the other goes to the overflow; no packet is lost, and none has two entries."""
    vips = fill_homes(race, protocol, but=1)
    before = race.kernel.count("NEW")
    race.run(*(("pod_ingress", race.to(vip, protocol)) for vip in vips[:2]))
    for vip in vips[:2]:
        packed = ipaddress.ip_address(vip).packed
        flows = [e for e in race.entries() if not e.word & SIGNPOST and bytes(e.vip) == packed]
        held = Counter(entry.client_port for entry in flows)
        assert len(held) == FLOWS and set(held.values()) == {1}
    are_paired(*snated(race))
    assert race.kernel.count("NEW") - before == 2 * FLOWS
    assert race.counted() == {"NEW", "ESTABLISHED"}


def test_both_ends_close_at_once(race: Race) -> None:
    """Both directions note their state in one word: no FIN gets lost."""
    kernel, world = race.kernel, race.world
    kernel.service(world.vip, 80, [(world.backend, 8080)])
    there = race.to(world.vip, TCP)
    back = Traffic(world.client, world.backend, 8080, TCP, FLOWS, turned=True, flags=SYN | ACK)
    race.run(("pod_ingress", there))
    race.run(("pod_egress", back))
    race.run(("pod_ingress", replace(there, flags=ACK)))
    race.run(
        ("pod_ingress", replace(there, flags=FIN | ACK)),
        ("pod_egress", replace(back, flags=FIN | ACK)),
    )
    states = Counter(state_of(entry.word) for entry in race.entries())
    assert states == {CLOSING: FLOWS}
