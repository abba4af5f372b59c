"""Who gets a place in the tables of one family, where there is not room for all.

The rule: in the order of their priorities each Service port gets all that it asks for, if that fits
into what those before it left, and into what its namespace may have. What is left out changes
nothing for those behind it. So who is served follows from what is asked for, and neither from who
came first nor from when the agent started. Of a table a namespace has its share at most, so that no
tenant can leave another without; what the cluster lives by is in nobody's share.

Nearly always there is room for all, and then an answer is a few additions. Where there is not, one
that comes late but is due earlier displaces the last ones.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from typing import NamedTuple

from ebpf_lb.plan.forwarding import Backend, Forwarding, FrontendKind, ServicePortName, Table
from ebpf_lb.plan.priority import Priority


class Demand(NamedTuple):
    """Elements of each table; of capacities, how many there are."""

    services: int = 0
    frontends: int = 0
    backends: int = 0
    slots: int = 0
    source_ranges: int = 0


class Lack(NamedTuple):
    """Which table has no room. `namespace`: whose share of it is used up; "" where all of it is."""

    table: str
    entries: int
    namespace: str = ""


class _Asked(NamedTuple):
    priority: Priority
    demand: Demand


_Order = tuple[Priority, ServicePortName]


def demands(forwardings: Sequence[Forwarding]) -> list[Demand]:
    """Of the ports of one Service in one family; what they share is the first one's."""
    seen: set[bytes] = set()
    found = []
    for one in forwardings:
        own = {f.address for f in one.frontends if f.kind is FrontendKind.CLUSTER_IP} - seen
        seen |= own  # a ClusterIP's other ports take an entry
        found.append(
            Demand(
                1,
                len({(frontend.address, frontend.port) for frontend in one.frontends}) + len(own),
                len({*map(_place, one.cluster), *map(_place, one.local)}),
                _slots(one.cluster, one.cluster_table) + _slots(one.local, one.local_table),
                len(one.source_ranges),
            )
        )
    return found


def _place(backend: Backend) -> tuple[bytes, int]:
    return backend.address, backend.port


def _slots(backends: Sequence[Backend], table: Table | None) -> int:
    return len(backends) if table is None else table.size


