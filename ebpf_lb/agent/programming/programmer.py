"""Brings the maps to what the plan says, Service by Service, and keeps account of what did not fit.

New and changed Service ports are written before those that are no more wanted are removed: an
address that moves from one to another is then never without an owner.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from ebpf_lb.datapath.writer import NotProgrammed
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Family
from ebpf_lb.plan.forwarding import Forwarding, FrontendFlag, FrontendKind, ServicePortName

# Of a first sync, so many Service ports a family are written at once: few calls, little memory.
_BATCH = 512
# What a removal frees is given out again after a second; then there may be room for what had none.
RETRY_AFTER_CHANGE_S = 3.0
# A refusal may also have been the kernel's (no memory): ask again now and then.
RETRY_INTERVAL_S = 60.0


class ServiceTables(Protocol):
    """What is asked of `datapath.writer.FamilyWriter` here."""

    stats: Counter[str]

    def set(self, forwarding: Forwarding) -> None: ...
    def set_all(self, forwardings: Iterable[Forwarding]) -> list[NotProgrammed]: ...
    def delete(self, name: ServicePortName) -> None: ...
    def names(self) -> list[ServicePortName]: ...
    def retain(self, names: Collection[ServicePortName]) -> None: ...
    def housekeeping(self, now: float) -> None: ...
    def occupancy(self) -> dict[str, int]: ...


class Part(NamedTuple):
    """A Service port in one family: what is written, or not, as one."""

    family: Family
    name: ServicePortName


class Refusal(NamedTuple):
    """Of which Service something is not as it should be, and why."""

    key: ObjectKey
    sentence: str


class Programmer:
    """`clock`: monotonic seconds. `log`: structlog's. `report`: told once of each refusal."""

    def __init__(
        self,
        writers: Mapping[Family, ServiceTables],
        clock: Callable[[], float],
        log: Any,
        report: Callable[[ObjectKey, str], None] = lambda key, sentence: None,
    ) -> None:
        self._writers = writers
        self._clock = clock
        self._log = log
        self._report = report
        # what may be in the maps, in one family or in both: small, for there are many Services
        self._names: dict[ObjectKey, tuple[ServicePortName, ...]] = {}
        self._unwanted: dict[Part, ObjectKey] = {}
        self._refused: dict[Part | ObjectKey, Refusal] = {}
        # until everything is there for the first time, what is to be written is gathered
        self._gathered: dict[Family, list[tuple[ObjectKey, Forwarding]]] | None = {
            family: [] for family in writers
        }
        # and what of it is asked for: a Service of both families may have become one of one family
        # while no agent ran, and then its name alone says nothing
        self._asked_for: dict[Family, set[ServicePortName]] = {family: set() for family in writers}
        self._without_local: dict[str, set[Part]] = {"internal": set(), "external": set()}
        self._retry_until = 0.0
        self._retry_once_more = False
        self._retry_at = 0.0

    @property
    def writes(self) -> int:
        """Elements written since the start."""
        return sum(writer.stats.total() for writer in self._writers.values())

    def writes_by_map(self) -> Iterator[tuple[Family, str, int]]:
        """The same, by family and map."""
        for family, writer in self._writers.items():
            for name, number in sorted(writer.stats.items()):
                yield family, name, number

    def occupancy(self) -> Iterator[tuple[Family, str, int]]:
        """Elements in use of the maps that are given out from, by family and map."""
        for family, writer in self._writers.items():
            for name, number in writer.occupancy().items():
                yield family, name, number

    @property
    def refused(self) -> Mapping[Part | ObjectKey, Refusal]:
        """What is not in the maps as it should be, and why; a whole Service by its key."""
        return self._refused

    @property
    def services(self) -> int:
        """Services of which something is in the maps."""
        return len(self._names)

    def without_local_endpoints(self, policy: str) -> int:
        """Service ports with traffic policy Local and endpoints, but none on this node."""
        return len(self._without_local[policy])

    def program(self, key: ObjectKey, forwardings: Iterable[Forwarding]) -> None:
        """Writes what is planned of a Service; `remove_unwanted` then removes what is not."""
        self._accept(key)
        wanted: dict[Part, Forwarding] = {
            Part(forwarding.family, forwarding.name): forwarding
            for forwarding in forwardings
            if forwarding.family in self._writers
        }
        known = self._names.get(key, ())
        for family, name in itertools.product(self._writers, known):
            part = Part(family, name)
            if part not in wanted:
                self._unwanted[part] = key
        new = {part.name for part in wanted}.difference(known)
        if new:
            self._names[key] = tuple(sorted(new.union(known)))
        for part, forwarding in wanted.items():
            self._account(part, forwarding)
            if self._gathered is not None:
                self._asked_for[part.family].add(part.name)
                gathered = self._gathered[part.family]
                gathered.append((key, forwarding))
                if len(gathered) >= _BATCH:
                    self._write(part.family, gathered)
                continue
            try:
                self._writers[part.family].set(forwarding)
            except NotProgrammed as error:
                self._refuse(part, key, str(error))
            else:
                self._accept(part)

    def _write(self, family: Family, gathered: list[tuple[ObjectKey, Forwarding]]) -> None:
        """What was gathered of a family, in few calls."""
        refused = {
            error.name: str(error)
            for error in self._writers[family].set_all(forwarding for _, forwarding in gathered)
        }
        for key, forwarding in gathered:
            part = Part(family, forwarding.name)
            if forwarding.name in refused:
                self._refuse(part, key, refused[forwarding.name])
            else:
                self._accept(part)
        gathered.clear()

    def fail(self, key: ObjectKey, sentence: str) -> None:
        """The Service cannot even be planned: what is in the maps of it stays."""
        self._refuse(key, key, sentence)

    def remove_unwanted(self) -> None:
        """What earlier calls of `program` found to be no more wanted; ends the first sync."""
        if self._gathered is not None:
            for family, gathered in self._gathered.items():
                self._write(family, gathered)
            self._gathered = None
        unwanted, self._unwanted = self._unwanted, {}
        removed = set()
        for part, key in unwanted.items():
            try:
                self._writers[part.family].delete(part.name)
            except NotProgrammed as error:
                self._refuse(part, key, str(error))
                continue
            removed.add(part)
            self._refused.pop(part, None)
            for parts in self._without_local.values():
                parts.discard(part)
        for key in dict.fromkeys(unwanted.values()):
            self._forget(key, removed)

    def retain(self) -> None:
        """Once, after the first sync: removes all that was in the maps before and that no Service
        asked for in it. What belongs to a Service that could not be planned stays."""
        for family, writer in self._writers.items():
            asked_for = self._asked_for.pop(family, set())
            for name in writer.names():
                if ObjectKey(name.namespace, name.name) in self._refused:
                    asked_for.add(name)
            try:
                writer.retain(asked_for)
            except NotProgrammed as error:
                self._log.error("old entries stay", error=str(error))

    def housekeeping(self) -> None:
        """Call it every second or so."""
        for writer in self._writers.values():
            writer.housekeeping(self._clock())

    def note_changes(self) -> None:
        """Something was written: there may be room soon."""
        self._retry_until = self._clock() + RETRY_AFTER_CHANGE_S
        self._retry_once_more = True  # after that: a busy machine may not let us run before

    def to_retry(self) -> list[ObjectKey]:
        """Services to program again now."""
        now = self._clock()
        once_more = self._retry_once_more
        if now > self._retry_until:
            self._retry_once_more = False
            if not once_more and now < self._retry_at:
                return []
        if not self._refused:
            return []
        self._retry_at = now + RETRY_INTERVAL_S
        return list(dict.fromkeys(refusal.key for refusal in self._refused.values()))

    def _forget(self, key: ObjectKey, removed: set[Part]) -> None:
        """Those names of which no family holds anything any more."""
        left = tuple(
            name
            for name in self._names[key]
            if not all(Part(family, name) in removed for family in self._writers)
        )
        if left:
            self._names[key] = left
        else:
            del self._names[key]

    def _refuse(self, part: Part | ObjectKey, key: ObjectKey, sentence: str) -> None:
        if not self._refused:
            self._retry_at = self._clock() + RETRY_INTERVAL_S
        before = self._refused.get(part)
        self._refused[part] = Refusal(key, sentence)
        if before is None or before.sentence != sentence:
            self._log.error("not programmed", service=str(key), error=sentence)
            self._report(key, sentence)

    def _accept(self, part: Part | ObjectKey) -> None:
        refusal = self._refused.pop(part, None)
        if refusal is not None:
            self._log.info("programmed after all", service=str(refusal.key))

    def _account(self, part: Part, forwarding: Forwarding) -> None:
        lacks = forwarding.has_any and not forwarding.local
        local = [one.kind for one in forwarding.frontends if one.flags & FrontendFlag.LOCAL]
        lacking = {
            "internal": lacks and FrontendKind.CLUSTER_IP in local,
            "external": lacks and any(kind is not FrontendKind.CLUSTER_IP for kind in local),
        }
        for policy, parts in self._without_local.items():
            if lacking[policy]:
                parts.add(part)
            else:
                parts.discard(part)
