"""What the programs counted and how full the maps are: read from the maps when somebody asks, and
kept nowhere else.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ebpf_lb.datapath.pins import Build
from ebpf_lb.datapath.reader import View, counters
from ebpf_lb.datapath.reader.occupancy import HASH_MAPS, flow_level
from ebpf_lb.datapath.reader.summary import backend_summaries
from ebpf_lb.model.values import Family, format_endpoint


# rule: ME-2
class MapCollector(Collector):
    """What the programs counted, and how full the maps are. Services that nothing was counted for
    are left out: with ten thousand of them that keeps pages, and us, small.

    `occupancy`: elements in use of maps that only their writer can count, by family and map.
    `backends`: of how many, at most, the connections are told.
    """

    def __init__(
        self,
        build: Build,
        occupancy: Callable[[], Iterable[tuple[Family, str, int]]],
        backends: int = 0,
    ) -> None:
        self._build = build
        self._occupancy = occupancy
        self._backends = backends

    def collect(self) -> Iterator[Metric]:
        views = [View(self._build, family) for family in Family]
        yield from _counted(views)
        yield from _flows(views)
        if self._backends:
            yield from _backends(views, self._backends)
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
    labels = ["family", "reason", "verdict"]
    packets = CounterMetricFamily("ebpf_lb_packets", "Packets, by reason.", labels=labels)
    octets = CounterMetricFamily("ebpf_lb_bytes", "Bytes of packets, by reason.", labels=labels)
    drops = CounterMetricFamily(
        "ebpf_lb_service_drops",
        "Packets dropped or refused on their way to a Service; without a name: to none.",
        labels=["family", "service", "protocol", "reason", "verdict"],
    )
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
        for one in counters.reason_counts(view):
            if one.reason and one.number:
                values = [family, one.reason.name, one.reason.verdict.value]
                packets.add_metric(values, one.packets)
                octets.add_metric(values, one.bytes)
        for count in counters.service_counts(view):
            for name, metric in per_service.items():
                metric.add_metric([family, count.service, count.protocol], getattr(count, name))
        for drop in counters.service_drops(view):
            service, protocol = drop.service or "", drop.protocol or ""
            reason = [drop.reason.name, drop.reason.verdict.value]
            drops.add_metric([family, service, protocol, *reason], drop.packets)
    yield from (packets, octets, drops, *per_service.values())


def _flows(views: list[View]) -> Iterator[Metric]:
    """The connection table: what is in it, and what happened to it."""
    entries = GaugeMetricFamily(
        "ebpf_lb_conntrack_entries",
        "Connections by state, and signposts for replies to masqueraded ones.",
        labels=["family", "state"],
    )
    evictions = CounterMetricFamily(
        "ebpf_lb_conntrack_evictions",
        "Connections that were evicted for a new one, by the state they were in.",
        labels=["family", "state"],
    )
    others = {
        "EXPIRED": CounterMetricFamily(
            "ebpf_lb_conntrack_expired",
            "Connections that were removed after they had been idle for too long.",
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
        census = counters.census(view)
        if census is not None:
            for state, number in census.by_state.items():
                entries.add_metric([family, state.lower()], number)
            entries.add_metric([family, "signpost"], census.signposts)
        for one in counters.flow_events(view):
            if one.evicted:
                evictions.add_metric([family, one.evicted.lower()], one.times)
            elif one.name in others:
                others[one.name].add_metric([family], one.times)
    yield from (entries, evictions, *others.values())


def _backends(views: list[View], most: int) -> Iterator[Metric]:
    """What became of the connections to those of whom most wait or were refused."""
    connections = GaugeMetricFamily(
        "ebpf_lb_backend_connections",
        "Live connections of a backend by what it has done: answered, unanswered or refused.",
        labels=["family", "service", "protocol", "backend", "state"],
    )
    ended = CounterMetricFamily(
        "ebpf_lb_backend_ended_connections",
        "Connections of a backend that have ended, by what it had done: answered, unanswered or "
        "refused.",
        labels=["family", "service", "protocol", "backend", "outcome"],
    )
    found = [
        (view.family.directory, one)
        for view in views
        for one in backend_summaries(view)
        if one.backend.service and one.tried
    ]
    found.sort(key=lambda one: (-one[1].unanswered - one[1].refused, -one[1].answered))
    for family, one in found[:most]:
        address = format_endpoint(one.backend.address, one.backend.port)
        labels = [family, one.backend.service or "", one.backend.protocol or "", address]
        for state in ("answered", "unanswered", "refused"):
            connections.add_metric([*labels, state], getattr(one.live, state))
            ended.add_metric([*labels, state], getattr(one.ended, state))
    yield from (connections, ended)


def _fill_levels(view: View, written: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Elements in use and capacity, by map."""
    levels = {"flows": flow_level(view)}
    for name, used in written.items():
        opened = view.map(name)
        if opened is not None:
            levels[name] = (used, opened.max_entries)
    for name in HASH_MAPS:
        opened = view.map(name)
        if opened is not None:
            used = sum(len(keys) // opened.key_size for keys, _ in opened.chunks())
            levels[name] = (used, opened.max_entries)
    return levels
