"""Puts the agent together and runs it: loader, adopt, attach, watch, loop."""

import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Any

from ebpf_lb.agent import logs
from ebpf_lb.agent.config import Config
from ebpf_lb.agent.host import process
from ebpf_lb.agent.host.conntrack import raise_limits
from ebpf_lb.agent.host.preparation import Preparation
from ebpf_lb.agent.inbox import HooksChanged, Inbox, NetworkChanged, ServerMoved
from ebpf_lb.agent.initialization import conntrack_limits
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
    Restoring,
    ServerCollector,
    StaleSocketCollector,
    VerifierCollector,
    XdpCollector,
)
from ebpf_lb.agent.metrics.requests import RequestCollector
from ebpf_lb.agent.network import build as network_room
from ebpf_lb.agent.network import hook_changes, reserved
from ebpf_lb.agent.programming import build as programming_room
from ebpf_lb.agent.programming.node_tables import NodeTables
from ebpf_lb.agent.programming.verifier import Verifier
from ebpf_lb.agent.servers import pages, zpages
from ebpf_lb.agent.servers.health_checks import HealthCheckServers
from ebpf_lb.agent.upkeep import build as upkeep_room
from ebpf_lb.agent.upkeep import neighbours
from ebpf_lb.agent.upkeep.overshadowed import Overshadowed, frontend_owner, listeners
from ebpf_lb.datapath.loader import Loaded, retire_old_builds
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.datapath.vacate import vacate
from ebpf_lb.kube import resources
from ebpf_lb.kube.client import ApiClient, connect
from ebpf_lb.kube.events import EventRecorder
from ebpf_lb.kube.watch import Watcher, WatchSettings
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import format_address
from ebpf_lb.plan.reserved import Reserved

_PATHS = ["/configz", "/flagz", "/healthz", "/metrics", "/proxyMode", "/status", "/statusz"]
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
    inbox = Inbox(time.monotonic)
    with preparation.alone() as alone:
        if alone.mounted:
            log.info("mounted a bpffs", path=str(config.bpffs))
        _vacate(config, server, log)  # before the first request
        client.moved = lambda ends: inbox.put(ServerMoved(ends))
        watchers = _watch(config, client, inbox)  # lists come while programs are verified
        try:
            _raise_conntrack_limits(config, log)
            loaded = preparation.result()
            _vacate(config, server, log)  # what went into other maps meanwhile
            _run(config, log, client, loaded, probes, inbox, watchers)
        finally:
            for watcher in watchers:
                watcher.stop(timeout_s=0)


