"""What the agent's parts say of themselves when somebody asks."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ebpf_lb.agent.metrics.counters import ip_family
from ebpf_lb.model.values import Family


class Programmed(Protocol):
    """What is asked of the Programmer here."""

    @property
    def refused(self) -> Sized: ...
    @property
    def services(self) -> int: ...
    def without_local_endpoints(self, policy: str, family: Family) -> int: ...
    def writes_by_map(self) -> Iterable[tuple[Family, str, int]]: ...


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
            "Service ports that are not in the maps as they should be, for each family.",
            value=len(programmed.refused),
        )
        lacking = GaugeMetricFamily(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            "Service ports with traffic policy Local and no endpoint on this node.",
            labels=["traffic_policy", "ip_family"],
        )
        for policy, family in itertools.product(("internal", "external"), Family):
            count = programmed.without_local_endpoints(policy, family)
            lacking.add_metric([policy, ip_family(family)], count)
        yield lacking
        writes = CounterMetricFamily(
            "ebpf_lb_map_writes", "Elements written into maps.", labels=["family", "map"]
        )
        for family, name, number in programmed.writes_by_map():
            writes.add_metric([family.directory, name], number)
        yield writes


class ConflictCollector(Collector):
    """Services that do not get an address and port that they ask for."""

    def __init__(self, conflicts: Sized) -> None:
        self._conflicts = conflicts

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "ebpf_lb_conflicts",
            "Services that do not get an address and port they ask for; another one, or the node "
            "itself, has it.",
            value=len(self._conflicts),
        )


class Verified(Protocol):
    """What is asked of the Verifier here."""

    passes: int
    differences: int


class VerifierCollector(Collector):
    """Whether the maps stay what they were made to be."""

    def __init__(self, verified: Verified) -> None:
        self._verified = verified

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "ebpf_lb_verifications",
            "How often all that the maps hold was compared with what is planned.",
            value=self._verified.passes,
        )
        yield CounterMetricFamily(
            "ebpf_lb_map_differences",
            "Differences that were found in it; they were put right.",
            value=self._verified.differences,
        )


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


class Restoring(Protocol):
    """What is asked here of whatever keeps programs at their hooks."""

    @property
    def restored(self) -> int: ...


class HookCollector(Collector):
    """Programs that somebody else took off their hooks. `keepers`: by kind of hook. `problems`: how
    many things others did there that stand."""

    def __init__(self, keepers: Mapping[str, Restoring], problems: Callable[[], int]) -> None:
        self._keepers = keepers
        self._problems = problems

    def collect(self) -> Iterator[Metric]:
        metric = CounterMetricFamily(
            "ebpf_lb_hooks_restored",
            "How often programs were attached again after somebody had removed them.",
            labels=["hook"],
        )
        for hook, keeper in self._keepers.items():
            metric.add_metric([hook], keeper.restored)
        yield metric
        yield GaugeMetricFamily(
            "ebpf_lb_hook_problems",
            "Programs of others at our hooks that may keep packets from us; /status names them.",
            value=self._problems(),
        )


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


class ServerContact(Protocol):
    """What is asked of the Contact here."""

    @property
    def cut_off_s(self) -> float: ...


class ServerCollector(Collector):
    """Whether the API server is heard."""

    def __init__(self, contact: ServerContact) -> None:
        self._contact = contact

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "ebpf_lb_api_server_cut_off_seconds",
            "For how long some kind of object has not been followed; 0 while all are.",
            value=self._contact.cut_off_s,
        )


class ProbeCollector(Collector):
    """How probes were answered. `answers`: by page and status."""

    def __init__(self, answers: Mapping[tuple[str, int], int]) -> None:
        self._answers = answers

    def collect(self) -> Iterator[Metric]:
        healthz = CounterMetricFamily(
            "kubeproxy_proxy_healthz", "Answers to /healthz, by status.", labels=["code"]
        )
        livez = CounterMetricFamily(
            "kubeproxy_proxy_livez", "Answers to /livez, by status.", labels=["code"]
        )
        readyz = CounterMetricFamily(
            "ebpf_lb_readyz", "Answers to /readyz, by status.", labels=["code"]
        )
        answers = dict(self._answers)
        for page, metric in (("healthz", healthz), ("livez", livez), ("readyz", readyz)):
            for status in (200, 503):
                metric.add_metric([str(status)], answers.get((page, status), 0))
            yield metric
