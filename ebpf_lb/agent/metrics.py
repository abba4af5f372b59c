"""What `/metrics` shows: kube-proxy's names where the meaning is the same, ours for the rest.

What programs count is read from the maps when somebody asks, and kept nowhere else.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ebpf_lb.datapath.dump import View, dump
from ebpf_lb.datapath.pins import Build
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
_HASH_MAPS = (
    "frontends",
    "names",
    "source_ranges",
    "pod_networks",
    "affinity",
    "fragments",
    "sockets",
    "interfaces",
)


class Programmed(Protocol):
    """What is asked of the Programmer here."""

    @property
    def refused(self) -> Sized: ...
    @property
    def services(self) -> int: ...
    def without_local_endpoints(self, policy: str) -> int: ...
    def writes_by_map(self) -> Iterable[tuple[Family, str, int]]: ...


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


class ProgrammerCollector(Collector):
    """What the agent wrote, and could not write."""

    def __init__(self, programmed: Programmed, version: str, build_id: str) -> None:
        self._programmed = programmed
        self._version = version
        self._build_id = build_id

    def collect(self) -> Iterator[Metric]:
        programmed = self._programmed
        build = GaugeMetricFamily("ebpf_lb_build_info", "Always 1.", labels=["version", "build"])
        build.add_metric([self._version, self._build_id], 1)
        yield build
        yield GaugeMetricFamily(
            "ebpf_lb_services", "Services in the maps.", value=programmed.services
        )
        yield GaugeMetricFamily(
            "ebpf_lb_not_programmed",
            "Service ports that are not in the maps as they should be, a family each.",
            value=len(programmed.refused),
        )
        lacking = GaugeMetricFamily(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            "Service ports with traffic policy Local and no endpoint on this node.",
            labels=["traffic_policy"],
        )
        for policy in ("internal", "external"):
            lacking.add_metric([policy], programmed.without_local_endpoints(policy))
        yield lacking
        writes = CounterMetricFamily(
            "ebpf_lb_map_writes", "Elements written into maps.", labels=["family", "map"]
        )
        for family, name, number in programmed.writes_by_map():
            writes.add_metric([family.directory, name], number)
        yield writes


class HealthChecks(Protocol):
    """What is asked of the HealthCheckServers here."""

    @property
    def ports(self) -> int: ...
    @property
    def failed(self) -> Sized: ...


class HealthCheckCollector(Collector):
    """Services' healthCheckNodePorts."""

    def __init__(self, checks: HealthChecks) -> None:
        self._checks = checks

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "ebpf_lb_health_check_ports", "healthCheckNodePorts served.", value=self._checks.ports
        )
        yield GaugeMetricFamily(
            "ebpf_lb_health_check_ports_failed",
            "healthCheckNodePorts that cannot be served; the log says why.",
            value=len(self._checks.failed),
        )


class XdpUplinks(Protocol):
    """What is asked of the XdpUplinks here."""

    def counts(self) -> Mapping[str, int]: ...


class XdpCollector(Collector):
    """Where the XDP program runs."""

    def __init__(self, uplinks: XdpUplinks) -> None:
        self._uplinks = uplinks

    def collect(self) -> Iterator[Metric]:
        metric = GaugeMetricFamily(
            "ebpf_lb_xdp_interfaces",
            "Uplinks that XDP is wanted on, by where it runs; tc: nowhere, TC does it all.",
            labels=["mode"],
        )
        counts = self._uplinks.counts()
        for mode in ("native", "generic", "tc"):
            metric.add_metric([mode], counts.get(mode, 0))
        yield metric


class SocketsClosed(Protocol):
    """What is asked of the StaleSockets here."""

    @property
    def closed(self) -> int: ...


class StaleSocketCollector(Collector):
    """The node's UDP sockets whose backend left."""

    def __init__(self, sockets: SocketsClosed) -> None:
        self._sockets = sockets

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "ebpf_lb_sockets_closed",
            "UDP sockets of this node that were closed because their backend left.",
            value=self._sockets.closed,
        )


