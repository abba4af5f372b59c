"""What the agent counts and times itself: kube-proxy's names where the meaning is the same."""

import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

# kube-proxy's: from 1 ms, each twice the one before
_SYNC_BUCKETS = tuple(0.001 * 2**exponent for exponent in range(15))
# kube-proxy's, for the latency that the scalability SLI speaks of: to one minute by the second
_PROGRAMMING_BUCKETS = (
    *(0.25, 0.5),
    *range(1, 60),
    *range(60, 120, 5),
    *range(120, 301, 30),
)


# rule: ME-1
class Metrics:
    """Counters that the agent keeps itself."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the lines, for nobody
        self.registry = CollectorRegistry()
        registry, prefix = self.registry, "kubeproxy_sync_proxy_rules_"
        self._duration = Histogram(
            prefix + "duration_seconds",
            "Time that bringing changes into the maps took.",
            registry=registry,
            buckets=_SYNC_BUCKETS,
        )
        self.programming = Histogram(
            "kubeproxy_network_programming_duration_seconds",
            "Time from a change of a Service or a pod until the maps followed.",
            registry=registry,
            buckets=_PROGRAMMING_BUCKETS,
        )
        self._last = Gauge(
            prefix + "last_timestamp_seconds",
            "When changes were last brought into the maps.",
            registry=registry,
        )
        self._queued = Gauge(
            prefix + "last_queued_timestamp_seconds",
            "When a change last came.",
            registry=registry,
        )
        self._service_changes = Counter(
            prefix + "service_changes_total", "Changes of Services.", registry=registry
        )
        self._endpoint_changes = Counter(
            prefix + "endpoint_changes_total", "Changes of EndpointSlices.", registry=registry
        )
        self._services_pending = Gauge(
            prefix + "service_changes_pending", "Of these, not in the maps.", registry=registry
        )
        self._endpoints_pending = Gauge(
            prefix + "endpoint_changes_pending", "Of these, not in the maps.", registry=registry
        )
        self.watch_problems = Counter(
            "ebpf_lb_watch_problems_total",
            "Interrupted watches, and objects that could not be read.",
            ["kind"],
            registry=registry,
        )

    def changed(self, services: int = 0, endpoints: int = 0) -> None:
        """So many changes came."""
        self._service_changes.inc(services)
        self._endpoint_changes.inc(endpoints)
        self._services_pending.inc(services)
        self._endpoints_pending.inc(endpoints)
        self._queued.set(time.time())

    def synced(self, elapsed_s: float) -> None:
        """All changes are in the maps; it took so long."""
        self._duration.observe(elapsed_s)
        self._last.set(time.time())
        self._services_pending.set(0)
        self._endpoints_pending.set(0)

    def page(self) -> bytes:
        """The text that a scrape gets."""
        return generate_latest(self.registry)
