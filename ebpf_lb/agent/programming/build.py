"""Builds what brings Services into the maps: the plan, both families' writers, and the accounts."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ebpf_lb.agent.config import Config
from ebpf_lb.agent.host import process
from ebpf_lb.agent.programming.conflicts import Conflicts
from ebpf_lb.agent.programming.programmer import Programmer
from ebpf_lb.agent.programming.service_networks import ServiceNetworks
from ebpf_lb.agent.programming.verifier import Plan, Verifier
from ebpf_lb.datapath import clock
from ebpf_lb.datapath.compare import Comparison
from ebpf_lb.datapath.pins import Build
from ebpf_lb.datapath.reader import View
from ebpf_lb.datapath.writer import FamilyMaps, FamilyWriter
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service import Algorithm
from ebpf_lb.model.values import Family
from ebpf_lb.plan.cluster import Cluster
from ebpf_lb.plan.node import NodeView

Writers = Mapping[Family, FamilyWriter]
Report = Callable[[ObjectKey, str], None]


@dataclass(frozen=True, slots=True)
class Programming:
    cluster: Cluster
    programmer: Programmer
    conflicts: Conflicts
    service_networks: ServiceNetworks
    verifier: Verifier


def adopt(build: Build, config: Config) -> Writers:
    """Writers of both families, in step with what the kernel holds; the node's settings are
    written."""
    ticks_per_second = clock.ticks_per_second()
    writers = {}
    for family in Family:
        writer = FamilyWriter(FamilyMaps.open(build, family), time.monotonic, ticks_per_second)
        writer.adopt()
        writers[family] = writer
    set_up(writers, config)
    return writers


def set_up(writers: Writers, config: Config) -> None:
    """Writes settings and constants, as far as the maps do not have them."""
    cookie = process.netns_cookie()
    for writer in writers.values():
        writer.set_config(cookie, config.masquerade_all, config.reject_per_second)
        writer.set_crc32c_shifts()


def build(
    config: Config,
    build: Build,
    writers: Writers,
    log: Any,
    not_programmed: Report,
    conflict: Report,
) -> Programming:
    """`not_programmed`, `conflict`: told of Services that these befall."""
    cluster = Cluster(
        NodeView(config.node_name, "", ()), Algorithm(config.algorithm), config.critical_services
    )
    programmer = Programmer(writers, time.monotonic, log, not_programmed, config.namespace_share)
    verifier = Verifier(
        Plan(cluster, programmer),
        {family: Comparison(View(build, family)) for family in writers},
        log,
        config.sync_period_s,
        time.monotonic,
        time.thread_time,
    )
    return Programming(
        cluster,
        programmer,
        Conflicts(log, conflict),
        ServiceNetworks(writers, log),
        verifier,
    )
