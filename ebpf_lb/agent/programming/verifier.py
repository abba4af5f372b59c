"""Are the maps still what was planned? Compared again and again, entry by entry, a few Services at
a time, and put right.

Who changes maps behind our back is an operator with a tool, a mistake of ours, or a memory that
lost a bit. What it costs is bounded, not how long it takes: BUDGET_S of each second, at most.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from ebpf_lb.agent.programming.programmer import Programmer
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Family
from ebpf_lb.plan.cluster import Cluster
from ebpf_lb.plan.forwarding import Forwarding, ServicePortName

BUDGET_S = 0.01
SHOWN = 5  # differences in a sentence, and lines in the log for a pass
_AT_ONCE = 4  # Services between two looks at the clock


class Compared(Protocol):
    """What is asked of `datapath.compare.Comparison`."""

    def differences(self, number: int | None, wanted: Forwarding) -> list[str]: ...
    def frontend_counts(self) -> Counter[int]: ...


class Planned(Protocol):
    """What is asked of the plan and of the programmer: a Service's, as far as it has a place."""

    def keys(self) -> list[ObjectKey]: ...
    def plan(self, key: ObjectKey) -> tuple[Forwarding, ...]: ...
    def service_id(self, family: Family, name: ServicePortName) -> int | None: ...
    def is_left_out(self, key: ObjectKey) -> bool: ...
    def frontend_counts(self, family: Family) -> Mapping[int, int]: ...


class Verifier:
    """`compared`: by family. `period_s`: from one pass's beginning to the next one's, at least; 0:
    never. `clock`: monotonic seconds; `work_clock`: likewise, for the budget."""

    def __init__(
        self,
        planned: Planned,
        compared: Mapping[Family, Compared],
        log: Any,
        period_s: float,
        clock: Callable[[], float],
        work_clock: Callable[[], float],
    ) -> None:
        self._planned = planned
        self._compared = compared
        self._log = log
        self._period_s = period_s
        self._clock = clock
        self._work_clock = work_clock
        self._next_at = clock() + period_s
        self._pass: Iterator[None] | None = None
        self._found: list[str] = []
        self.mend_node: Callable[[], list[str]] = list
        """Writes again what the maps say of the node itself; sentences about what was otherwise."""
        self._repaired = False
        self.problem = ""
        """A sentence, while what is wrong has not been put right."""
        self.passes = 0
        self.differences = 0
        """How many were found since the start."""

    def check(self) -> bool:
        """Goes on for a moment; only while all changes are in the maps. Returns whether a pass has
        found differences, so that everything is to be read back and written again."""
        if self._pass is None:
            if not self._period_s or self._clock() < self._next_at:
                return False
            self._next_at = self._clock() + self._period_s
            self._found = []
            self._pass = self._compare()
        began = self._work_clock()
        try:
            for _ in self._pass:
                if self._work_clock() - began >= BUDGET_S:
                    return False
        except Exception as error:  # who only looks must not end whom it looks after
            self._log.warning("the maps cannot be compared", error=str(error) or repr(error))
            self._pass = None
            return False
        self._pass = None
        self.passes += 1
        return self._judge()

    def _judge(self) -> bool:
        found = [*self._found, *self.mend_node()]
        if not found:
            self.problem, self._repaired = "", False
            return False
        self.differences += len(found)
        more = f" And {len(found) - SHOWN} more." if len(found) > SHOWN else ""
        self._log.error(
            "the maps are not as planned: they are written again",
            differences=len(found),
            first=found[:SHOWN],
        )
        if self._repaired:
            self.problem = f"The maps do not stay as planned: {'; '.join(found[:SHOWN])}.{more}"
        self._repaired = True
        return bool(self._found)

    def _compare(self) -> Iterator[None]:
        """A pass."""
        for number, key in enumerate(self._planned.keys()):
            if number % _AT_ONCE == 0:
                yield
            if self._planned.is_left_out(key):
                continue
            for one in self._planned.plan(key):
                compared = self._compared.get(one.family)
                if compared is None:
                    continue
                held = self._planned.service_id(one.family, one.name)
                for sentence in compared.differences(held, one):
                    self._found.append(f"{one.name} ({one.name.protocol.name}): {sentence}")
        yield
        # at once, since the next change makes other numbers of them
        for family, compared in self._compared.items():
            self._found += surplus(
                compared.frontend_counts(), self._planned.frontend_counts(family), family
            )


def surplus(held: Mapping[int, int], planned: Mapping[int, int], family: Family) -> list[str]:
    """Sentences about frontends that nobody planned, by the id of the Service port they lead to."""
    return [
        f"{count - planned.get(number, 0)} {family.directory} entries lead to the Service port "
        f"with id {number}, and none of them is planned"
        for number, count in sorted(held.items())
        if number and count > planned.get(number, 0)
    ]


class Plan:
    """What a verifier compares with: the plan, as far as it has a place in the maps."""

    def __init__(self, cluster: Cluster, programmer: Programmer) -> None:
        self._cluster = cluster
        self._programmer = programmer
        self.plan = cluster.plan
        self.service_id = programmer.service_id
        self.frontend_counts = programmer.frontend_counts

    def keys(self) -> list[ObjectKey]:
        return sorted(self._cluster.keys(), key=self._cluster.priority)

    def is_left_out(self, key: ObjectKey) -> bool:
        return self._programmer.is_left_out(key)
