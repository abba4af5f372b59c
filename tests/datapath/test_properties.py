"""Whatever comes: a packet leaves as it came, as its Service's tables say, refused, or counted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ebpf_lb.model.values import Family, Protocol
from tests.datapath import judge
from tests.datapath.judge import NEXT, REDIRECT, SHOT, Tables, Target
from tests.datapath.kernel import NODE, Kernel
from tests.datapath.mutation import SEED_VARIABLE, Ends, Mutator, generated, good_frame, seeded
from tests.datapath.test_pod import WORLDS
from tests.support.packets import ICMP, ICMPV6, Packet, packed

FRAMES = 26_000  # a test and family; five tests with two families are over 100,000 together

OURS = [(80, Protocol.TCP, 9376), (443, Protocol.TCP, 443), (53, Protocol.UDP, 5353),
        (123, Protocol.UDP, 123), (9, Protocol.SCTP, 9899), (10, Protocol.SCTP, 10)]  # fmt: skip
EMPTY = [(81, Protocol.TCP), (81, Protocol.UDP), (81, Protocol.SCTP)]
"""Ports of Services without endpoints."""


@dataclass
class Scene:
    """Services of all protocols in the maps, and the same as the judge's tables."""

    kernel: Kernel
    tables: Tables
    vip: bytes
    seed: int
    rng: random.Random

    def run(self, program: str, frame: bytes) -> tuple[int, bytes, Counter[str]]:
        """Verdict, frame, and what the packet was counted under."""
        before = self.kernel.counters()
        done = self.kernel.program(program).test_run(frame)
        after = self.kernel.counters()
        return done.retval, done.data_out, after - before if after != before else Counter()

    def blame(self, frame: bytes, got: bytes, why: str) -> str:
        return (
            f"{why}\nsent {frame.hex()}\ngot  {got.hex()}\n{SEED_VARIABLE}={self.seed} repeats it"
        )


def ends(family: Family) -> Ends:
    """Clients and destinations of all kinds; no backend is a client, which would be a hairpin."""
    world = WORLDS[family]
    odd = ("0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1")
    if family is Family.IPV6:
        odd = ("::", "::ffff:10.0.0.1", "ff02::1", "::1")
    return Ends(
        (world.client, world.client, world.outside, NODE[family], world.vip, *odd),
        (world.vip, world.vip, world.vip, world.other_vip, world.outside, NODE[family], *odd),
        (1, 80, 40000, 40001, 65535),
        (80, 443, 53, 123, 9, 10, 81, 82, 0),
    )


@pytest.fixture
def scene(kernel: Kernel) -> Iterator[Scene]:
    world = WORLDS[kernel.family]
    kernel.writer.set_config(0, 0, 0)  # refusals without a limit
    stem, tables = world.backend[:-1], {}
    for number, (port, protocol, target_port) in enumerate(OURS):
        # every Service has backends of its own: two that share one could clash, and would be SNATed
        backends = [f"{stem}{number * 16 + n:x}" for n in range(3)]
        if kernel.family is Family.IPV4:
            backends = [f"{stem}{number * 16 + n}" for n in range(3)]
        kernel.service(world.vip, port, [(b, target_port) for b in backends], protocol=protocol)
        reached = frozenset(map(packed, backends))
        tables[packed(world.vip), port, int(protocol)] = Target(reached, target_port)
    for port, protocol in EMPTY:
        kernel.service(world.vip, port, [], protocol=protocol)
        tables[packed(world.vip), port, int(protocol)] = Target(frozenset(), 0)
    seed, rng = seeded(kernel.family.name)
    yield Scene(kernel, tables, packed(world.vip), seed, rng)


DROPS = range(32, 64)


