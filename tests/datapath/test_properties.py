"""Whatever comes, at every hook: a packet leaves as it came, as its Service's tables and its flow
say, refused, or dropped for one counted reason."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ebpf_lb.model.values import Family
from tests.capabilities import DATAPATH, SUMMED_RUNS, needs
from tests.datapath import judge
from tests.datapath.conftest import SETTINGS
from tests.datapath.judge import NEXT, REDIRECT, SHOT, End
from tests.datapath.kernel import Kernel, loaded
from tests.datapath.mutation import Mutator, error_about, seeded
from tests.datapath.reference import (
    HOOKS,
    INGRESS,
    POD_IN,
    POD_OUT,
    UPLINK_IN,
    UPLINK_OUT,
    Observed,
    Reference,
    Ruling,
)
from tests.datapath.reference.there import crowded
from tests.datapath.scene import ADDRESSES, Scene, ends, made, surroundings
from tests.datapath.test_sweep import events
from tests.datapath.traffic import (
    BEGINNINGS,
    Seen,
    answered,
    conversations,
    datagrams,
    questions,
    unanswerable,
    visit,
)
from tests.support.chance import SEED_VARIABLE, times
from tests.support.packets import SCTP, parse

pytestmark = needs(*DATAPATH)

# of each family; every frame passes five hooks: 132,000 runs, and some
ROUNDS, FRAMES = times(12), 1100
CONVERSATIONS, DATAGRAMS = 60, 12  # a round
# until thirty others in a row find nothing that is the reference's own fault; try some
SEED = 1


@pytest.fixture(scope="module")
def roomy() -> Iterator[dict[Family, Kernel]]:
    """A connection table in which chance leaves no flow without room, and no flow ends by time on
    a slow machine: the reference knows nothing of both."""
    lasting = dict.fromkeys(
        ("tcp_syn_s", "tcp_established_s", "closing_s", "udp_s", "sctp_s"), 86_400
    )
    with loaded(
        "properties", replace(SETTINGS, flows=1 << 16, fragments=1 << 12, **lasting)
    ) as root:
        yield {family: Kernel(root, family) for family in Family}


@pytest.fixture(params=list(Family), ids=lambda family: family.directory)
def kernel(request: pytest.FixtureRequest, roomy: dict[Family, Kernel]) -> Kernel:
    roomy[request.param].reset()
    return roomy[request.param]


@pytest.fixture(scope="module")
def interfaces() -> Iterator[dict[str, int]]:
    with surroundings() as numbers:
        yield numbers


@pytest.fixture
def scene(kernel: Kernel, interfaces: dict[str, int]) -> Scene:
    seed, rng = seeded(kernel.family.name, seed=SEED)
    print(f"{SEED_VARIABLE}={seed} repeats it")  # shown with whatever fails
    return made(kernel, interfaces, seed, rng)


def test_whatever_comes(scene: Scene) -> None:
    family = scene.kernel.family
    mutate = Mutator(family, ends(family), scene.rng)
    seen: Seen = Counter()
    for _ in range(ROUNDS):
        scene.forget()
        frames = conversations(scene, seen, CONVERSATIONS)
        datagrams(scene, seen, DATAGRAMS)
        for _ in range(FRAMES):
            frame = mutate(scene.rng.choice(frames))
            for hook in scene.rng.sample(HOOKS, len(HOOKS)):
                visit(scene, seen, hook, frame)
    for hook, frame in unanswerable(scene, 30):  # too few come by chance
        visit(scene, seen, hook, frame)
    # chance must reach every outcome often, or the test says little
    many, some = ROUNDS * FRAMES // 100, 10
    beginnings = ("passed", "new flow", "translated", "restored", "error", "refused")
    for hook in BEGINNINGS:
        assert all(seen[hook, fate] > many for fate in beginnings), seen
        for reason in ("NO_LOCAL_ENDPOINTS", "SOURCE_RANGE", "LATER_FRAGMENT", "UNANSWERABLE"):
            assert seen[hook, f"dropped: {reason}"] > some, seen
    assert all(seen[POD_OUT, fate] > many for fate in ("passed", "restored", "error")), seen
    assert events(scene.kernel)["OVERFLOW"] > some
    assert all(seen["xdp", fate] > some for fate in ("new flow", "translated", "restored")), {
        key: count for key, count in seen.items() if key[0] == "xdp"
    }


def test_every_shorter_length(scene: Scene) -> None:
    """Down to what the kernel's test run takes; test_frames.py sends what is shorter."""
    family, seen = scene.kernel.family, Counter[tuple[str, str]]()
    shortest = Mutator(family, ends(family), scene.rng).shortest
    frames = conversations(scene, seen, 8)
    for frame in frames:
        for length in range(shortest, min(len(frame), 200)):
            for hook in HOOKS:
                visit(scene, seen, hook, frame[:length])
    # frames of any protocol but IP may be as short as the link header
    for length in range(14, 60):
        short = (frames[0][:12] + b"\x12\x34" + frames[0][14:])[:length]
        for hook in HOOKS:
            scene.xdp = hook == UPLINK_IN and not scene.xdp
            got = scene.run(hook, short)
            assert (got.verdict, got.frame) == (NEXT, short), (hook, length)