class Room:
    """`share_percent`: of each table, for one namespace."""

    def __init__(self, capacities: Demand, share_percent: int = 100) -> None:
        self._capacities = capacities
        self._shares = Demand(*(entries * share_percent // 100 for entries in capacities))
        self._within: dict[ServicePortName, _Asked] = {}
        self._without: dict[ServicePortName, _Asked] = {}
        self._taken = [0] * len(capacities)
        self._taken_by: dict[str, list[int]] = {}
        # who is within, by namespace, in order: only once somebody did not fit
        self._order: dict[str, list[_Order]] | None = None
        self._demands: dict[Demand, Demand] = {}  # most ask for the same: one of each
        self._displaced: list[ServicePortName] = []
        self._came_free = False

    def holds(self, name: ServicePortName) -> bool:
        """Whether it has a place, be it for less than it asked for last."""
        return name in self._within

    def waits(self, name: ServicePortName) -> bool:
        """Whether it asked in vain."""
        return name in self._without

    def ask(self, name: ServicePortName, priority: Priority, demand: Demand) -> Lack | None:
        """None: it has a place now. Else it keeps the one that it had, if any, and what `lacks` is
        told; when that comes free, `take_fitting` names it."""
        before = self._within.get(name)
        asked = _Asked(priority, self._demands.setdefault(demand, demand))
        if before == asked:
            self._without.pop(name, None)
            return None
        if before is not None:
            self._leave(name, before)
        lack = self._lack(name, asked)
        if lack is not None:
            victims = self._later_ones(name, asked)
            if victims is None:
                if before is not None:
                    self._enter(name, before)
                self._without[name] = asked
                return lack
            for victim in victims:
                self._without[victim] = self._within[victim]
                self._leave(victim, self._within[victim])
            self._displaced += victims
        self._without.pop(name, None)
        self._enter(name, asked)
        return None

    def give_back(self, name: ServicePortName) -> None:
        """It is gone, or asks for nothing any more."""
        self._without.pop(name, None)
        before = self._within.get(name)
        if before is not None:
            self._leave(name, before)
        if not self._without:
            self._order = None

    def take_displaced(self) -> list[ServicePortName]:
        """Those that lost their place since the last call."""
        displaced, self._displaced = self._displaced, []
        return [name for name in displaced if name not in self._within]

    def take_fitting(self) -> list[ServicePortName]:
        """Those left out that would get a place now, in order; they are to ask again."""
        if not self._came_free:
            return []
        self._came_free = False
        ordered = sorted(self._without, key=lambda name: (self._without[name].priority, name))
        return [name for name in ordered if self._would_fit(name, self._without[name])]

    def _would_fit(self, name: ServicePortName, asked: _Asked) -> bool:
        return self._lack(name, asked) is None or self._later_ones(name, asked) is not None

    def _lack(self, name: ServicePortName, asked: _Asked) -> Lack | None:
        for at, number in enumerate(self._too_much_of_all(asked.demand)):
            if number > 0:
                return Lack(Demand._fields[at], self._capacities[at])
        for at, number in enumerate(self._too_much_of_share(name, asked)):
            if number > 0:
                return Lack(Demand._fields[at], self._shares[at], name.namespace)
        return None

    def _too_much_of_all(self, demand: Demand) -> list[int]:
        """By how much it would be too much, of each table."""
        limits = zip(self._taken, demand, self._capacities, strict=True)
        return [held + more - limit if more else 0 for held, more, limit in limits]

    def _too_much_of_share(self, name: ServicePortName, asked: _Asked) -> list[int]:
        nothing = [0] * len(self._capacities)
        if asked.priority.critical:
            return nothing
        own = self._taken_by.get(name.namespace, nothing)
        limits = zip(own, asked.demand, self._shares, strict=True)
        return [held + more - limit if more else 0 for held, more, limit in limits]

    def _later_ones(self, name: ServicePortName, asked: _Asked) -> list[ServicePortName] | None:
        """Whom to displace, the last ones first; None if even all of them would not do."""
        order = self._in_order()
        own = order.get(name.namespace, [])
        first, found = (asked.priority, name), list[ServicePortName]()
        too_much = self._too_much_of_share(name, asked)
        of_all = self._too_much_of_all(asked.demand)
        for lacking, candidates in (
            (too_much, reversed(own)),
            (of_all, merge(*map(reversed, order.values()), reverse=True)),
        ):
            self._collect(first, lacking, candidates, found, of_all)
            if any(number > 0 for number in lacking):
                return None
        return found

    def _collect(
        self,
        first: _Order,
        lacking: list[int],
        candidates: Iterator[_Order],
        found: list[ServicePortName],
        of_all: list[int],
    ) -> None:
        """Adds to `found` until nothing is lacking, or nobody is left that comes after `first`."""
        taken = set(found)
        while any(number > 0 for number in lacking):
            last = next(candidates, None)
            if last is None or last <= first:
                return
            victim = last[1]
            demand = self._within[victim].demand
            helps = any(n > 0 and d for n, d in zip(lacking, demand, strict=True))
            if not helps or victim in taken:
                continue
            found.append(victim)
            for sums in (lacking,) if lacking is of_all else (lacking, of_all):
                for at, number in enumerate(demand):
                    sums[at] -= number

    def _in_order(self) -> dict[str, list[_Order]]:
        if self._order is None:
            self._order = {}
            for name, asked in self._within.items():
                self._order.setdefault(_sharer(name, asked), []).append((asked.priority, name))
            for names in self._order.values():
                names.sort()
        return self._order

    def _enter(self, name: ServicePortName, asked: _Asked) -> None:
        self._within[name] = asked
        sharer = _sharer(name, asked)
        _add(self._taken, asked.demand, 1)
        _add(self._taken_by.setdefault(sharer, [0] * len(asked.demand)), asked.demand, 1)
        if self._order is not None:
            insort(self._order.setdefault(sharer, []), (asked.priority, name))

    def _leave(self, name: ServicePortName, asked: _Asked) -> None:
        del self._within[name]
        self._came_free = True
        sharer = _sharer(name, asked)
        _add(self._taken, asked.demand, -1)
        own = self._taken_by[sharer]
        _add(own, asked.demand, -1)
        if not any(own):
            del self._taken_by[sharer]
        if self._order is not None:
            names = self._order[sharer]
            del names[bisect_left(names, (asked.priority, name))]


def _sharer(name: ServicePortName, asked: _Asked) -> str:
    """Whose share it takes from: its namespace's, or nobody's."""
    return "" if asked.priority.critical else name.namespace


def _add(sums: list[int], demand: Iterable[int], sign: int) -> None:
    for at, number in enumerate(demand):
        sums[at] += sign * number
