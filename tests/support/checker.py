"""Says what must happen to traffic in the lab, and finds out whether it does.

    expect(lab, "client", "10.96.0.9:80/tcp", Reaches({"web-1", "web-2"}))
    expect(lab, "node1", "[fd00:10:96::9]:53/udp", Refused(), within_s=1)

The source is a name that `lab.exec` knows. `Reaches` is exact: tries are so many that a backend
that should answer is missed, or one that should not is overlooked, in less than one of a million
runs.
"""

import json
import math
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.support.probe import Answer

PROBE = Path(__file__).with_name("probe.py")
CHANCE_OF_A_MISS = 1e-6
SETTLED_S = 60.0
"""What an agent has to do, it has done by then, also on a busy machine. Where no time is promised,
waiting so long costs nothing but where the test fails."""
ANSWER_S, SILENCE_S = 5.0, 1.0  # until there is an answer at the latest; what counts as silence


@dataclass(frozen=True)
class Target:
    """Where to connect to: `10.96.0.9:80/tcp`, `[fd00::9]:53/udp`, `…/sctp`."""

    address: str
    port: int
    protocol: str

    @classmethod
    def parse(cls, text: str) -> "Target":
        match = re.fullmatch(r"\[?([0-9a-fA-F.:]+?)\]?:(\d+)/(tcp|udp|sctp)", text)
        if match is None:
            raise ValueError(f"{text}: not ADDRESS:PORT/tcp|udp|sctp")
        return cls(match[1], int(match[2]), match[3])


class Outcome(Protocol):
    """What must happen. `difference` is a sentence if the answers are something else."""

    @property
    def tries(self) -> int: ...

    @property
    def request(self) -> str: ...

    @property
    def timeout_s(self) -> float: ...

    def difference(self, answers: list[Answer]) -> str | None: ...


def tries_to_see_all(count: int) -> int:
    """Tries after which each of `count` equally likely ones was seen, but for CHANCE_OF_A_MISS."""
    if count < 2:
        return 1
    return math.ceil(math.log(count / CHANCE_OF_A_MISS) / -math.log(1 - 1 / count))


def summary(answers: list[Answer]) -> str:
    """`web-1 12 times, refused 3 times`, for messages."""
    counted = Counter(
        a.text if a.outcome == "answered" else f"{a.outcome} {a.text}".strip() for a in answers
    )
    return ", ".join(f"{what} {number} times" for what, number in sorted(counted.items()))


@dataclass(frozen=True)
class Reaches:
    """Every try is answered, by exactly these."""

    names: frozenset[str] | set[str]
    request: str = "hostname"
    timeout_s: float = ANSWER_S

    @property
    def tries(self) -> int:
        return tries_to_see_all(len(self.names) + 1)  # one that should not be there is seen, too

    def difference(self, answers: list[Answer]) -> str | None:
        if failed := [a for a in answers if a.outcome != "answered"]:
            return f"{len(failed)} of {len(answers)} tries failed: {summary(answers)}"
        seen = {a.text for a in answers}
        if seen != set(self.names):
            return f"reached {sorted(seen)}, not {sorted(self.names)}: {summary(answers)}"
        return None


@dataclass(frozen=True)
class ReachesCount:
    """Every try is answered, by so many different ones."""

    count: int
    request: str = "hostname"
    timeout_s: float = ANSWER_S

    @property
    def tries(self) -> int:
        return tries_to_see_all(self.count + 1)

    def difference(self, answers: list[Answer]) -> str | None:
        seen = {a.text for a in answers if a.outcome == "answered"}
        if len(seen) != self.count:
            return f"reached {len(seen)}, not {self.count}: {summary(answers)}"
        return Reaches(seen).difference(answers)


@dataclass(frozen=True)
class SticksToOneOf:
    """Every try is answered, by one and the same of these."""

    names: frozenset[str] | set[str]
    request: str = "hostname"
    timeout_s: float = ANSWER_S

    @property
    def tries(self) -> int:
        return 25

    def difference(self, answers: list[Answer]) -> str | None:
        first = answers[0].text
        if first not in self.names:
            return f"reached {first or answers[0].outcome}, none of {sorted(self.names)}"
        return Reaches({first}).difference(answers)


@dataclass(frozen=True)
class _Fails:
    tries: int = 5
    request: str = "hostname"
    timeout_s: float = SILENCE_S
    outcome: str = ""
    at_most_s: float = math.inf

    def difference(self, answers: list[Answer]) -> str | None:
        if any(a.outcome != self.outcome for a in answers):
            return f"not {self.outcome} each time: {summary(answers)}"
        slowest = max(a.seconds for a in answers)
        if slowest > self.at_most_s:
            return f"{self.outcome}, but only after {slowest:.3f} s"
        return None


@dataclass(frozen=True)
class Refused(_Fails):
    """A RST, or ICMP port unreachable, each time and at once."""

    outcome: str = "refused"
    at_most_s: float = 0.5


@dataclass(frozen=True)
class Dropped(_Fails):
    """Nothing comes back."""

    outcome: str = "silent"


@dataclass(frozen=True)
class SourceSeen:
    """The backend sees exactly these client addresses."""

    addresses: frozenset[str] | set[str]
    request: str = "clientip"
    timeout_s: float = ANSWER_S
    tries: int = 10

    def difference(self, answers: list[Answer]) -> str | None:
        stripped = [Answer(a.outcome, re.sub(r"^\[?(.+?)\]?:\d+$", r"\1", a.text)) for a in answers]
        if any(a.outcome != "answered" for a in stripped):
            return f"some tries failed: {summary(stripped)}"
        if {a.text for a in stripped} != set(self.addresses):
            return f"source seen is not {sorted(self.addresses)}: {summary(stripped)}"
        return None


def probe(lab: Any, source: str, to: str, **ask: Any) -> list[Answer]:
    """Connects from `source` and returns what became of each try; keywords as in probe.Ask."""
    target = Target.parse(to)
    wanted = {
        "protocol": target.protocol,
        "address": target.address,
        "port": target.port,
        **ask,
    }
    # -S and -I: no site-packages, a quick start
    done = lab.exec(source, [sys.executable, "-I", "-S", str(PROBE), json.dumps(wanted)])
    if done.returncode:
        raise AssertionError(f"the probe failed on {source}: {done.stderr}")
    answers = [Answer(**answer) for answer in json.loads(done.stdout)]
    if target.protocol == "udp":
        # whoever asks an address hears from that address
        for answer in answers:
            if answer.outcome == "answered" and Target.parse(f"{answer.sender}/udp") != target:
                raise AssertionError(f"{source} asked {to} and was answered by {answer.sender}")
    return answers


def expect(
    lab: Any, source: str, to: str, outcome: Outcome, *, within_s: float = SETTLED_S, **ask: Any
) -> list[Answer]:
    """AssertionError unless, at the latest `within_s` from now, `outcome` is what happens."""
    deadline = time.monotonic() + within_s
    while True:
        asked = time.monotonic()
        wanted = {
            "tries": outcome.tries, "request": outcome.request, "timeout_s": outcome.timeout_s
        }  # fmt: skip
        answers = probe(lab, source, to, **{**wanted, **ask})
        difference = outcome.difference(answers)
        if difference is None:
            return answers
        if asked >= deadline or within_s == 0:
            raise AssertionError(f"{source} -> {to}: {difference}")
        time.sleep(0.02)
