"""How long the network takes to be programmed: `kubeproxy_network_programming_duration_seconds`.

From the moment when a Service or a pod changed, which the controllers of endpoints write into an
annotation of what follows from it, until the maps follow (kube-proxy: endpointschangetracker.go).
"""

from collections.abc import Callable

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Family


class ProgrammingLatency:
    """`observe`: told each latency, by family, in seconds. `now`: seconds since 1970; what was
    triggered before this object was made says nothing about us and is not measured."""

    def __init__(
        self, observe: Callable[[Family, float], object], now: Callable[[], float]
    ) -> None:
        self._observe = observe
        self._now = now
        self._began_s = now()
        self._waiting: dict[ObjectKey, list[tuple[Family, float]]] = {}

    def note(self, service: ObjectKey, family: Family, triggered_s: float) -> None:
        """Endpoints of a Service changed."""
        if triggered_s > self._began_s:
            self._waiting.setdefault(service, []).append((family, triggered_s))

    def forget(self, service: ObjectKey) -> None:
        """Endpoints of it were deleted: what they say is about their last update."""
        self._waiting.pop(service, None)

    def programmed(self) -> None:
        """All that was noted is in the maps."""
        now = self._now()
        for moments in self._waiting.values():
            for family, moment in moments:
                self._observe(family, now - moment)
        self._waiting.clear()
