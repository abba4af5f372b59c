"""Puts the agent together and runs it: loader, adopt, attach, watch, loop."""

import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from ebpf_lb.agent import logs
from ebpf_lb.agent.config import Config
from ebpf_lb.agent.host import process
from ebpf_lb.agent.host.conntrack import Conntrack, raise_limits
from ebpf_lb.agent.host.preparation import Preparation
from ebpf_lb.agent.inbox import HooksChanged, Inbox, NetworkChanged, ServerMoved
from ebpf_lb.agent.loop import Loop, Parts
from ebpf_lb.agent.metrics import process as process_metrics
from ebpf_lb.agent.metrics.counters import Metrics
from ebpf_lb.agent.metrics.maps import MapCollector
from ebpf_lb.agent.metrics.parts import (
    ConflictCollector,
    HealthCheckCollector,
    HookCollector,
    ProbeCollector,
    ProgrammerCollector,
    ServerCollector,
    StaleSocketCollector,
    XdpCollector,
)
from ebpf_lb.agent.metrics.requests import RequestCollector
from ebpf_lb.agent.network import hook_changes, reserved
from ebpf_lb.agent.network.attachments import Attachments, SourceNumbers
from ebpf_lb.agent.network.interfaces import Network
from ebpf_lb.agent.network.layer_3 import OnDemand, wanted
from ebpf_lb.agent.network.roles import LAYER_3_PROGRAMS, Role
from ebpf_lb.agent.network.xdp import XdpUplinks
from ebpf_lb.agent.programming.conflicts import Conflicts
from ebpf_lb.agent.programming.programmer import Programmer
from ebpf_lb.agent.programming.service_networks import ServiceNetworks
from ebpf_lb.agent.servers import pages, zpages
from ebpf_lb.agent.servers.health_checks import HealthCheckServers
from ebpf_lb.agent.upkeep import neighbours
from ebpf_lb.agent.upkeep.build_pins import BuildPins
from ebpf_lb.agent.upkeep.contact import Contact
from ebpf_lb.agent.upkeep.drop_counts import DropCounts
from ebpf_lb.agent.upkeep.heartbeat import Heartbeat
from ebpf_lb.agent.upkeep.recent_drops import RecentDrops
from ebpf_lb.agent.upkeep.socket_hooks import SocketHooks
from ebpf_lb.agent.upkeep.stale_sockets import StaleSockets, translated_sockets
from ebpf_lb.agent.upkeep.sweeper import Sweeper
from ebpf_lb.datapath import clock as datapath_clock
from ebpf_lb.datapath.accept_local import SETTING, accept_local
from ebpf_lb.datapath.attach.hooks import HookControl
from ebpf_lb.datapath.attach.xdp import XdpControl
from ebpf_lb.datapath.loader import Loaded, ensure_layer_3, retire_old_builds
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.datapath.reader import View, node
from ebpf_lb.datapath.reader.drops import endings
from ebpf_lb.datapath.sock_diag import SockDiag
from ebpf_lb.datapath.sweep import sweeps
from ebpf_lb.datapath.vacate import vacate
from ebpf_lb.datapath.writer import NODE_SOURCE_ID, FamilyMaps, FamilyWriter
from ebpf_lb.kube import resources
from ebpf_lb.kube.client import ApiClient, connect
from ebpf_lb.kube.events import EventRecorder
from ebpf_lb.kube.watch import Watcher, WatchSettings
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service import Algorithm
from ebpf_lb.model.values import Family, format_address
from ebpf_lb.plan.cluster import Cluster, NodeView
from ebpf_lb.plan.reserved import Reserved

Writers = Mapping[Family, FamilyWriter]

_ENDPOINTS = {
    "auto": resources.ENDPOINT_SLICES_OR_ENDPOINTS,
    "slices": resources.ENDPOINT_SLICES,
    "endpoints": resources.ENDPOINTS,
}


def run(
    config: Config,
    warnings: Sequence[str] = (),
    probes: pages.Probes | None = None,
    preparation: Preparation | None = None,
) -> None:
    """Returns on SIGTERM or SIGINT. Detaches nothing. UserError if it cannot start. `probes`: those
    that are answered already; `preparation`: what was begun."""
    probes = probes or pages.Probes(config)
    preparation = preparation or Preparation(config.bpffs, config.settings, anew=config.compile)
    # until the loop runs there is nothing to end in order
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    process.collect_rarely()
    log = logs.configure(config.log_level, config.log_format)
    probes.listening.tell(log)
    log.info("starting", version=version("ebpf-lb"), node=config.node_name)
    for warning in warnings:
        log.warning("configuration", problem=warning)
    client = connect(config.kubeconfig)
    server = reserved.of_server(client.look_up())
    prepared = preparation.result()
    loaded = prepared.loaded
    with prepared.lock:
        if prepared.mounted:
            log.info("mounted a bpffs", path=str(config.bpffs))
        _raise_conntrack_limits(config, log)
        _vacate(config, server, log)
        writers = _writers(loaded.build)
        _run(config, log, client, loaded, writers, probes)


