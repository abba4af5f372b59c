"""Brings the maps to what the plan says, Service by Service, and keeps account of what did not fit.

Who has a place where there is not room for all is decided before anything is written: plan/room.py.
New and changed Service ports are written before those that are no more wanted are removed: an
address that moves from one to another is then never without an owner.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol

from ebpf_lb.agent.programming.refusals import Part, Refusals
from ebpf_lb.agent.programming.usable import UsableEndpoints
from ebpf_lb.datapath.writer import NotHashed, NotProgrammed, full
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Family
from ebpf_lb.plan.forwarding import Forwarding, FrontendFlag, FrontendKind, ServicePortName
from ebpf_lb.plan.priority import Priority
from ebpf_lb.plan.room import Demand, Lack, Room, demands

# Of a first sync, so many Service ports a family are written at once: few calls, little memory.
_BATCH = 512
# What a removal frees is given out again after a second; then there may be room for what had none.
RETRY_AFTER_CHANGE_S = 3.0
# A refusal may also have been the kernel's (no memory): ask again now and then.
RETRY_INTERVAL_S = 60.0
# So long after it displaced others a Service port finds what they had given back.
MOVE_IN_S = 1.1


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
    def capacities(self) -> Demand: ...
    def adopt_again(self) -> None: ...
    def service_id(self, name: ServicePortName) -> int | None: ...
    def frontend_counts(self) -> dict[int, int]: ...
    def demand_of(self, name: ServicePortName) -> Demand | None: ...


class Programmer:
    """`clock`: monotonic seconds. `log`: structlog's. `report`: told once of each refusal.
    `namespace_share`: what one namespace can take of a table, in percent."""

    def __init__(
        self,
        writers: Mapping[Family, ServiceTables],
        clock: Callable[[], float],
        log: Any,
        report: Callable[[ObjectKey, str], None] = lambda key, sentence: None,
        namespace_share: int = 100,
    ) -> None:
        self._writers = writers
        self._clock = clock
        self._log = log
        self._namespace_share = namespace_share
        self._rooms = {
            family: Room(writer.capacities(), namespace_share) for family, writer in writers.items()
        }
        self._moving_in: dict[ObjectKey, float] = {}
        # what may be in the maps, in one family or in both: small, for there are many Services
        self._names: dict[ObjectKey, tuple[ServicePortName, ...]] = {}
        self._unwanted: dict[Part, ObjectKey] = {}
        self._unhashed: set[Part] = set()  # for whose tables there is no place
        self._displaced: set[Part] = set()  # of those: they go, and wait for another place
        self.refused = Refusals(log, report)
        """What is not in the maps as it should be, and why; a whole Service by its key."""
        # until everything is there for the first time, what is to be written is gathered
        self._gathered: dict[Family, list[tuple[ObjectKey, Forwarding]]] | None = {
            family: [] for family in writers
        }
        # and what of it is asked for: a Service of both families may have become one of one family
        # while no agent ran, and then its name alone says nothing
        self._asked_for: dict[Family, set[ServicePortName]] = {family: set() for family in writers}
        self._without_local: dict[str, set[Part]] = {"internal": set(), "external": set()}
        self._usable = UsableEndpoints(log)
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
    def services(self) -> int:
        """Services of which something is in the maps."""
        return len(self._names)

    def without_local_endpoints(self, policy: str, family: Family) -> int:
        """Service ports with traffic policy Local and endpoints, but none on this node."""
        return sum(part.family is family for part in list(self._without_local[policy]))

    def program(
        self, key: ObjectKey, forwardings: Iterable[Forwarding], priority: Priority | None = None
    ) -> None:
        """Writes what is planned of a Service; `remove_unwanted` then removes what is not.
        `priority`: who has a place where there is not room for all."""
        self.refused.settle(key)
        self._moving_in.pop(key, None)
        of_family: dict[Family, list[Forwarding]] = {family: [] for family in self._writers}
        for forwarding in forwardings:
            if forwarding.family in of_family:
                of_family[forwarding.family].append(forwarding)
        wanted = {Part(family, one.name) for family, own in of_family.items() for one in own}
        known = self._names.get(key, ())
        for family, name in itertools.product(self._writers, known):
            part = Part(family, name)
            if part not in wanted:
                self._unwanted[part] = key
                self._displaced.discard(part)
        new = {part.name for part in wanted}.difference(known)
        if new:
            self._names[key] = tuple(sorted(new.union(known)))
        due = priority or Priority(1, 0, key)
        for family, own in of_family.items():
            ready = [
                one
                for forwarding, demand in zip(own, demands(own), strict=True)
                if (one := self._admit(Part(family, forwarding.name), key, forwarding, due, demand))
            ]
            if self._gathered is not None:
                gathered = self._gathered[family]
                gathered += [(key, one) for one in ready]
                if len(gathered) >= _BATCH:
                    self._write(family, gathered)
            elif ready and key not in self._moving_in:
                self._write(family, [(key, one) for one in ready])

    def _admit(
        self, part: Part, key: ObjectKey, wanted: Forwarding, due: Priority, demand: Demand
    ) -> Forwarding | None:
        """What is to be written of a Service port, if there is a place for it."""
        self._unwanted.pop(part, None)
        self._displaced.discard(part)
        self._account(part, wanted)
        self._usable.note(wanted)
        room, plain = self._rooms[part.family], wanted
        lack = room.ask(part.name, due, demand)
        if lack is not None and wanted.by_table:
            plain = wanted.without_tables()
            without = demand._replace(slots=len(plain.cluster) + len(plain.local))
            hashed, lack = lack, room.ask(part.name, due, without)
            if lack is None:
                self._refuse(part, key, str(NotHashed(*_whose(part), self._why(hashed))))
        if lack is not None and self._gathered is not None:
            # it may have grown since: what is there of it stays, if that has room
            before = self._writers[part.family].demand_of(part.name)
            if before is not None and room.ask(part.name, due, before) is None:
                self._asked_for[part.family].add(part.name)
        for victim in room.take_displaced():
            self._displace(Part(part.family, victim), key)
        if lack is not None:
            self._refuse(part, key, str(NotProgrammed(*_whose(part), self._why(lack))))
            return None
        if self._gathered is not None:
            self._asked_for[part.family].add(part.name)
        if plain is wanted:
            self._unhashed.discard(part)
        else:
            self._unhashed.add(part)
        return plain

    def _refuse(self, part: Part | ObjectKey, key: ObjectKey, sentence: str) -> None:
        if not self.refused:
            self._retry_at = self._clock() + RETRY_INTERVAL_S
        self.refused.add(part, key, sentence)

    def _displace(self, part: Part, by: ObjectKey) -> None:
        """There is one that is due earlier, and no room for both."""
        key = ObjectKey(part.name.namespace, part.name.name)
        self._unwanted[part] = key
        self._displaced.add(part)
        why = f"{by} is due earlier, and there is no room for both: raise what is full in dataPath"
        self._refuse(part, key, str(NotProgrammed(*_whose(part), why)))
        self._moving_in[by] = self._clock() + MOVE_IN_S

    def _why(self, lack: Lack) -> str:
        if not lack.namespace:
            return full(lack.table, lack.entries)
        return (
            f"namespace {lack.namespace} has its share of the map {lack.table} ({lack.entries} "
            "entries): raise namespaceShare in the configuration"
        )

    def _write(self, family: Family, gathered: list[tuple[ObjectKey, Forwarding]]) -> None:
        """Of one family, in few calls."""
        room = self._rooms[family]
        gathered[:] = [one for one in gathered if room.holds(one[1].name)]
        refused = {
            error.name: str(error)
            for error in self._writers[family].set_all(forwarding for _, forwarding in gathered)
        }
        for key, forwarding in gathered:
            part = Part(family, forwarding.name)
            if forwarding.name in refused:
                self._refuse(part, key, refused[forwarding.name])
            elif part not in self._unhashed:
                self.refused.settle(part)
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
            self._usable.forget(part)
            if part not in self._displaced:
                self._rooms[part.family].give_back(part.name)
                self._unhashed.discard(part)
                self.refused.drop(part)
            for parts in self._without_local.values():
                parts.discard(part)
        self._displaced.clear()
        for key in dict.fromkeys(unwanted.values()):
            self._forget(key, removed)

    def retain(self) -> None:
        """Once, after a first sync: removes all that was in the maps before and that no Service
        asked for in it. What belongs to a Service that could not be planned stays."""
        for family, writer in self._writers.items():
            asked_for = self._asked_for.pop(family, set())
            for name in writer.names():
                if ObjectKey(name.namespace, name.name) in self.refused:
                    asked_for.add(name)
            try:
                writer.retain(asked_for)
            except NotProgrammed as error:
                self._log.error("old entries stay", error=str(error))

    def start_over(self) -> None:
        """Somebody changed the maps: `program` all Services, then `remove_unwanted` and `retain`,
        as at a start. OSError: nothing has changed."""
        for writer in self._writers.values():
            writer.adopt_again()
        self._gathered = {family: [] for family in self._writers}
        self._asked_for = {family: set() for family in self._writers}

    def service_id(self, family: Family, name: ServicePortName) -> int | None:
        """The id of a Service port that is in the maps."""
        return self._writers[family].service_id(name)

    def frontend_counts(self, family: Family) -> dict[int, int]:
        """How many frontends are written, by the Service port's id."""
        return self._writers[family].frontend_counts()

    def is_left_out(self, key: ObjectKey) -> bool:
        """Whether anything of a Service is not in the maps as it is planned, and told as such."""
        return self.refused.concerns(key) or key in self._moving_in

    def housekeeping(self) -> None:
        """Call it every second or so."""
        for writer in self._writers.values():
            try:
                writer.housekeeping(self._clock())
            except OSError as error:  # the next time goes on with it
                self._log.warning("maps not tidied up", error=error.strerror)

    def note_changes(self) -> None:
        """Something was written: there may be room soon."""
        self._retry_until = self._clock() + RETRY_AFTER_CHANGE_S
        self._retry_once_more = True  # after that: a busy machine may not let us run before

    def to_retry(self) -> list[ObjectKey]:
        """Services to program again now."""
        now = self._clock()
        found = dict.fromkeys(key for key, due in self._moving_in.items() if due <= now)
        for room in self._rooms.values():
            found.update((ObjectKey(*name[:2]), None) for name in room.take_fitting())
        if self._retry_is_due(now):
            # those without a place wait for one; what they say stays true
            found.update(
                (refusal.key, None)
                for part, refusal in self.refused.items()
                if not (isinstance(part, Part) and self._rooms[part.family].waits(part.name))
            )
        return list(found)

    def _retry_is_due(self, now: float) -> bool:
        once_more = self._retry_once_more
        if now > self._retry_until:
            self._retry_once_more = False
            if not once_more and now < self._retry_at:
                return False
        if not self.refused:
            return False
        self._retry_at = now + RETRY_INTERVAL_S
        return True

    def _forget(self, key: ObjectKey, removed: set[Part]) -> None:
        """Those names of which no family holds anything any more."""
        left = tuple(
            name
            for name in self._names.get(key, ())
            if not all(Part(family, name) in removed for family in self._writers)
        )
        if left:
            self._names[key] = left
        else:
            self._names.pop(key, None)

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


def _whose(part: Part) -> tuple[ServicePortName, Family]:
    return part.name, part.family