@needs(SUMMED_RUNS)
def test_a_devices_sum_over_the_packet_stays_true(scene: Scene) -> None:
    """Some devices deliver it with the packet, and the kernel believes it. (Nobody does of an SCTP
    packet; refusals go back out, where nobody looks.)"""
    family = scene.kernel.family
    mutate = Mutator(family, ends(family), scene.rng)
    seen: Seen = Counter()
    frames = conversations(scene, seen, CONVERSATIONS)
    frames = [f for f in frames if (r := judge.read(f)) and r.protocol != SCTP]
    for _ in range(3000):
        frame = mutate(scene.rng.choice(frames))
        found = judge.read(frame)
        if found is not None and found.protocol == SCTP:
            continue
        for hook in HOOKS:
            try:
                seen.update((hook, reason) for reason in scene.run_summed(hook, frame))
            except OSError as error:
                assert error.errno == errno.EBADMSG, error
                counted = scene.tally.since()
                unseen = {"NO_ENDPOINTS", "UNSERVED_PORT", *scene.reference.drops}
                assert unseen & set(counted), f"{hook}, {dict(counted)}: {frame.hex()}"
    for hook, reason in (
        *((hook, "ESTABLISHED") for hook in (POD_IN, UPLINK_IN, UPLINK_OUT)),
        *((hook, "REPLY") for hook in HOOKS if hook not in INGRESS),
        *((hook, "MASQUERADED") for hook in INGRESS),  # the client in the reply
        *((hook, "ICMP_ERROR") for hook in HOOKS),
    ):
        assert seen[hook, reason] > 10, seen


# the judge, judged


@pytest.fixture
def samples(scene: Scene) -> dict[tuple[str, str, int], tuple[Reference, bytes, Observed]]:
    """One packet of each fate at each hook, and what the reference knew before it came."""
    found: dict[tuple[str, str, int], tuple[Reference, bytes, Observed]] = {}

    def look(hook: str, frame: bytes) -> tuple[Ruling, Observed]:
        before = scene.reference.copy()
        ruling, got = scene.visit(hook, frame)
        reading = judge.read(frame)
        known = before.flows.get(ruling.flow.forward) if ruling.flow else None
        # of a flow without answer, less is certain: it may have been forgotten
        certain = ruling.fate not in ("translated", "restored", "error") or (known and known.firm)
        if ruling.fate == "new flow" and ruling.flow is not None:
            flow = ruling.flow
            own = End(flow.seen.address, flow.client.port)
            # where another port may be needed, any is as good
            certain = flow.seen == own and not crowded(before, flow.protocol, flow.client, own)
        if reading is not None and (certain or ruling.fate == "error"):
            found.setdefault((hook, ruling.fate, reading.protocol), (before, frame, got))
        return ruling, got

    router = ADDRESSES[scene.kernel.family].router
    for hook, asked in questions(scene, 250):
        ruling, there = look(hook, asked)
        if ruling.fate != "new flow":
            continue
        for _ in range(2):
            for each in HOOKS:
                look(each, answered(there.frame))
        look(hook, asked)
        for each in HOOKS:
            look(each, error_about(there.frame, router, scene.rng))
    return found


