"""The maps and programs in the kernel live what tests/scenarios/lives/*.yaml tell."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import count

import pytest

from ebpf_lb.datapath.dump import dump
from ebpf_lb.datapath.reader.view import View
from ebpf_lb.model.values import Family
from tests.datapath.chain import Chain
from tests.datapath.kernel import Kernel
from tests.datapath.test_verdict_table import WORDS
from tests.oracle.oracle import Client, Destination
from tests.oracle.situations import Situation
from tests.scenarios import lives, verdicts
from tests.scenarios.lives import LIVES, Life, Moment, Question
from tests.scenarios.test_by_oracle import KINDS, THIS_NODE, name_of
from tests.scenarios.verdicts import Cell


class Story:
    """One family's part of a life."""

    def __init__(self, chain: Chain, family: Family) -> None:
        self._chain, self._family = chain, family
        self._new = count(40_000)
        self._kept: Mapping[str, int] = defaultdict(count(30_000).__next__)

    def ask(self, life: Life, asked: Question) -> str:
        cell = Cell(asked.destination, life.policy, asked.client, "")
        client = Client(KINDS[asked.client], verdicts.client(cell, self._family))
        where = Destination(*verdicts.destination(cell, self._family), lives.PROTOCOL)
        port = next(self._new) if asked.who == "anybody" else self._kept[asked.who]
        answer = self._chain.send(client, where, port, xdp=port % 2 == 1)
        if answer.fault:
            return answer.fault
        return name_of(answer.backend[0], self._family) if answer.backend else WORDS[answer.kind]

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
    "CO-15",
    "CO-16",
    "CO-17",
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
