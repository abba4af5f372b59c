"""What the agent counts and times itself: kube-proxy's names where the meaning is the same."""

import time
from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from ebpf_lb.model.values import Family

# kube-proxy's: from 1 ms, each twice the one before
_SYNC_BUCKETS = tuple(0.001 * 2**exponent for exponent in range(15))
# kube-proxy's, for the latency that the scalability SLI speaks of: to one minute by the second
_PROGRAMMING_BUCKETS = (
    *(0.25, 0.5),
    *range(1, 60),
    *range(60, 120, 5),
    *range(120, 301, 30),
)


def ip_family(family: Family) -> str:
    """As kube-proxy's label of that name has it."""
    return "IPv4" if family is Family.IPV4 else "IPv6"


# rule: ME-1
class Metrics:
    """Counters that the agent keeps itself. `now`: seconds since 1970."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the lines, for nobody
        self.registry = CollectorRegistry()
        self._now = now
        registry, prefix = self.registry, "kubeproxy_sync_proxy_rules_"
        labels = ["ip_family"]
        # we bring both families up to date at once: what is true of one is true of the other
        self._duration = Histogram(
            prefix + "duration_seconds",
            "Time that it took to bring changes into the maps.",
            labels,
            registry=registry,
            buckets=_SYNC_BUCKETS,
        )
        self._full_duration = Histogram(
            "kubeproxy_sync_full_proxy_rules_duration_seconds",
            "The same, where it was all there is: the first time.",
            labels,
            registry=registry,
            buckets=_SYNC_BUCKETS,
        )
        self._partial_duration = Histogram(
            "kubeproxy_sync_partial_proxy_rules_duration_seconds",
            "The same, where it was what had changed.",
            labels,
            registry=registry,
            buckets=_SYNC_BUCKETS,
        )
        self._programming = Histogram(
            "kubeproxy_network_programming_duration_seconds",
            "Time from a change of a Service or a pod until the maps followed.",
            labels,
            registry=registry,
            buckets=_PROGRAMMING_BUCKETS,
        )
        self._last = Gauge(
            prefix + "last_timestamp_seconds",
            "When the maps were last known to follow all changes.",
            labels,
            registry=registry,
        )
        self._queued = Gauge(
            prefix + "last_queued_timestamp_seconds",
            "When a change last came.",
            labels,
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
        for family in Family:  # there from the first scrape, and 0 where nothing has happened
            for metric in (
                self._duration,
                self._full_duration,
                self._partial_duration,
                self._programming,
                self._last,
                self._queued,
            ):
                metric.labels(ip_family(family))

    def changed(self, services: int = 0, endpoints: int = 0) -> None:
        """So many changes came."""
        if not (services or endpoints):
            return
        self._service_changes.inc(services)
        self._endpoint_changes.inc(endpoints)
        self._services_pending.inc(services)
        self._endpoints_pending.inc(endpoints)
        now = self._now()
        for family in Family:
            self._queued.labels(ip_family(family)).set(now)

    def programmed(self, family: Family, latency_s: float) -> None:
        """A change of endpoints is in the maps, so long after it happened."""
        self._programming.labels(ip_family(family)).observe(latency_s)

    def synced(self, elapsed_s: float, *, full: bool = False) -> None:
        """Something was brought into the maps; it took so long."""
        part = self._full_duration if full else self._partial_duration
        for family in Family:
            label = ip_family(family)
            self._duration.labels(label).observe(elapsed_s)
            part.labels(label).observe(elapsed_s)

    def settled(self) -> None:
        """The maps follow all changes that came, also those that changed nothing for us."""
        now = self._now()
        for family in Family:
            self._last.labels(ip_family(family)).set(now)
        self._services_pending.set(0)
        self._endpoints_pending.set(0)

    def page(self) -> bytes:
        """The text that a scrape gets."""
        return generate_latest(self.registry)