Samples = dict[tuple[str, str, int], tuple[Reference, bytes, Observed]]


def test_the_judge_notices_every_wrong_byte(samples: Samples) -> None:
    fates = {(hook, fate) for hook, fate, _ in samples}
    expected = {(h, f) for h in (POD_IN, UPLINK_IN, UPLINK_OUT) for f in ("new flow", "translated")}
    expected |= {(h, f) for h in HOOKS for f in ("restored", "error", "passed")}
    assert fates >= expected, expected - fates
    for (hook, fate, protocol), (reference, sent, got) in samples.items():
        assert not reference.judge(hook, sent, got).fault
        if fate.startswith("dropped"):
            continue
        unnoticed = []
        backends = {end.address for s in reference.services.values() for end in s.all}
        for place in range(len(got.frame)):
            for bit in (1, 4, 128):
                altered = bytearray(got.frame)
                altered[place] ^= bit
                if reference.judge(hook, sent, replace(got, frame=bytes(altered))).fault:
                    continue
                # SCTP over IPv6: no checksum has the address, and this one might as well be chosen
                reading = judge.read(bytes(altered))
                if not (fate == "new flow" and reading and reading.destination in backends):
                    unnoticed.append(place)
        # of an answer, hop limit, traffic class and the like are the answerer's own
        assert fate == "refused" or not unnoticed, (hook, fate, protocol, unnoticed)
        assert len(set(unnoticed)) < 12, (hook, fate, protocol, unnoticed)


def test_the_judge_notices_wrong_verdicts_and_counts(samples: Samples) -> None:
    for (hook, fate, _), (reference, sent, got) in samples.items():
        wrong = [replace(got, verdict=v) for v in (NEXT, SHOT, REDIRECT, 0) if v != got.verdict]
        wrong += [
            replace(got, counted=got.counted + Counter([reason]))
            for reason in ("NEW", "ESTABLISHED", "REPLY", "NO_ROUTE", "TRUNCATED", "XDP")
            if not (reason == "XDP" and hook == UPLINK_IN and got.verdict == REDIRECT)
        ]
        if fate != "passed":
            wrong.append(replace(got, counted=Counter()))
            wrong.append(Observed(NEXT, sent, Counter()))
        for each in wrong:
            assert reference.judge(hook, sent, each).fault, (hook, fate, each.counted, each.verdict)


def test_the_judge_notices_wrong_choices(samples: Samples, scene: Scene) -> None:
    """Rewritten without a mistake, but to the wrong end."""
    of = ADDRESSES[scene.kernel.family]
    noticed: Counter[str] = Counter()
    for (hook, fate, protocol), (reference, sent, got) in samples.items():
        if fate not in ("new flow", "translated", "restored"):
            continue
        right = parse(got.frame)
        forged = {
            "another backend": right.but(destination=of.foreign),
            "another port": right.but(destination_port=right.destination_port ^ 1),
            "another source": right.but(source=of.second if right.source == of.node else of.node),
            "another source port": right.but(source_port=right.source_port ^ 1),
            "a port out of range": right.but(source_port=777),
            "a hop too many": right.but(ttl=right.ttl - 1),
            "a hop too few": right.but(ttl=right.ttl + 1),
            "another neighbour": right.but(destination_mac=bytes(5) + b"\7"),
            "another interface": right.but(source_mac=bytes(5) + b"\7"),
            "another payload": right.but(payload=right.payload + b"\0\0\0\0"),
        }
        for what, packet in forged.items():
            observed = replace(got, frame=packet.frame())
            assert reference.judge(hook, sent, observed).fault, (hook, fate, protocol, what)
            noticed[what] += 1
    assert len(noticed) == 10
