"""Why packets end as they do: bpf/ground/reason.h's list, with its sentences and remedies."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ebpf_lb.datapath.layout.headers import EnumValue

_REMEDY = "Remedy:"


class Verdict(StrEnum):
    """What becomes of a packet, as the reason's number tells (enum reason_class)."""

    FORWARD = "forward"
    REJECT = "reject"
    DROP = "drop"
    PASS = "pass"


@dataclass(frozen=True, slots=True)
class Reason:
    """`name` is without what they all begin with; `remedy` is "" where there is nothing to do."""

    number: int
    name: str
    verdict: Verdict
    sentence: str
    remedy: str


def reasons_of(values: Iterable[EnumValue], classes: Mapping[str, int]) -> dict[int, Reason]:
    """By number. classes: the first number of each class, by name."""
    found = {}
    for value in values:
        sentence, _, remedy = value.sentence.partition(_REMEDY)
        found[value.number] = Reason(
            value.number,
            value.name.removeprefix("REASON_"),
            _verdict(value.number, classes),
            sentence.strip(),
            remedy.strip(),
        )
    return found


def _verdict(number: int, classes: Mapping[str, int]) -> Verdict:
    below = [(first, name) for name, first in classes.items() if first <= number]
    return Verdict(max(below)[1].removeprefix("REASONS_").lower()) if below else Verdict.PASS
