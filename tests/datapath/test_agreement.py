"""The oracle and the data path agree, on ten thousand random clusters and what flows through them.

Each cluster comes out of the one before by a change of about half of it, so that the writing of
differences is tried as well: deletions, ids and regions given out again, addresses that change
hands. A disagreement is shrunk to few objects before it is told; the seed in it repeats it.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import pytest

from ebpf_lb.model.values import Family
from ebpf_lb.plan.forwarding import Forwarding, FrontendFlag, FrontendKind
from tests.datapath.chain import Answer, Chain, emptied, node_network
from tests.datapath.kernel import Kernel
from tests.datapath.mutation import seeded
from tests.oracle.affinity import Memory, sticky
from tests.oracle.oracle import (
    AS_BUILT,
    AS_WRITTEN,
    Client,
    ClientKind,
    Departures,
    Destination,
    Kind,
    Verdict,
    verdict,
    version,
)
from tests.oracle.shrinking import plainest
from tests.oracle.situations import (
    NODE_ADDRESSES,
    NOTHING,
    Situation,
    after,
    clients,
    destinations,
)
from tests.support.chance import SEED_VARIABLE, times

PARTS, EPISODES, CLUSTERS = 4, times(25), 100  # an episode is an agent's life
QUESTIONS, STRANGERS_QUESTIONS = 10, 6
PORTS = 60_000
SHRINKING_S = 30

Kernels = Mapping[Family, Kernel]


@pytest.fixture(scope="module")
def uplink() -> Iterator[int]:
    with node_network() as ifindex:
        yield ifindex


@pytest.fixture
def kernels(_kernels: Kernels) -> Kernels:
    return _kernels


@pytest.fixture
def empty(kernels: Kernels) -> Iterator[Kernels]:
    with emptied(kernels):
        yield kernels


@dataclass(frozen=True)
class Disagreement:
    client: Client
    destination: Destination
    expected: Verdict
    answer: Answer
    fault: str

    @property
    def nature(self) -> tuple[Kind, Kind]:
        """What others must have in common with it to be the same one."""
        return self.expected.kind, self.answer.kind


def fault(client: Client, expected: Verdict, answer: Answer) -> str:
    """What is wrong about an answer; "" if it is the expected one."""
    if answer.fault:
        return answer.fault
    if answer.kind is not expected.kind:
        return f"{answer.kind.value}, where the oracle says: {expected.kind.value}"
    if answer.kind is not Kind.BACKENDS:
        return ""
    if answer.backend not in expected.backends:
        return f"went to {answer.backend}"
    if client.kind is not ClientKind.NODE and answer.backend not in expected.masquerade:
        return "" if answer.source == client.address else f"came as {answer.source}"
    if answer.source not in NODE_ADDRESSES:
        return f"was to be masqueraded, and came as {answer.source}"
    return ""


class Judge:
    """Asks a chain and the oracle, and tells the first difference."""

    def __init__(self, chain: Chain, departures: Departures = AS_BUILT) -> None:
        self.chain = chain
        self.seen: Counter[tuple[ClientKind, Kind]] = Counter()
        self._departures = departures
        self._ports = itertools.count()
        self._situation = NOTHING
        self._memory = Memory()

    def become(self, situation: Situation) -> None:
        self.chain.become(situation)
        self._situation, self._memory = situation, Memory()

    def ask(
        self, client: Client, destination: Destination, *, xdp: bool = False, new: bool = False
    ) -> tuple[Verdict, Disagreement | None]:
        """`new`: the client was never seen in another situation, so what it keeps to is known."""
        situation = self._situation
        objects = situation.objects.values()
        expected = verdict(
            objects, situation.node, client, destination,
            masquerade_all=situation.masquerade_all,
            pod_networks_known=situation.pod_networks_known,
            service_networks=situation.service_networks,
            departures=self._departures,
        )  # fmt: skip
        port = 1024 + next(self._ports) % PORTS
        answer = self.chain.send(client, destination, port, xdp=xdp)
        whose = sticky(objects, situation.node, destination) if new else None
        narrowed = expected
        if whose and expected.kind is Kind.BACKENDS:
            narrowed = replace(expected, backends=self._memory.allowed(whose, client, expected))
        self.seen[client.kind, expected.kind] += 1
        wrong = fault(client, narrowed, answer)
        if wrong:
            return expected, Disagreement(client, destination, narrowed, answer, wrong)
        if whose and answer.backend:
            self._memory.note(whose, client, expected, answer.backend)
        return expected, None

    def reaches_all(self, client: Client, destination: Destination) -> Disagreement | None:
        """Flow after flow until every backend was chosen: in vain less than once in 10^18 runs."""
        expected, found = self.ask(client, destination)
        missing, answer = set(expected.backends), None
        for _ in range(50 * len(missing)):
            if found or not missing:
                break
            port = 1024 + next(self._ports) % PORTS
            answer = self.chain.send(client, destination, port, xdp=False)
            missing.discard(answer.backend)  # type: ignore[arg-type]
        if found or not missing or answer is None:
            return found
        return Disagreement(client, destination, expected, answer, f"never reached: {missing}")


def stranger(number: int, family: int) -> str:
    return f"198.18.{number >> 8}.{number & 255}" if family == 4 else f"2001:db8:18::{number:x}"


def some_questions(
    judge: Judge, situation: Situation, number: int, rng: random.Random
) -> Disagreement | None:
    objects, places = situation.objects.values(), destinations(situation)
    balanced = None
    for _ in range(QUESTIONS):
        place = rng.choice(places)
        client = rng.choice(clients(place))
        expected, found = judge.ask(client, place, xdp=rng.random() < 0.5)
        if found:
            return found
        if len(expected.backends) > 1 and not sticky(objects, situation.node, place):
            balanced = client, place
    if balanced:
        found = judge.reaches_all(*balanced)
        if found:
            return found
    kept = [place for place in places if sticky(objects, situation.node, place)]
    for _ in range(STRANGERS_QUESTIONS if kept else 0):
        place = rng.choice(kept)
        client = Client(ClientKind.OUTSIDE, stranger(number, version(place.address)))
        _, found = judge.ask(client, place, xdp=rng.random() < 0.5, new=True)
        if found:
            return found
    return None


Asked = Callable[[Judge, Situation], Disagreement | None]


def all_questions(judge: Judge, situation: Situation) -> Disagreement | None:
    """In any order of events the same: for shrinking."""
    for place in destinations(situation):
        for client in clients(place, stranger(1, version(place.address))):
            found = repeatedly(judge, situation, client, place)
            if found:
                return found
    return None


def repeatedly(
    judge: Judge, situation: Situation, client: Client, place: Destination
) -> Disagreement | None:
    """One question, by all ways and until every backend was reached."""
    new = client.address == stranger(1, version(place.address))
    for attempt in range(4):
        _, found = judge.ask(client, place, xdp=attempt % 2 == 1, new=new)
        if found:
            return found
    if sticky(situation.objects.values(), situation.node, place):
        return None
    return judge.reaches_all(client, place)


def forget_clients(kernels: Kernels) -> None:
    """Their addresses and ports come again."""
    for kernel in kernels.values():
        kernel.forget_flows()
        with kernel.open("affinity") as table:
            for key in list(table.keys()):
                table.delete(key)


MakeChain = Callable[[], Chain]


def replayed(
    kernels: Kernels, make: MakeChain, history: list[Situation], asked: Asked
) -> Disagreement | None:
    """What the last of some situations brings to a new agent."""
    forget_clients(kernels)
    judge = Judge(make())
    for situation in history:
        judge.become(situation)
    return asked(judge, history[-1])


def shrunk(
    kernels: Kernels, make: MakeChain, history: list[Situation], original: Disagreement
) -> tuple[list[Situation], Disagreement | None]:
    """The shortest and plainest history found in the time there is, and what it brings."""

    def again(judge: Judge, situation: Situation) -> Disagreement | None:
        return repeatedly(judge, situation, original.client, original.destination)

    def disagreement(candidate: list[Situation], asked: Asked) -> Disagreement | None:
        found = replayed(kernels, make, candidate, asked)
        return found if found and found.nature == original.nature else None

    for length, asked in itertools.product((1, 2, 3, 5, len(history)), (again, all_questions)):
        last = history[-length:]
        if disagreement(last, asked):
            return plainest(last, lambda one: disagreement(one, asked), SHRINKING_S)  # noqa: B023
    return history[-2:], None


def told(history: list[Situation], found: Disagreement) -> str:
    lines = [json.dumps(one.objects, indent=1) + f"\n{replace(one, objects={})}" for one in history]
    return "\n\nthen\n\n".join(lines) + (
        f"\n\n{found.client} -> {found.destination}\nexpected {found.expected}"
        f"\ngot      {found.answer}\n{found.fault}"
    )


def play(
    kernels: Kernels, make: MakeChain, rng: random.Random, seen: Counter[tuple[ClientKind, Kind]]
) -> str:
    """An episode. What went wrong, shrunk; "" if nothing did."""
    judge = Judge(make())
    history: list[Situation] = []
    for number in range(1, CLUSTERS + 1):
        history.append(after(history[-1] if history else NOTHING, rng))
        judge.become(history[-1])
        found = some_questions(judge, history[-1], number, rng)
        if found:
            fewest, again = shrunk(kernels, make, history, found)
            rare = "" if again else "(it did not come again with the last of its past)\n"
            return rare + told(fewest, again or found)
    seen.update(judge.seen)
    return ""


@pytest.mark.rule(
    "VE-1",
    "VE-2",
    "VE-3",
    "VE-4",
    "VE-5",
    "VE-6",
    "VE-7",
    "VE-8",
    "VE-9",
    "VE-13",
    "VE-14",
    "VE-15",
    "VE-16",
    "VE-17",
    "VE-18",
    "AF-1",
)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_data_path_does_what_the_oracle_says(empty: Kernels, uplink: int, part: int) -> None:
    seed, _ = seeded("agreement", seed=1)
    seen: Counter[tuple[ClientKind, Kind]] = Counter()
    for episode in range(EPISODES):
        forget_clients(empty)
        rng = random.Random(f"{seed}/{part}/{episode}")
        try:
            wrong = play(empty, lambda: Chain(empty, uplink), rng, seen)
        except Exception as error:
            error.add_note(f"{SEED_VARIABLE}={seed} repeats it")
            raise
        assert not wrong, f"{wrong}\n{SEED_VARIABLE}={seed} repeats it"
    # chance must lead every kind of client to every verdict often, or this says little
    floor = EPISODES * CLUSTERS // 50
    rare = {(client, kind) for client in ClientKind for kind in Kind if seen[client, kind] < floor}
    assert not rare, (rare, seen)


# The comparison must be able to fail.


def swapped(forwarding: Forwarding) -> Forwarding:
    return replace(forwarding, cluster=forwarding.local, local=forwarding.cluster)


def without_flags(kind: FrontendKind, flag: FrontendFlag) -> Callable[[Forwarding], Forwarding]:
    def tamper(forwarding: Forwarding) -> Forwarding:
        frontends = (
            f._replace(flags=f.flags & ~flag) if f.kind is kind else f for f in forwarding.frontends
        )
        return replace(forwarding, frontends=tuple(frontends))

    return tamper


WRONG_PLANS: dict[str, Callable[[Forwarding], Forwarding]] = {
    "one backend is missing": lambda f: replace(f, cluster=f.cluster[1:]),
    "the sets are swapped": swapped,
    "nothing has endpoints": lambda f: replace(f, has_any=False, cluster=(), local=()),
    "everything has endpoints": lambda f: replace(f, has_any=True),
    "no affinity": lambda f: replace(f, affinity_timeout_s=0),
    "nobody is in any range": lambda f: replace(f, source_ranges=()),
    "no backend is here": lambda f: replace(
        f,
        cluster=tuple(b._replace(local=False) for b in f.cluster),
        local=tuple(b._replace(local=False) for b in f.local),
    ),
    "iTP is Cluster": without_flags(FrontendKind.CLUSTER_IP, FrontendFlag.LOCAL),
    "eTP is Cluster": without_flags(FrontendKind.NODE_PORT, FrontendFlag.LOCAL),
    "no source ranges": without_flags(FrontendKind.LOAD_BALANCER, FrontendFlag.SOURCE_RANGES),
}


class Forgetful(Chain):
    """Never deletes what is not wanted any more."""

    def become(self, situation: Situation) -> None:
        self._programmer.remove_unwanted = lambda: None  # type: ignore[method-assign]
        super().become(situation)


class Deaf(Chain):
    """Does not hear of every fifth change."""

    heard = 0

    def become(self, situation: Situation) -> None:
        self.heard += 1
        if self.heard % 5:
            super().become(situation)


def first_fault(kernels: Kernels, make: MakeChain) -> str:
    """Within some episodes; that of a right chain is ""."""
    for episode in range(10):
        forget_clients(kernels)
        wrong = play(kernels, make, random.Random(f"wrong/{episode}"), Counter())
        if wrong:
            return wrong
    return ""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.SHRINKING_S", 0)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("plan", WRONG_PLANS)
def test_a_wrong_plan_is_noticed(empty: Kernels, uplink: int, plan: str) -> None:
    assert first_fault(empty, lambda: Chain(empty, uplink, WRONG_PLANS[plan]))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", [Forgetful, Deaf])
def test_a_wrong_writer_is_noticed(empty: Kernels, uplink: int, kind: type[Chain]) -> None:
    assert first_fault(empty, lambda: kind(empty, uplink))


@pytest.mark.rule("VE-16", "VE-17")
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "departures",
    [replace(AS_BUILT, **{name: False}) for name in vars(AS_BUILT)],
    ids=list(vars(AS_BUILT)),
)
def test_what_we_do_otherwise_is_named(
    empty: Kernels, uplink: int, departures: Departures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each departure from the page's words is one that would be noticed."""
    assert departures != AS_BUILT and AS_WRITTEN != AS_BUILT
    monkeypatch.setattr(Judge.__init__, "__defaults__", (departures,))
    assert first_fault(empty, lambda: Chain(empty, uplink))


def test_a_disagreement_is_told_in_few_objects(
    empty: Kernels, uplink: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.SHRINKING_S", 600)  # of which it takes two
    wrong = first_fault(empty, lambda: Chain(empty, uplink, WRONG_PLANS["iTP is Cluster"]))
    assert '"internalTrafficPolicy": "Local"' in wrong and "expected" in wrong
    assert wrong.count('"kind": "Service"') == 1 and wrong.count('"addresses"') == 1