def _run(
    config: Config,
    log: Any,
    client: ApiClient,
    loaded: Loaded,
    writers: Writers,
    probes: pages.Probes,
) -> None:
    inbox = Inbox(time.monotonic)
    network = Network()
    # New maps serve nobody: until they are filled, what runs at the hooks stays. But not what lost
    # its pins, and with them its slow paths: it would drop even our connection to the API server.
    late = loaded.apart
    _set_node_tables(config, writers)
    control = HookControl(Pins(config.bpffs), config.filter_preference, config.tc_hooks)
    for role in Role:
        if role.has_programs:
            control.use(loaded.build, role.value)

    build_pins = BuildPins(loaded.build, log)

    def load_layer_3() -> None:
        compiled = ensure_layer_3(loaded.build, config.settings, anew=config.compile)
        build_pins.hold()
        log.info("loaded programs for devices without Ethernet header", compiled=compiled)

    hooks = OnDemand(control, load_layer_3, lambda: control.use(loaded.build, LAYER_3_PROGRAMS))
    if wanted(network.facts):
        hooks.prepare()
    xdp_control = XdpControl(Pins(config.bpffs))
    if config.settings.xdp:
        xdp_control.use(loaded.build)
    xdp = XdpUplinks(xdp_control, config.xdp, log)
    sources = _snat_sources(loaded.build)
    _accept_local(config, log)
    sockets = SocketHooks(loaded.build, Pins(config.bpffs).links, config.cgroup, log)

    def serve_sockets() -> None:
        if late:
            sockets.attach()
        process.give_memory_back()

    def take_over() -> None:
        """The programs of this build are everywhere: nothing needs an older one."""
        for build_id in retire_old_builds(config.bpffs):
            log.info("retired", build=build_id)

    metrics = Metrics()
    events = EventRecorder(client, config.node_name, log)

    def report(reason: str, *, everywhere: bool = False) -> Callable[[ObjectKey, str], None]:
        return lambda service, sentence: events.warn(
            service, reason, sentence, everywhere=everywhere
        )

    programmer = Programmer(
        writers, time.monotonic, log, report("NotProgrammed"), config.namespace_share
    )
    conflicts = Conflicts(log, report("AddressConflict", everywhere=True))
    health_checks = HealthCheckServers(
        probes.health.prompt, log, report("FailedToStartServiceHealthcheck")
    )
    attachments = Attachments(
        hooks,
        xdp,
        writers,
        {
            family: SourceNumbers(held, time.monotonic, config.settings.longest_timeout_s)
            for family, held in sources.items()
        },
        log,
    )
    stale_sockets = StaleSockets(
        writers, lambda family: translated_sockets(loaded.build, family), SockDiag, log
    )
    contact = Contact(client.server, time.monotonic, log)
    recent_drops = RecentDrops(
        lambda: endings(View(loaded.build, family) for family in Family), time.monotonic
    )
    loop = Loop(
        config,
        Parts(
            cluster=Cluster(
                NodeView(config.node_name, "", ()),
                Algorithm(config.algorithm),
                config.critical_services,
            ),
            programmer=programmer,
            conflicts=conflicts,
            attachments=attachments,
            xdp=xdp,
            health_checks=health_checks,
            service_networks=ServiceNetworks(writers, log),
            stale_sockets=stale_sockets,
            contact=contact,
            metrics=metrics,
            log=log,
            report_invalid=report("InvalidField", everywhere=True),
            vacate=lambda places: _vacate(config, places, log),
            sweep=Sweeper(sweeps(loaded.build), log).step,
            checks=(
                build_pins,
                sockets,
                recent_drops,
                *(DropCounts(loaded.build, family) for family in Family),
                Heartbeat(config.bpffs),
            ),
        ),
        inbox,
        network.facts,
        time.monotonic,
        preferred=tuple(
            held[NODE_SOURCE_ID] for held in sources.values() if NODE_SOURCE_ID in held
        ),
        server=client.ends,
        attach_late=late,
        when_complete=serve_sockets,
        when_everywhere=take_over,
    )
    metrics.registry.register(ProgrammerCollector(programmer, version("ebpf-lb"), loaded.build_id))
    metrics.registry.register(ConflictCollector(conflicts))
    metrics.registry.register(MapCollector(loaded.build, programmer.occupancy))
    metrics.registry.register(HealthCheckCollector(health_checks))
    metrics.registry.register(XdpCollector(xdp))
    metrics.registry.register(ServerCollector(contact))
    metrics.registry.register(ProbeCollector(probes.health.answers))
    metrics.registry.register(RequestCollector(client.requests))
    process_metrics.register(metrics.registry, version("ebpf-lb"))
    metrics.registry.register(StaleSocketCollector(stale_sockets))
    metrics.registry.register(
        HookCollector(
            {"tc": attachments, "xdp": xdp, "cgroup": sockets}, lambda: len(loop.hook_problems)
        )
    )
    if not late:
        sockets.attach()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    neighbours.keep_asking(lambda: attachments.neighbourhoods)
    network.follow(lambda facts: inbox.put(NetworkChanged(facts)))
    hook_changes.follow(lambda interfaces: inbox.put(HooksChanged(interfaces)))
    client.moved = lambda ends: inbox.put(ServerMoved(ends))
    watchers = _watch(config, client, inbox)
    probes.health.state = loop
    paths = ["/configz", "/healthz", "/metrics", "/proxyMode", "/status", "/statusz"]
    statusz = zpages.Statusz(version("ebpf-lb"), paths)
    inquiries = pages.serve_inquiries(
        config,
        metrics.page,
        {
            "/status": lambda: loop.status() | recent_drops.status(),
            "/configz": lambda: zpages.configz(config),
        },
        {"/healthz": lambda: "ok", "/proxyMode": lambda: "ebpf", "/statusz": statusz.page},
    )
    inquiries.tell(log)
    log.info(
        "started",
        version=version("ebpf-lb"),
        node=config.node_name,
        build=loaded.build_id,
        compiled=loaded.compiled,
        loaded=loaded.changed,
        server=client.server,
        addresses=[format_address(one.address) for one in network.facts.addresses],
    )
    try:
        loop.run()
    finally:
        for watcher in watchers:
            watcher.stop(timeout_s=0)
    log.info("stopped", writes=programmer.writes)


