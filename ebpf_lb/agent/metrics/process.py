"""What every component of Kubernetes tells of its process."""

import platform
import sys
import threading
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class _BuildInfo(Collector):
    def __init__(self, version: str) -> None:
        major, minor, *_ = [*version.split("."), "0", "0"]
        machine = _MACHINES.get(platform.machine(), platform.machine())
        self._values = [
            *(major, minor, f"v{version}", "", "", ""),
            *(f"python{platform.python_version()}", sys.implementation.name, f"linux/{machine}"),
        ]

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "kubernetes_build_info",
            "Always 1; which ebpf-lb this is, by the labels that other components have.",
            labels=[
                "major",
                "minor",
                "git_version",
                "git_commit",
                "git_tree_state",
                "build_date",
                "go_version",
                "compiler",
                "platform",
            ],
        )
        info.add_metric(self._values, 1)
        yield info
        # dashboards ask every component for it
        yield GaugeMetricFamily(
            "go_goroutines", "Threads of the agent.", value=threading.active_count()
        )


def register(registry: CollectorRegistry, version: str) -> None:
    ProcessCollector(registry=registry)
    registry.register(_BuildInfo(version))