def fault_at_ingress(scene: Scene, frame: bytes) -> tuple[str, str]:
    """What is wrong about what became of a frame ("" if nothing is), and what did."""
    kernel, found = scene.kernel, judge.read(frame)
    verdict, got, counted = scene.run("pod_ingress", frame)
    numbers = {kernel.reason_number(name): name for name in counted}
    target = None
    if found is not None and found.whole and found.transport is not None:
        key = (found.destination, found.destination_port, found.protocol)
        target = scene.tables.get(key)
    if verdict == SHOT:
        drops = [number for number in numbers if number in DROPS]
        return ("" if len(drops) == 1 else f"dropped, counted as {counted}"), "dropped"
    if verdict == REDIRECT:
        if counted["NO_ENDPOINTS"] + counted["UNSERVED_PORT"] != 1:
            return f"redirected, counted as {counted}", "refused"
        if found is None or found.destination != scene.vip or (target and target.backends):
            return "refused, which nobody asked for", "refused"
        return judge.wrong_answer(frame, got), "refused"
    if verdict != NEXT:
        return f"verdict {verdict}", "?"
    if got != frame:
        fault = judge.wrong_translation(frame, got, scene.tables) or judge.wrong_sctp(frame, got)
        return fault, "translated"
    if target is not None and target.backends:
        return "a Service's packet passed untranslated", "passed"
    if found is not None and found.whole and found.destination == scene.vip:
        error = found.protocol in (ICMP, ICMPV6)
        if not counted and not error:
            return "passed for an address of ours, and nobody counted it", "passed"
    if found is not None and found.whole and found.destination != scene.vip and counted:
        return f"no Service's packet, counted as {counted}", "passed"
    return "", "passed"


