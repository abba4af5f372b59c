"""What is not in the maps as it should be, and who was told."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Family
from ebpf_lb.plan.forwarding import ServicePortName

TOLD_A_SERVICE = 3
"""Sentences about one Service: it may have ten thousand ports, and all of them refused."""


class Part(NamedTuple):
    """A Service port in one family: what is written, or not, as one."""

    family: Family
    name: ServicePortName


class Refusal(NamedTuple):
    """Of which Service something is not as it should be, and why."""

    key: ObjectKey
    sentence: str


class Refusals(Mapping[Part | ObjectKey, Refusal]):
    """By what was refused; a whole Service by its key. `log`: structlog's. `report`: told once of
    each refusal, of the first few of a Service."""

    def __init__(
        self, log: Any, report: Callable[[ObjectKey, str], None] = lambda key, sentence: None
    ) -> None:
        self._log = log
        self._report = report
        self._held: dict[Part | ObjectKey, Refusal] = {}
        self._of_service: Counter[ObjectKey] = Counter()
        self._told: Counter[ObjectKey] = Counter()

    def __getitem__(self, part: Part | ObjectKey) -> Refusal:
        return self._held[part]

    def __iter__(self) -> Any:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    @property
    def services(self) -> int:
        """How many of which something is left out."""
        return len(self._of_service)

    def concerns(self, key: ObjectKey) -> bool:
        return key in self._of_service

    def keys_in_order(self) -> list[ObjectKey]:
        return list(self._of_service)

    def add(self, part: Part | ObjectKey, key: ObjectKey, sentence: str) -> None:
        before = self._held.get(part)
        self._held[part] = Refusal(key, sentence)
        if before is None:
            self._of_service[key] += 1
        elif before.sentence == sentence:
            return
        if self._told[key] < TOLD_A_SERVICE:
            self._told[key] += 1
            self._log.error("not programmed", service=str(key), error=sentence)
            self._report(key, sentence)

    def settle(self, part: Part | ObjectKey) -> None:
        """It is as it should be."""
        refusal = self.drop(part)
        if refusal is not None and not self.concerns(refusal.key):
            self._log.info("programmed after all", service=str(refusal.key))

    def drop(self, part: Part | ObjectKey) -> Refusal | None:
        """It is not asked for any more."""
        refusal = self._held.pop(part, None)
        if refusal is not None:
            self._of_service[refusal.key] -= 1
            if not self._of_service[refusal.key]:
                del self._of_service[refusal.key]
                del self._told[refusal.key]
        return refusal

    def sentences(self) -> list[str]:
        """A few for each Service. Another thread may ask."""
        few: dict[ObjectKey, list[str]] = {}
        for refusal in list(self._held.values()):
            told = few.setdefault(refusal.key, [])
            if len(told) < TOLD_A_SERVICE and refusal.sentence not in told:
                told.append(refusal.sentence)
        return sorted(sentence for told in few.values() for sentence in told)

    @property
    def summary(self) -> str:
        """What this node leaves out, in one sentence; "" for nothing. Another thread may ask."""
        first = next(iter(list(self._held.values())[:1]), None)
        if first is None:
            return ""
        return (
            f"{len(self._held)} Service ports of {self.services} Services are not programmed as "
            f"they should be, the first: {first.sentence}"
        )