def _raise_conntrack_limits(config: Config, log: Any) -> None:
    wanted = Conntrack(
        config.conntrack_max_per_core,
        config.conntrack_min,
        config.conntrack_tcp_established_s,
        config.conntrack_tcp_close_wait_s,
    )
    for problem in raise_limits(wanted):
        log.info("connection tracking", problem=problem)


def _vacate(config: Config, places: Iterable[Reserved], log: Any) -> None:
    """Whatever the maps say, we must reach the API server."""
    try:
        for sentence in vacate(Pins(config.bpffs), places):
            log.warning("taken off a Service", problem=sentence)
    except OSError as error:
        log.error("the API server's address may be a Service's", error=str(error))


def _writers(build: Build) -> dict[Family, FamilyWriter]:
    """Of both families, in step with what the kernel holds."""
    ticks_per_second = datapath_clock.ticks_per_second()
    writers = {}
    for family in Family:
        writer = FamilyWriter(FamilyMaps.open(build, family), time.monotonic, ticks_per_second)
        writer.adopt()
        writers[family] = writer
    return writers


def _set_node_tables(config: Config, writers: Writers) -> None:
    cookie = process.netns_cookie()
    for writer in writers.values():
        writer.set_config(cookie, config.masquerade_all, config.reject_per_second)
        writer.set_crc32c_shifts()


def _snat_sources(build: Build) -> dict[Family, dict[int, bytes]]:
    """The node's addresses that the kernel masquerades with, by number."""
    sources = {}
    for family in Family:
        sources[family] = {one.id: one.address for one in node.sources(View(build, family))}
    return sources


def _accept_local(config: Config, log: Any) -> None:
    try:
        accept_local(Pins(config.bpffs))
    except OSError as error:
        log.warning(
            "past the socket hooks, the node hears nothing of Services on addresses of its own",
            setting=str(SETTING),
            error=error.strerror,
        )


def _watch(config: Config, client: ApiClient, inbox: Inbox) -> list[Watcher]:
    settings = WatchSettings(
        page_size=config.list_page_size,
        server_timeout_s=config.watch_timeout_s,
        silence_s=config.watch_silence_s,
    )
    wanted = (
        resources.node(config.node_name),
        resources.SERVICES,
        _ENDPOINTS[config.endpoints_source],
        resources.SERVICE_CIDRS,
    )
    watchers = [Watcher(client, one, inbox.put, settings=settings) for one in wanted]
    for watcher in watchers:
        watcher.start()
    return watchers