def test_whatever_a_pod_sends(scene: Scene) -> None:
    family = scene.kernel.family
    seen: Counter[str] = Counter()
    for frame in generated(family, ends(family), scene.rng, FRAMES):
        fault, fate = fault_at_ingress(scene, frame)
        assert not fault, scene.blame(frame, scene.run("pod_ingress", frame)[1], fault)
        seen[fate] += 1
    # chance must reach every outcome often, or the test says little
    assert all(seen[fate] > FRAMES // 100 for fate in ("passed", "translated", "refused")), seen
    assert seen["dropped"] > 10, seen


def test_every_shorter_length(scene: Scene) -> None:
    family = scene.kernel.family
    for _ in range(60):
        frame = good_frame(family, ends(family), scene.rng)[:200]
        for length in range(Mutator(family, ends(family), scene.rng).shortest, len(frame)):
            fault, _ = fault_at_ingress(scene, frame[:length])
            assert not fault, scene.blame(frame[:length], b"", fault)
    # the kernel's test run takes frames down to the link header of any protocol but IP
    for length in range(14, 60):
        short = (frame[:12] + b"\x12\x34" + frame[14:])[:length]
        for program in ("pod_ingress", "pod_egress"):
            verdict, got, _ = scene.run(program, short)
            assert verdict in (NEXT, SHOT, REDIRECT)
            assert length >= 34 or (verdict, got) == (NEXT, short)


@pytest.mark.parametrize("program", ["pod_ingress", "pod_egress"])
def test_no_services_packet_is_touched(scene: Scene, program: str) -> None:
    """To and from others, flows of ours in the table: as it came, and uncounted where readable."""
    family = scene.kernel.family
    world, all_ends = WORLDS[family], ends(family)
    strangers = tuple(a for a in all_ends.destinations if a != world.vip)
    others = Ends(
        tuple(a for a in all_ends.sources if a != world.vip),
        strangers,
        all_ends.source_ports,
        all_ends.destination_ports,
    )
    for port in all_ends.source_ports:
        sent = Packet(world.client, world.vip, port, 80)
        answer = scene.kernel.run("pod_ingress", sent).packet.reply()
        assert scene.kernel.run("pod_egress", answer).packet.source == world.vip
    flows = scene.kernel.flows()
    program_ = scene.kernel.program(program)
    before = scene.kernel.counters()
    for frame in generated(family, others, scene.rng, FRAMES):
        if scene.vip in frame:
            continue  # chance made it a Service's after all
        done = program_.test_run(frame)
        assert (done.retval, done.data_out) == (NEXT, frame), scene.blame(
            frame, done.data_out, "no Service's packet was touched"
        )
    counted = scene.kernel.counters() - before
    assert not set(counted) - {"TRUNCATED", "HEADER_CHAIN"}, counted
    assert len(scene.kernel.flows()) == len(flows)


def test_replies_and_what_looks_like_them(scene: Scene) -> None:
    """At a pod's egress, only the source of an established flow's reply is changed."""
    kernel, rng = scene.kernel, scene.rng
    world = WORLDS[kernel.family]
    replies: dict[tuple[bytes, int, int, int], tuple[bytes, int]] = {}
    frames = []
    for port, protocol, target_port in OURS:
        for client_port in (40000, 40001, 1):
            payload = b"x" * 24
            sent = Packet(world.client, world.vip, client_port, port, protocol, payload=payload)
            there = kernel.run("pod_ingress", sent).packet
            key = (packed(there.destination), target_port, client_port, int(protocol))
            replies[key] = (scene.vip, port)
            frames.append(there.reply().frame())
    backends = tuple({str(kernel.run("pod_egress", f).packet.source) for f in frames})
    mutate = Mutator(
        kernel.family,
        Ends((*backends, world.backend), (world.client,), (9376, 5353, 9899), (40000, 40001)),
        rng,
    )
    client, restored = packed(world.client), 0
    for _ in range(FRAMES):
        frame = mutate(rng.choice(frames))
        found = judge.read(frame)
        verdict, got, _ = scene.run("pod_egress", frame)
        assert verdict in (NEXT, SHOT), scene.blame(frame, got, f"verdict {verdict}")
        if verdict == SHOT or got == frame:
            wanted = None
            if found and found.whole and not found.fragment and found.destination == client:
                key = (found.source, found.source_port, found.destination_port, found.protocol)
                wanted = replies.get(key)
            assert wanted is None, scene.blame(frame, got, "a reply was not restored")
            continue
        # seen from its end, a reply is translated as its request was: let the judge read it turned
        tables: Tables = {
            (source, port, protocol): Target(frozenset([vip]), vip_port)
            for (source, port, _, protocol), (vip, vip_port) in replies.items()
        }
        fault = judge.wrong_translation(judge.turned(frame), judge.turned(got), tables)
        fault = fault or judge.wrong_sctp(frame, got)
        assert not fault, scene.blame(frame, got, fault)
        restored += 1
    assert restored > FRAMES // 10


@pytest.mark.parametrize("protocol", list(Protocol), ids=lambda p: p.name)
def test_the_judge_notices_every_wrong_byte(scene: Scene, protocol: Protocol) -> None:
    world = WORLDS[scene.kernel.family]
    port = next(port for port, of, _ in OURS if of is protocol)
    sent = Packet(world.client, world.vip, 40000, port, protocol, payload=b"x" * 24).frame()
    got = scene.kernel.run("pod_ingress", sent).frame
    assert not judge.wrong_translation(sent, got, scene.tables) + judge.wrong_sctp(sent, got)
    for place in range(len(got)):
        for bit in (4, 128):
            altered = bytearray(got)
            altered[place] ^= bit
            wrong = bytes(altered)
            assert judge.wrong_translation(sent, wrong, scene.tables) or judge.wrong_sctp(
                sent, wrong
            ), place
    scene.kernel.service(world.vip, 81, [], protocol=protocol)
    sent = Packet(world.client, world.vip, 40000, 81, protocol, payload=b"x" * 24).frame()
    got = scene.kernel.run("pod_ingress", sent).frame
    assert not judge.wrong_answer(sent, got)
    unnoticed = [
        place
        for place in range(14, len(got))
        if not judge.wrong_answer(sent, got[:place] + bytes([got[place] ^ 3]) + got[place + 1 :])
    ]
    # hop limit, traffic class and the like are the answerer's own
    assert all(place < 22 for place in unnoticed), unnoticed
