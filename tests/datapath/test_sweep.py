"""What the agent's sweep takes out, what it leaves, what it counts, and what it costs."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ebpf_lb.agent.metrics.maps import MapCollector
from ebpf_lb.agent.upkeep.sweeper import PASS_S, Sweeper
from ebpf_lb.datapath.dump import dump
from ebpf_lb.datapath.reader import View
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.datapath.sweep import AffinitySweep, FlowSweep, affinity_sweeps
from ebpf_lb.model.values import Family, Protocol
from tests.bench.feeder import Feeder, Traffic
from tests.capabilities import DATAPATH, needs
from tests.datapath.kernel import Kernel, kernels
from tests.datapath.pod_world import WORLDS, World, first
from tests.datapath.words import earlier, generation_of
from tests.support.packets import ACK, RST, SYN, TCP, UDP

pytestmark = needs(*DATAPATH)

# room for half a million flows; time-outs that pass when a test says so, but for UDP's
SETTINGS = Settings(
    flows=1 << 20,
    services=1024,
    backends=4096,
    udp_new_s=1,
    reset_s=300,
    tcp_syn_s=1000,
)
PAST_UDP_S, PAST_RESET_S, PAST_SYN_S = 2.6, 301, 1001
HALF_A_MILLION = 500_000


@pytest.fixture(scope="module")
def _kernels() -> Iterator[dict[Family, Kernel]]:
    with kernels("swept", SETTINGS) as both:
        yield both


@pytest.fixture
def world(kernel: Kernel) -> World:
    return WORLDS[kernel.family]


def sweep(kernel: Kernel) -> None:
    """One pass, as the agent makes it."""
    flows = FlowSweep(kernel.build, kernel.family)
    for _ in range(PASS_S):
        flows.step(1 / PASS_S)


def census(kernel: Kernel) -> dict[str, int]:
    rows = dump(View(kernel.build, kernel.family), "census")
    return {row["state"]: row["entries"] for row in rows if row["entries"]}


def events(kernel: Kernel) -> dict[str, int]:
    rows = dump(View(kernel.build, kernel.family), "flow_events")
    return {row["event"]: row["count"] for row in rows if row["count"]}


def test_idle_flows_are_taken_out_and_others_counted(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)])
    sent = [first(world, source_port=port) for port in range(1000, 1030)]
    for one in sent:
        kernel.run("pod_ingress", one)
    for one in sent[:20]:
        kernel.run("pod_egress", one.but(destination=world.backend).reply())
        kernel.run("pod_ingress", one.but(flags=ACK, acknowledged=1001))
    for one in sent[:5]:
        kernel.run("pod_ingress", one.but(flags=RST))
    sweep(kernel)
    assert census(kernel) == {"NEW": 10, "ESTABLISHED": 15, "RESET": 5}
    kernel.age(PAST_RESET_S)
    sweep(kernel)
    assert census(kernel) == {"NEW": 10, "ESTABLISHED": 15}
    assert len(kernel.flows()) == 25
    assert events(kernel) == {"EXPIRED": 5}


def test_signposts_are_counted_by_themselves(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.client, 80)])
    kernel.run("pod_ingress", first(world))
    sweep(kernel)
    assert census(kernel) == {"NEW": 1, "SIGNPOST": 1}


def test_a_slice_is_no_more_than_a_slice(kernel: Kernel) -> None:
    flows = FlowSweep(kernel.build, kernel.family)
    sets = View(kernel.build, kernel.family).map("flows")
    assert sets is not None
    flows.step(1 / PASS_S)
    with kernel.open("census") as table:
        done = kernel.layout.struct("census").unpack(table.lookup(bytes(4)) or b"")
    assert done.next_set == math.ceil(sets.max_entries / PASS_S) and not done.passes
    assert not census(kernel)


def test_a_place_that_was_swept_is_used_again(kernel: Kernel, world: World) -> None:
    """And counts its tenants on. (Here the clock itself goes on.)"""
    kernel.service(world.vip, 80, [(world.backend, 80)], protocol=Protocol.UDP)
    generations = []
    for _ in range(2):
        kernel.run("pod_ingress", first(world, UDP))
        generations.append(generation_of(kernel.flows()[0][0]))
        time.sleep(PAST_UDP_S)
        sweep(kernel)
    assert not kernel.flows()
    assert generations[1] == generations[0] + 1


@pytest.mark.parametrize("ahead", [1, 20])
def test_a_flow_that_another_processor_has_just_seen_is_not_old(
    kernel: Kernel, world: World, ahead: int
) -> None:
    """It may have read the clock a tick later than the one that looks."""
    kernel.service(world.vip, 80, [(world.backend, 80)])
    there = kernel.run("pod_ingress", first(world)).packet
    kernel.run("pod_egress", there.reply())
    with kernel.open("flows") as table:
        for key, value in list(table.items()):
            if value.strip(b"\0"):
                words = [value[at : at + 8] for at in range(0, len(value), 8)]
                place = next(at for at, word in enumerate(words) if word.strip(b"\0"))
                # the entry's first word: time in its lowest bits, which comes round
                word = int.from_bytes(words[place], "little")
                later = earlier(word, -ahead)
                words[place] = later.to_bytes(8, "little")
                table.update(key, b"".join(words))
    sweep(kernel)
    assert kernel.run("pod_egress", there.reply()).packet.source == world.vip


def test_affinity_that_has_ended_is_forgotten(kernel: Kernel, world: World) -> None:
    kernel.service(world.vip, 80, [(world.backend, 80)], affinity_timeout_s=300, name="short")
    kernel.service(world.other_vip, 80, [(world.backend, 80)], affinity_timeout_s=900, name="long")
    for vip in (world.vip, world.other_vip):
        kernel.run("pod_ingress", first(world).but(destination=vip))
    affinity = AffinitySweep(kernel.build, kernel.family)

    def kept() -> list[str]:
        for _ in range(PASS_S):
            affinity.step(1 / PASS_S)
        rows = dump(View(kernel.build, kernel.family), "affinity")
        return sorted(row["service"] for row in rows)

    assert kept() == ["test/long", "test/short"]
    kernel.age(301)
    assert kept() == ["test/long"]
    kernel.service(world.other_vip, 80, [(world.backend, 80)], name="long")
    assert kept() == []


def established(kernel: Kernel, world: World, flows: int) -> Traffic:
    """So many connections."""
    kernel.service(world.vip, 80, [(world.backend, 80)])
    feeder = Feeder(kernel.family)
    there = Traffic(world.client, world.vip, 80, TCP, flows, flags=SYN)
    feeder.run(kernel.program("pod_ingress"), there, flows)
    back = replace(there, peer=world.backend, turned=True, flags=SYN | ACK)
    feeder.run(kernel.program("pod_egress"), back, flows)
    feeder.run(kernel.program("pod_ingress"), replace(there, flags=ACK), flows)
    return there


def test_half_a_million_flows_cost_less_than_a_second(kernel: Kernel, world: World) -> None:
    """Of processor time, kernel included; it is some 20 ms."""
    there = established(kernel, world, HALF_A_MILLION)
    Feeder(kernel.family).run(
        kernel.program("pod_ingress"), replace(there, flags=RST), HALF_A_MILLION
    )
    kernel.age(PAST_SYN_S)  # a few have lost their place to others, and were begun anew by an ACK
    began = time.process_time()
    sweep(kernel)
    cost_s = time.process_time() - began
    assert events(kernel)["EXPIRED"] > HALF_A_MILLION * 0.99
    assert not kernel.flows()
    assert cost_s < 1


def test_a_flood_takes_no_established_flow(kernel: Kernel, world: World) -> None:
    """A million SYNs, each from a client of its own."""
    there = established(kernel, world, 10_000)
    flood = Traffic(world.outside, world.vip, 80, TCP, 1_000_000, flags=SYN)
    Feeder(kernel.family).run(kernel.program("pod_ingress"), flood, 1_000_000)
    kernel.service(world.vip, 80, [(world.other_backend, 80)], name="s0")
    before = kernel.counters()
    Feeder(kernel.family).run(kernel.program("pod_ingress"), replace(there, flags=ACK), 10_000)
    assert Counter(kernel.counters()) - before == {"ESTABLISHED": 10_000}
    assert not kernel.count("FLOW_TABLE_FULL")
    # two million would not fit: unanswered ones gave room to the next
    assert events(kernel)["EVICTED_NEW"] > 0


@pytest.mark.rule("ME-2")
def test_metrics(kernel: Kernel, world: World) -> None:
    before = kernel.writer.occupancy()
    kernel.service(world.vip, 80, [(world.backend, 80)], affinity_timeout_s=60)
    kernel.run("pod_ingress", first(world))
    other = next(family for family in Family if family is not kernel.family)
    registry = CollectorRegistry()
    registry.register(
        MapCollector(
            kernel.build,
            lambda: [
                (kernel.family, name, number) for name, number in kernel.writer.occupancy().items()
            ],
        )
    )
    sweep(kernel)
    samples = {
        (one.name, *sorted(one.labels.values())): one.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for one in family.samples
        if one.labels.get("family") != other.directory
    }
    mine = kernel.family.directory
    assert samples["ebpf_lb_conntrack_entries", *sorted((mine, "new"))] == 1
    assert samples["ebpf_lb_conntrack_entries", *sorted((mine, "established"))] == 0
    assert samples["ebpf_lb_conntrack_evictions_total", *sorted((mine, "new"))] == 0
    assert samples["ebpf_lb_snat_port_retries_total", mine] == 0
    of_services = [key for key in samples if key[0] == "ebpf_lb_service_packets_total"]
    assert sum(samples[key] for key in of_services if mine in key) == 1
    assert samples["ebpf_lb_packets_total", *sorted((mine, "ESTABLISHED", "forward"))] == 1
    for name, used, room in (
        ("flows", 1, SETTINGS.flows),
        ("frontends", 2, SETTINGS.frontends),
        ("services", before["services"] + 1, SETTINGS.services),
        ("backends", before["backends"] + 1, SETTINGS.backends),
        ("slots", before["slots"] + 1, SETTINGS.slots),
        ("affinity", 1, SETTINGS.affinity),
    ):
        assert samples["ebpf_lb_map_entries", *sorted((mine, name))] == used, name
        assert samples["ebpf_lb_map_capacity", *sorted((mine, name))] == room, name


def test_the_agent_goes_on_when_sweeping_fails(kernel: Kernel) -> None:
    class Broken:
        def step(self, share: float) -> None:
            raise OSError("no")

    class Log:
        def __init__(self) -> None:
            self.lines: list[str] = []

        def error(self, event: str, **_: object) -> None:
            self.lines.append(event)

    log = Log()
    sweeper = Sweeper([Broken(), *affinity_sweeps(kernel.build)], log)
    for _ in range(3):
        sweeper.step()
    assert log.lines == ["sweeping failed"]