def _run(
    config: Config,
    log: Any,
    client: ApiClient,
    loaded: Loaded,
    probes: pages.Probes,
    inbox: Inbox,
    watchers: list[Watcher],
) -> None:
    # New maps serve nobody: until they are filled, what runs at the hooks stays. But not what lost
    # its pins, and with them its slow paths: it would drop even our connection to the API server.
    late = loaded.apart
    report = _reporter(EventRecorder(client, config.node_name, log))
    writers = programming_room.adopt(loaded.build, config)
    upkeep = upkeep_room.build(config, loaded.build, writers, client.server, log)
    interfaces = network_room.build(config, loaded, writers, log, upkeep.build_pins.hold)
    programming = programming_room.build(
        config,
        loaded.build,
        writers,
        log,
        report("NotProgrammed"),
        report("AddressConflict", everywhere=True),
    )
    programming.verifier.mend_node = NodeTables(
        writers,
        lambda: programming_room.set_up(writers, config),
        interfaces.attachments.write_again,
        programming.service_networks.write_again,
    ).mend
    health_checks = HealthCheckServers(
        probes.health.prompt, log, report("FailedToStartServiceHealthcheck")
    )
    metrics = Metrics()

    def serve_sockets() -> None:
        if late:
            upkeep.sockets.attach()
        process.give_memory_back()

    def take_over() -> None:
        """The programs of this build are everywhere: nothing needs an older one."""
        for build_id in retire_old_builds(config.bpffs):
            log.info("retired", build=build_id)

    overshadowed = Overshadowed(
        lambda: [own.address for own in interfaces.network.facts.addresses],
        listeners,
        frontend_owner(loaded.build),
        report("ProcessOvershadowed"),
        log,
        time.monotonic,
    )
    parts = Parts(
        cluster=programming.cluster,
        programmer=programming.programmer,
        conflicts=programming.conflicts,
        attachments=interfaces.attachments,
        xdp=interfaces.xdp,
        health_checks=health_checks,
        service_networks=programming.service_networks,
        stale_sockets=upkeep.stale_sockets,
        contact=upkeep.contact,
        metrics=metrics,
        log=log,
        report_invalid=report("InvalidField", everywhere=True),
        vacate=lambda places: _vacate(config, places, log),
        sweep=upkeep.sweep,
        end_stale_flows=upkeep.end_stale_flows,
        checks=(
            upkeep.build_pins,
            upkeep.sockets,
            overshadowed,
            upkeep.recent_drops,
            *upkeep.drop_counts,
            upkeep.heartbeat,
        ),
        verifier=programming.verifier,
    )
    loop = Loop(
        config,
        parts,
        inbox,
        interfaces.network.facts,
        time.monotonic,
        preferred=interfaces.preferred,
        server=client.ends,
        attach_late=late,
        when_complete=serve_sockets,
        when_everywhere=take_over,
    )
    _register(
        metrics,
        loaded,
        parts,
        upkeep,
        programming.verifier,
        lambda: len(loop.hook_problems),
        config.backend_metrics,
    )
    metrics.registry.register(ProbeCollector(probes.health.answers))
    metrics.registry.register(RequestCollector(client.requests))
    process_metrics.register(metrics.registry, version("ebpf-lb"))
    if not late:
        upkeep.sockets.attach()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    neighbours.keep_asking(lambda: interfaces.attachments.neighbourhoods)
    interfaces.network.follow(lambda facts: inbox.put(NetworkChanged(facts)))
    hook_changes.follow(lambda changed: inbox.put(HooksChanged(changed)))
    probes.health.state = loop
    statusz = zpages.Statusz(version("ebpf-lb"), _PATHS)
    inquiries = pages.serve_inquiries(
        config,
        metrics.page,
        {
            "/status": lambda: loop.status() | upkeep.recent_drops.status() | _ages(watchers),
            "/configz": lambda: zpages.configz(config),
        },
        {
            "/healthz": lambda: "ok",
            "/proxyMode": lambda: "ebpf",
            "/flagz": lambda: zpages.flagz(config),
            "/statusz": statusz.page,
        },
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
        addresses=[format_address(one.address) for one in interfaces.network.facts.addresses],
    )
    loop.run()
    log.info("stopped", writes=programming.programmer.writes)


def _reporter(events: EventRecorder) -> Callable[..., Callable[[ObjectKey, str], None]]:
    """Makes those who say on a Service what is wrong with it, by the Event's reason. `everywhere`:
    what every node finds is one Event for all."""

    def report(reason: str, *, everywhere: bool = False) -> Callable[[ObjectKey, str], None]:
        return lambda service, sentence: events.warn(
            service, reason, sentence, everywhere=everywhere
        )

    return report


def _register(
    metrics: Metrics,
    loaded: Loaded,
    parts: Parts,
    upkeep: upkeep_room.Upkeep,
    verifier: Verifier,
    hook_problems: Callable[[], int],
    backends: int,
) -> None:
    hooks: dict[str, Restoring] = {
        "tc": parts.attachments,
        "xdp": parts.xdp,
        "cgroup": upkeep.sockets,
    }
    for collector in (
        ProgrammerCollector(parts.programmer, version("ebpf-lb"), loaded.build_id),
        ConflictCollector(parts.conflicts),
        VerifierCollector(verifier),
        MapCollector(loaded.build, parts.programmer.occupancy, backends),
        HealthCheckCollector(parts.health_checks),
        XdpCollector(parts.xdp),
        ServerCollector(parts.contact),
        StaleSocketCollector(parts.stale_sockets),
        HookCollector(hooks, hook_problems),
    ):
        metrics.registry.register(collector)


def _raise_conntrack_limits(config: Config, log: Any) -> None:
    for problem in raise_limits(conntrack_limits(config)):
        log.info("connection tracking", problem=problem)


def _vacate(config: Config, places: Iterable[Reserved], log: Any) -> None:
    """Whatever the maps say, we must reach the API server."""
    try:
        for sentence in vacate(Pins(config.bpffs), places):
            log.warning("taken off a Service", problem=sentence)
    except OSError as error:
        log.error("the API server's address may be a Service's", error=str(error))


def _ages(watchers: list[Watcher]) -> dict[str, Any]:
    """When each watch last brought anything, bookmarks included; None: not yet."""
    ages = {one.name: one.silent_s for one in watchers}
    return {
        "watches": {
            name: None if silent_s is None else round(silent_s, 1)
            for name, silent_s in ages.items()
        }
    }


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
