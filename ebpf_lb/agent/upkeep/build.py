"""Builds what is done again and again, and what is looked at every second."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ebpf_lb.agent.config import Config
from ebpf_lb.agent.upkeep.build_pins import BuildPins
from ebpf_lb.agent.upkeep.contact import Contact
from ebpf_lb.agent.upkeep.drop_counts import DropCounts
from ebpf_lb.agent.upkeep.heartbeat import Heartbeat
from ebpf_lb.agent.upkeep.recent_drops import RecentDrops
from ebpf_lb.agent.upkeep.socket_hooks import SocketHooks
from ebpf_lb.agent.upkeep.stale_flows import StaleFlows
from ebpf_lb.agent.upkeep.stale_sockets import Backends, StaleSockets, translated_sockets
from ebpf_lb.agent.upkeep.sweeper import Sweeper
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.datapath.reader import View
from ebpf_lb.datapath.reader.drops import endings
from ebpf_lb.datapath.sock_diag import SockDiag
from ebpf_lb.datapath.sweep import affinity_sweeps, flow_sweeps
from ebpf_lb.model.values import Family


@dataclass(frozen=True, slots=True)
class Upkeep:
    build_pins: BuildPins
    sockets: SocketHooks
    stale_sockets: StaleSockets
    contact: Contact
    recent_drops: RecentDrops
    drop_counts: tuple[DropCounts, ...]
    heartbeat: Heartbeat
    sweep: Callable[[], None]
    end_stale_flows: Callable[[], None]


def build(
    config: Config, build: Build, writers: Mapping[Family, Backends], server: str, log: Any
) -> Upkeep:
    """`server`: the API server, as people call it."""
    flows = flow_sweeps(build)
    return Upkeep(
        BuildPins(build, log),
        SocketHooks(build, Pins(config.bpffs).links, config.cgroup, log),
        StaleSockets(writers, lambda family: translated_sockets(build, family), SockDiag, log),
        Contact(server, time.monotonic, log),
        RecentDrops(lambda: endings(View(build, family) for family in Family), time.monotonic),
        tuple(DropCounts(build, family) for family in Family),
        Heartbeat(config.bpffs),
        Sweeper([*flows.values(), *affinity_sweeps(build)], log).step,
        StaleFlows(writers, flows, log).check,
    )