class MapCollector(Collector):
    """What the programs counted, and how full the maps are. Services that nothing was counted for
    are left out: with ten thousand of them that keeps pages, and us, small.

    `occupancy`: elements in use of maps that only their writer can count, by family and map.
    """

    def __init__(
        self, build: Build, occupancy: Callable[[], Iterable[tuple[Family, str, int]]]
    ) -> None:
        self._build = build
        self._occupancy = occupancy

    def collect(self) -> Iterator[Metric]:
        views = [View(self._build, family) for family in Family]
        yield from _counted(views)
        yield from _flows(views)
        entries = GaugeMetricFamily(
            "ebpf_lb_map_entries", "Elements in a map.", labels=["family", "map"]
        )
        capacity = GaugeMetricFamily(
            "ebpf_lb_map_capacity", "Elements that fit into a map.", labels=["family", "map"]
        )
        written = {view.family: dict[str, int]() for view in views}
        for family, name, number in self._occupancy():
            written[family][name] = number
        for view in views:
            for name, (used, room) in _fill_levels(view, written[view.family]).items():
                entries.add_metric([view.family.directory, name], used)
                capacity.add_metric([view.family.directory, name], room)
        yield from (entries, capacity)


def _counted(views: list[View]) -> Iterator[Metric]:
    """Packets, by reason and by Service."""
    labels = ["family", "reason"]
    packets = CounterMetricFamily("ebpf_lb_packets", "Packets, by reason.", labels=labels)
    octets = CounterMetricFamily("ebpf_lb_bytes", "Their bytes.", labels=labels)
    per_service = {
        name: CounterMetricFamily(
            f"ebpf_lb_service_{name}",
            f"{name.capitalize()} of Services, both directions.",
            labels=["family", "service", "protocol"],
        )
        for name in ("connections", "packets", "bytes")
    }
    for view in views:
        family = view.family.directory
        for row in dump(view, "counters"):
            packets.add_metric([family, row["reason"]], row["packets"])
            octets.add_metric([family, row["reason"]], row["bytes"])
        for row in dump(view, "service_counters"):
            for name, metric in per_service.items():
                if row["packets"] or row["connections"]:
                    metric.add_metric([family, row["service"], row["protocol"]], row[name])
    yield from (packets, octets, *per_service.values())


def _flows(views: list[View]) -> Iterator[Metric]:
    """The connection table: what is in it, and what happened to it."""
    entries = GaugeMetricFamily(
        "ebpf_lb_conntrack_entries",
        "Connections by state, and signposts for replies to masqueraded ones.",
        labels=["family", "state"],
    )
    evictions = CounterMetricFamily(
        "ebpf_lb_conntrack_evictions",
        "Connections that gave their place to a new one, by the state they were in.",
        labels=["family", "state"],
    )
    others = {
        "EXPIRED": CounterMetricFamily(
            "ebpf_lb_conntrack_expired",
            "Connections that were idle for too long and then swept out.",
            labels=["family"],
        ),
        "OVERFLOW": CounterMetricFamily(
            "ebpf_lb_conntrack_overflows",
            "Connections that found no room beside others from the same address and port.",
            labels=["family"],
        ),
        "SNAT_RETRY": CounterMetricFamily(
            "ebpf_lb_snat_port_retries",
            "Source ports for masquerading that were taken, so that another was tried.",
            labels=["family"],
        ),
    }
    for view in views:
        family = view.family.directory
        for row in dump(view, "census"):
            entries.add_metric([family, row["state"].lower()], row["entries"])
        for row in dump(view, "flow_events"):
            kind, _, state = row["event"].partition("EVICTED_")
            if state:
                evictions.add_metric([family, state.lower()], row["count"])
            elif kind in others:
                others[kind].add_metric([family], row["count"])
    yield from (entries, evictions, *others.values())


def _fill_levels(view: View, written: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Elements in use and capacity, by map."""
    levels = {}
    flows = view.map("flows")
    if flows is not None:
        a_set = flows.value_size // view.layout.struct("flow").size
        in_use = sum(row["entries"] for row in dump(view, "census"))
        levels["flows"] = (in_use, flows.max_entries * a_set)
    for name, used in written.items():
        opened = view.map(name)
        if opened is not None:
            levels[name] = (used, opened.max_entries)
    for name in _HASH_MAPS:
        opened = view.map(name)
        if opened is not None:
            used = sum(len(keys) // opened.key_size for keys, _ in opened.chunks())
            levels[name] = (used, opened.max_entries)
    return levels
