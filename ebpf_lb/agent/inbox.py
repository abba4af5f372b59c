"""The queue in front of the loop: threads put events in, the loop takes them out in batches."""

import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ebpf_lb.agent.network.roles import Facts

_BATCH = 1000


@dataclass(frozen=True, slots=True)
class NetworkChanged:
    """Links, addresses or default routes of the node are other than before."""

    facts: Facts


@dataclass(frozen=True, slots=True)
class HooksChanged:
    """Somebody, perhaps we, changed what is at these interfaces' TC hooks; None: at any."""

    interfaces: frozenset[int] | None


@dataclass(frozen=True, slots=True)
class ServerMoved:
    """The API server is reached by other addresses and ports than before."""

    ends: frozenset[tuple[bytes, int]]


@dataclass(frozen=True, slots=True)
class Wake:
    """Says nothing; ends a wait."""


class Inbox:
    """`clock`: monotonic seconds. `put` may be called by any thread and by signal handlers."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.oldest_waiting: float | None = None
        """Since when something has waited to be taken into account; None while nothing does."""

    def put(self, event: Any) -> None:
        if self.oldest_waiting is None:
            self.oldest_waiting = self._clock()
        self._events.put(event)

    def take(self, timeout_s: float) -> list[Any]:
        """What there is, in order; waits for a first one for so long."""
        events: list[Any] = []
        try:
            events.append(self._events.get(timeout=max(timeout_s, 0)))
            while len(events) < _BATCH:
                events.append(self._events.get_nowait())
        except queue.Empty:
            pass
        return events

    def settled(self) -> None:
        """All that was taken is in the maps, or reported."""
        if self._events.empty():
            self.oldest_waiting = None
