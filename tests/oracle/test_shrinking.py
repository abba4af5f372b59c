"""What is left of random clusters is what the fault needs, and nothing else."""

import random

from tests.oracle.shrinking import plainest
from tests.oracle.situations import NOTHING, Situation, after

LONG_S = 600


def test_only_what_matters_is_left() -> None:
    rng = random.Random(7)
    history = [NOTHING]
    for _ in range(20):
        history.append(after(history[-1], rng))

    def endpoints(situation: Situation) -> list[str]:
        slices = [o for o in situation.objects.values() if o["kind"] == "EndpointSlice"]
        return [e["addresses"][0] for s in slices for e in s.get("endpoints", ())]

    wanted = endpoints(history[-1])[-1]

    def fault(candidate: list[Situation]) -> str | None:
        return "it is there" if wanted in endpoints(candidate[-1]) else None

    left, found = plainest(history, fault, LONG_S)
    assert found and len(left) == 1 and len(left[0].objects) == 1
    [only] = left[0].objects.values()
    assert only["endpoints"] == [{"addresses": [wanted]}]


def test_what_raises_is_no_fault() -> None:
    def fault(candidate: list[Situation]) -> str | None:
        if len(candidate) < 2:
            raise KeyError("of a cluster that is none")
        return "fault"

    left, found = plainest([NOTHING, NOTHING, NOTHING], fault, LONG_S)
    assert (len(left), found) == (2, "fault")
