"""The maps and programs in the kernel live what tests/scenarios/lives/*.yaml tell."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from itertools import count

import pytest

from ebpf_lb.datapath.dump import dump
from ebpf_lb.datapath.reader.view import View
from ebpf_lb.model.values import Family
from tests.datapath.chain import Chain
from tests.datapath.kernel import LOOPBACK, Kernel, Result
from tests.datapath.node import STACK
from tests.datapath.test_verdict_table import WORDS
from tests.oracle.oracle import Client, Destination
from tests.oracle.situations import Situation
from tests.scenarios import verdicts
from tests.scenarios.lives import LIVES, Life, Moment, Question
from tests.scenarios.test_by_oracle import KINDS, THIS_NODE, name_of
from tests.scenarios.verdicts import Cell
from tests.support.packets import ACK, FIN, PSH, RST, TCP, Packet


class Open:
    """A TCP connection that is kept: its client's first packet, and what its backend saw of it."""

    def __init__(self, chain: Chain, family: Family, asked: Question, began: Packet) -> None:
        self._kernel: Kernel = chain.kernels[family]
        self._uplink = chain.uplink
        self._from = "pod_ingress" if asked.client == "pod" else "uplink_ingress"
        self.began = began
        self.first = self._there(began).packet

    def _run(self, hook: str, packet: Packet | bytes) -> Result:
        ifindex = self._uplink if hook.startswith("uplink") else LOOPBACK
        return self._kernel.run(hook, packet, ifindex)

    def _there(self, packet: Packet) -> Result:
        return STACK.through(self._run, self._from, packet)

    def _back(self, packet: Packet) -> Result:
        """A reply is restored where it leaves, whatever was to do where it came in."""
        near = STACK.leaves_by(packet.source) == "pod_egress"
        entered = self._run("pod_ingress" if near else "uplink_ingress", packet)
        if not entered.passed:
            return entered
        leaves = STACK.leaves_by(entered.packet.destination)
        return self._run(leaves, STACK.forward(entered.frame))

    def shake_hands(self) -> str:
        """What is wrong with it: "" for nothing."""
        if problem := self._heard(self._back(self.first.reply(sequence=700))):
            return problem
        self._there(self.began.but(flags=ACK, acknowledged=701))
        return self.talk()

    def talk(self) -> str:
        """What is wrong with a question, which must reach the backend as before, or with its
        answer: "" for nothing."""
        there = self._there(self.began.but(flags=ACK | PSH, acknowledged=701, payload=b"who?"))
        got, first = there.packet, self.first
        seen = (got.source, got.source_port, got.destination, got.destination_port)
        known = (first.source, first.source_port, first.destination, first.destination_port)
        if there.dropped or seen != known:
            return f"it began as {known}, and goes on as {got}"
        return self._heard(self._back(got.reply(payload=b"it is I")))

    def _heard(self, back: Result) -> str:
        got, began = back.packet, self.began
        found = (got.source, got.source_port, got.destination, got.destination_port)
        wanted = (began.destination, began.destination_port, began.source, began.source_port)
        return "" if not back.dropped and found == wanted else f"{wanted} is answered by {got}"

    def reset(self) -> None:
        self._there(self.began.but(flags=RST))

    def close(self) -> None:
        self._there(self.began.but(flags=FIN | ACK, acknowledged=701))
        self._back(self.first.reply(flags=FIN | ACK))
        self._there(self.began.but(flags=ACK, acknowledged=702))


class Story:
    """One family's part of a life."""

    def __init__(self, chain: Chain, family: Family) -> None:
        self._chain, self._family = chain, family
        self._new = count(40_000)
        self._kept: Mapping[str, int] = defaultdict(count(30_000).__next__)
        self._open: dict[tuple[str, str, str], Open] = {}

    def ask(self, life: Life, asked: Question) -> str:
        """Who answers, or how it ends; "" where nothing is asked."""
        if asked.verb in ("close", "reset"):
            getattr(self._open.pop(asked.connection), asked.verb)()
            return ""
        if asked.verb == "talk":
            opened = self._open[asked.connection]
            return opened.talk() or name_of(opened.first.destination, self._family)
        cell = Cell(asked.destination, life.policy, asked.client, "")
        client = Client(KINDS[asked.client], verdicts.client(cell, self._family))
        where = Destination(*verdicts.destination(cell, self._family), life.protocol)
        port = next(self._new) if asked.who == "anybody" else self._kept[asked.who]
        answer = self._chain.send(client, where, port, xdp=port % 2 == 1)
        if answer.fault:
            return answer.fault
        if answer.backend is None:
            return WORDS[answer.kind]
        name = name_of(answer.backend[0], self._family)
        if asked.verb == "open":  # its SYN is sent once more, and must find the same backend
            began = Packet(client.address, where.address, port, where.port, TCP)
            opened = self._open[asked.connection] = Open(self._chain, self._family, asked, began)
            if name_of(opened.first.destination, self._family) != name:
                return f"a SYN goes to {name}, its copy elsewhere: {opened.first}"
            return opened.shake_hands() or name
        return name

    def maps(self) -> dict[str, list[str]]:
        """The Service's sets."""
        kernel: Kernel = self._chain.kernels[self._family]
        [row] = dump(View(kernel.build, kernel.family), "services")
        return {name: [self._pod(text) for text in row[name]] for name in ("cluster", "local")}

    def _pod(self, backend: str) -> str:
        return name_of(backend.rpartition(":")[0].strip("[]"), self._family)


@pytest.mark.rule(
    "EP-8",
    "EP-9",
    "EP-10",
    "EP-11",
    "VE-1",
    "VE-4",
    "VE-6",
    "CO-7",
    "CO-10",
    "CO-12",
    "CO-13",
    "CO-15",
    "CO-16",
    "CO-17",
    "CO-18",
    "AF-1",
    "AF-4",
    "AF-6",
)
@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name)
def test_a_life(chain: Chain, life: Life) -> None:
    stories = [Story(chain, family) for family in Family]
    for moment, questions in life.moments():
        chain.become(Situation(life.objects(moment), THIS_NODE))
        for kernel in chain.kernels.values():
            kernel.age(1)  # flows look for their backends once in a while, not at every packet
        for story in stories:
            assert _sorted(story.maps()) == _sorted(moment.maps), moment
            for asked in questions:
                got = {story.ask(life, asked) for _ in range(asked.tries)}
                assert got == {asked.answer}, (moment, asked)


def _sorted(sets: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: sorted(pods) for name, pods in sets.items()}


def test_another_answer_is_noticed(chain: Chain) -> None:
    [life] = [one for one in LIVES if one.name == "a-pod-goes"]
    chain.become(Situation(life.objects(Moment({"near": "ready"}, {})), THIS_NODE))
    story = Story(chain, Family.IPV4)
    asked = Question("alice", "outside", "NodePort", "far")
    assert story.ask(life, asked) == "near"
    assert story.maps() == {"cluster": ["near"], "local": []}


def test_what_becomes_of_a_connection_is_noticed(chain: Chain) -> None:
    [life] = [one for one in LIVES if one.name == "a-pod-is-drained"]
    chain.become(Situation(life.objects(Moment({"near": "ready"}, {})), THIS_NODE))
    story = Story(chain, Family.IPV4)
    asked = Question("alice", "outside", "NodePort", verb="open")
    assert story.ask(life, asked) == "near"
    assert story.ask(life, replace(asked, verb="talk")) == "near"
    chain.kernels[Family.IPV4].age(
        10_000
    )  # it is forgotten: nothing that is said then is translated
    assert "goes on as" in story.ask(life, replace(asked, verb="talk"))
