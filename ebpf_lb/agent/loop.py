"""The agent's loop: everything that changes anything happens here, in one thread.

Threads only put events into the inbox. A first change is taken into account at once; what follows
closely is gathered for some milliseconds, and then only the Services that it touches are planned
again. Nothing is taken out of the maps before every kind of object was listed completely.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ebpf_lb.agent.config import Config
from ebpf_lb.agent.inbox import HooksChanged, Inbox, NetworkChanged, ServerMoved, Wake
from ebpf_lb.agent.metrics.counters import Metrics
from ebpf_lb.agent.network import here, reserved, roles
from ebpf_lb.agent.network.attachments import Attachments
from ebpf_lb.agent.network.roles import Facts, Role
from ebpf_lb.agent.network.xdp import XdpUplinks
from ebpf_lb.agent.programming.conflicts import Conflicts
from ebpf_lb.agent.programming.latency import ProgrammingLatency
from ebpf_lb.agent.programming.programmer import Programmer
from ebpf_lb.agent.programming.service_networks import ServiceNetworks
from ebpf_lb.agent.programming.verifier import Verifier
from ebpf_lb.agent.servers.health_checks import HealthCheckServers
from ebpf_lb.agent.upkeep.contact import Contact
from ebpf_lb.agent.upkeep.stale_sockets import StaleSockets
from ebpf_lb.kube import resources
from ebpf_lb.kube.watch import Changed, Deleted, Interrupted, Listed, Problem, Restored
from ebpf_lb.model.endpoints import EndpointSlice
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.node import Node
from ebpf_lb.model.values import Network
from ebpf_lb.plan.cluster import Cluster
from ebpf_lb.plan.reserved import Reserved

SYNC_INTERVAL_S = 0.01
HOUSEKEEPING_INTERVAL_S = 1.0
MISINFORMED_A_SECOND = 50

NODES = "nodes"
# Of these one is followed, never both.
_SOURCES = frozenset({resources.ENDPOINT_SLICES.name, resources.ENDPOINTS.name})


class Check(Protocol):
    """What is looked at every second. `problem`: a sentence, "" while all is well."""

    @property
    def problem(self) -> str: ...
    def check(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop works with."""

    cluster: Cluster
    programmer: Programmer
    conflicts: Conflicts
    attachments: Attachments
    xdp: XdpUplinks
    health_checks: HealthCheckServers
    service_networks: ServiceNetworks
    stale_sockets: StaleSockets
    contact: Contact
    metrics: Metrics
    log: Any
    report_invalid: Callable[[ObjectKey, str], None] = lambda key, sentence: None
    vacate: Callable[[Iterable[Reserved]], None] = lambda places: None
    sweep: Callable[[], None] = lambda: None
    end_stale_flows: Callable[[], None] = lambda: None
    checks: Sequence[Check] = ()
    verifier: Verifier | None = None


class Loop:
    """`attach_late`: the maps are new and empty; programs are attached when they are filled.
    `preferred`: the node's addresses of last time, until its Node object is known. `server`: where
    the API server is, until it moves. `clock`: monotonic seconds; `wall_clock`: since 1970.
    `when_complete` is called once, after the first complete sync; `when_everywhere` once, when
    moreover every interface has its programs."""

    def __init__(
        self,
        config: Config,
        parts: Parts,
        inbox: Inbox,
        facts: Facts,
        clock: Callable[[], float],
        *,
        wall_clock: Callable[[], float] = time.time,
        preferred: tuple[bytes, ...] = (),
        server: frozenset[tuple[bytes, int]] = frozenset(),
        attach_late: bool = False,
        when_complete: Callable[[], None] = lambda: None,
        when_everywhere: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._parts = parts
        self._inbox = inbox
        self._facts = facts
        self._clock = clock
        self._attach_late = attach_late
        self._when_complete = when_complete
        self._when_everywhere = when_everywhere
        self._everywhere = False
        self._node = Node(config.node_name, addresses=preferred)
        self._node_known = False
        self._server = reserved.of_server(server)
        self._source = resources.ENDPOINT_SLICES.name
        if config.endpoints_source == resources.ENDPOINTS.name:
            self._source = resources.ENDPOINTS.name
        self._missing = {resources.SERVICES.name, self._source, NODES}  # kinds not yet listed
        self._latency = ProgrammingLatency(parts.metrics.programmed, wall_clock)
        self._unserved: tuple[str, ...] = ()
        self._primary: tuple[bytes, ...] = ()
        self._pod_networks: tuple[Network, ...] = ()
        self._dirty = False
        self._not_before = -math.inf
        self._housekeeping_at = clock()
        self._stopping = False
        self.complete = False
        """Whether the maps have once been brought to what the API server lists."""

    # for probes: other threads ask

    @property
    def eligible(self) -> bool:
        """Whether balancers should send connections to this node."""
        return self._node.eligible

    @property
    def waiting_since(self) -> float | None:
        """When the oldest change came that is not yet in the maps."""
        return self._inbox.oldest_waiting

    @property
    def waiting_for(self) -> list[str]:
        """What has to come before the maps can be filled."""
        if missing := sorted(self._missing):
            return [f"the API server's list of {kind}" for kind in missing]
        return [] if self.complete else ["the maps to be filled"]

    @property
    def problems(self) -> list[str]:
        """Why this node is not served as it should be."""
        found = [one.problem for one in (self._parts.contact, *self._parts.checks) if one.problem]
        found += list(self._parts.attachments.failed.values())
        found += self._map_problems
        priority, refused = self._parts.cluster.priority, self._parts.programmer.refused
        found += [one.sentence for one in list(refused.values()) if priority(one.key).critical]
        return found

    @property
    def _map_problems(self) -> list[str]:
        verifier = self._parts.verifier
        return [verifier.problem] if verifier is not None and verifier.problem else []

    @property
    def left_out(self) -> list[str]:
        """What is not in the maps, of whatever Service."""
        return [one.sentence for one in list(self._parts.programmer.refused.values())]

    def stop(self) -> None:
        """Ends `run` soon; for signal handlers and other threads."""
        self._stopping = True
        self._inbox.put(Wake())

    def run(self) -> None:
        """Until `stop`."""
        self.begin()
        while not self._stopping:
            self.step()

    def begin(self) -> None:
        """What is to do before the first event."""
        view = self._look_around()
        if not self._attach_late:
            self._parts.attachments.begin(view)

    def step(self) -> None:
        """Waits for something to do, and does what is due."""
        for event in self._inbox.take(self._wait_s()):
            self._handle(event)
        self._sync_if_due()
        self._keep_house_if_due()

    # events

    def _handle(self, event: Any) -> None:
        match event:
            case Listed():
                self._listed(event)
            case Changed():
                self._changed(event)
            case Deleted():
                self._deleted(event)
            case NetworkChanged(facts):
                self._facts = facts
                self._parts.attachments.apply(self._look_around())
            case HooksChanged(interfaces):
                self._parts.attachments.suspect(interfaces)
            case ServerMoved(ends):
                self._server = reserved.of_server(ends)
                self._parts.vacate(self._server)  # planning may have to wait for the server
                self._look_around()
            case Interrupted():
                self._parts.metrics.watch_problems.labels(event.resource.name).inc()
                self._parts.contact.lost(event.resource.name, event.cause, event.silent_s)
            case Restored():
                self._parts.contact.found(event.resource.name)
            case Problem():
                self._parts.metrics.watch_problems.labels(event.resource.name).inc()
                about = {"object": str(event.key)} if event.key else {}
                self._parts.log.warning(
                    "watch problem", kind=event.resource.name, problem=event.text, **about
                )
                if event.key and event.resource.name == resources.SERVICES.name:
                    self._parts.report_invalid(event.key, event.text)
        self._dirty = True

    def _listed(self, event: Listed) -> None:
        cluster, kind = self._parts.cluster, event.resource.name
        self._parts.log.info("listed", kind=kind, objects=len(event.objects))
        match kind:
            case resources.SERVICES.name:
                cluster.replace_services(event.objects)
            case resources.ENDPOINT_SLICES.name:
                self._note_trigger_times(((s,) for s in event.objects), event.triggered_s)
                cluster.replace_slices(event.objects)
            case resources.ENDPOINTS.name:
                self._note_trigger_times(event.objects, event.triggered_s)
                cluster.replace_slices(itertools.chain.from_iterable(event.objects))
            case resources.SERVICE_CIDRS.name:
                self._parts.service_networks.replace(event.objects)
            case _:
                self._set_node(event.objects[0] if event.objects else None)
        self._count(kind, len(event.objects))
        self._missing -= _SOURCES if kind in _SOURCES else {kind}
        if kind in _SOURCES:
            self._source = kind

    def _changed(self, event: Changed) -> None:
        cluster, kind = self._parts.cluster, event.resource.name
        match kind:
            case resources.SERVICES.name:
                cluster.set_service(event.object)
            case resources.ENDPOINT_SLICES.name:
                if cluster.set_slice(event.object):
                    s = event.object
                    self._latency.note(s.service, s.family, event.triggered_s)
            case resources.ENDPOINTS.name:
                if cluster.set_slices(event.key, event.object):
                    for family in {s.family for s in event.object}:
                        self._latency.note(event.key, family, event.triggered_s)
            case resources.SERVICE_CIDRS.name:
                self._parts.service_networks.set(event.object)
            case _:
                self._set_node(event.object)
        self._count(kind, 1)

    def _deleted(self, event: Deleted) -> None:
        cluster, kind = self._parts.cluster, event.resource.name
        match kind:
            case resources.SERVICES.name:
                cluster.delete_service(event.key)
            case resources.ENDPOINT_SLICES.name:
                service = cluster.delete_slice(event.key)
                if service is not None:
                    self._latency.forget(service)
            case resources.ENDPOINTS.name:
                cluster.set_slices(event.key, ())
                self._latency.forget(event.key)
            case resources.SERVICE_CIDRS.name:
                self._parts.service_networks.delete(event.key)
            case _:
                self._set_node(None)
        self._count(kind, 1)

    def _note_trigger_times(
        self, listed: Iterable[tuple[EndpointSlice, ...]], triggered_s: tuple[float, ...]
    ) -> None:
        for slices, moment in zip(listed, triggered_s, strict=False):
            for s in slices[:1]:
                if self._parts.cluster.differs(s):
                    self._latency.note(s.service, s.family, moment)

    def _set_node(self, node: Node | None) -> None:
        """Without a Node object we go on with what we last knew of it: addresses and zone do not
        change because somebody deleted the object."""
        if node is None:
            if not self._node_known:
                self._parts.log.warning("the Node does not exist yet", node=self._node.name)
            return
        self._node_known = True
        self._node = node
        self._parts.attachments.apply(self._look_around())

    def _look_around(self) -> roles.NetworkView:
        """Interfaces and addresses as they are now; the cluster's plans follow from the latter."""
        node, view = here.look(
            self._config, self._node, self._facts, self._server, known=self._node_known
        )
        self._primary, self._pod_networks = view.primary, view.pod_networks or ()
        for sentence in sorted(set(view.unserved).difference(self._unserved)):
            self._parts.log.warning("interface not served", problem=sentence)
        self._unserved = view.unserved
        self._parts.cluster.set_node(node)
        return view

    def _count(self, kind: str, number: int) -> None:
        self._parts.metrics.changed(
            services=number * (kind == resources.SERVICES.name),
            endpoints=number * (kind in _SOURCES),
        )

    # what follows from them

    def _wait_s(self) -> float:
        now = self._clock()
        wait_s = self._housekeeping_at - now
        if self._dirty and not self._missing:
            wait_s = min(wait_s, self._not_before - now)
        return max(wait_s, 0)

    def _sync_if_due(self) -> None:
        if self._missing:
            self._inbox.settled()  # what waits is the API server's to send
            return
        if self._dirty and self._clock() >= self._not_before and not self._stopping:
            self._sync(self._parts.cluster.take_changes())
            self._parts.metrics.settled()
            self._dirty = False
            self._not_before = self._clock() + SYNC_INTERVAL_S
            self._inbox.settled()

    def _sync(self, keys: list[ObjectKey]) -> None:
        programmer = self._parts.programmer
        began, writes = self._clock(), programmer.writes
        for key in keys:
            if self._stopping:
                return
            self._program(key)
        programmer.remove_unwanted()
        first = not self.complete
        if first:
            self._complete()
        self._parts.health_checks.apply()
        # not before the Services: what has an address in these networks must be known
        self._parts.service_networks.apply(
            (*self._primary, *self._parts.cluster.reserved_addresses), self._pod_networks
        )
        self._latency.programmed()
        self.complete = True  # not before programs run and guards stand: /healthz says so
        written = programmer.writes - writes
        if written:
            programmer.note_changes()
        elapsed_s = self._clock() - began
        if keys:
            self._parts.metrics.synced(elapsed_s, full=first)
        tell = self._parts.log.info if first else self._parts.log.debug
        if keys or first:
            tell("synced", services=len(keys), writes=written, seconds=round(elapsed_s, 4))

    # rule: CP-6
    def _program(self, key: ObjectKey) -> None:
        cluster, programmer, log = self._parts.cluster, self._parts.programmer, self._parts.log
        try:
            forwardings = cluster.plan(key)
            conflicts = cluster.problems(key)
            self._parts.health_checks.set(key, cluster.health_checks(key))
            programmer.program(key, forwardings, cluster.priority(key))
        except Exception as error:  # a mistake of ours about one Service is not the others' loss
            log.exception("internal error", service=str(key))
            programmer.fail(key, f"internal error: {error!r}")
            return
        self._parts.conflicts.set(key, conflicts)

    # rule: CP-1
    def _complete(self) -> None:
        """Every Service is in the maps: whatever else is in them is gone from the cluster."""
        self._parts.programmer.retain()
        if self._attach_late:
            self._parts.attachments.begin(self._look_around())
        self._when_complete()
        self._take_over()

    def _take_over(self) -> None:
        """An interface that took none of our programs may run an older build's still."""
        if not self._everywhere and not self._parts.attachments.failed:
            self._everywhere = True
            self._when_everywhere()

    def _keep_house_if_due(self) -> None:
        now = self._clock()
        if now < self._housekeeping_at or self._stopping:
            return
        self._housekeeping_at = now + HOUSEKEEPING_INTERVAL_S
        programmer, attachments = self._parts.programmer, self._parts.attachments
        programmer.housekeeping()
        for key in self._parts.cluster.take_misinformed(MISINFORMED_A_SECOND):
            self._parts.conflicts.correct(key, self._parts.cluster.problems(key))
        self._parts.sweep()
        if attachments.failed:
            attachments.retry()
        attachments.restore()
        if self.complete:
            self._take_over()
        for one in (self._parts.contact, *self._parts.checks):
            one.check()
        if self._parts.health_checks.failed:
            self._parts.health_checks.retry()
        if self.complete:
            self._parts.end_stale_flows()
            self._parts.stale_sockets.check()
        again = programmer.to_retry() if self.complete else []
        if again:
            self._sync(sorted(again, key=self._parts.cluster.priority))
        verifier = self._parts.verifier
        if verifier is not None and self.complete and not self._dirty and verifier.check():
            self._write_again()

    # rule: CP-2
    def _write_again(self) -> None:
        """Somebody changed the maps: they are read back, and what differs is written."""
        cluster, programmer = self._parts.cluster, self._parts.programmer
        try:
            programmer.start_over()
        except OSError as error:
            self._parts.log.error("the maps cannot be read back", error=error.strerror)
            return
        self._sync(sorted(cluster.keys(), key=cluster.priority))
        programmer.retain()

    # for people

    @property
    def hook_problems(self) -> list[str]:
        """What others did at our hooks. Another thread may ask."""
        found = [one.problem for one in self._parts.checks if one.problem]
        return found + self._parts.attachments.ahead

    def status(self) -> dict[str, Any]:
        """What is well and what is not, as data. Another thread may ask."""
        programmer = self._parts.programmer
        return {
            "complete": self.complete,
            "waitingFor": sorted(self._missing),
            "endpointsSource": self._source,
            "apiServerProblem": self._parts.contact.problem,
            "services": programmer.services,
            "notProgrammed": programmer.refused.sentences(),
            "conflicts": self._parts.conflicts.sentences(),
            "staleSocketProblem": self._parts.stale_sockets.problem,
            "mapProblems": self._map_problems,
            "hookProblems": self.hook_problems,
            "serviceNetworkProblems": list(self._parts.service_networks.problems),
            "interfaces": self._parts.attachments.attached(Role.POD),
            "uplinks": self._parts.attachments.attached(Role.UPLINK),
            "xdp": self._parts.xdp.status(),
            "interfaceProblems": sorted(
                {
                    *self._parts.attachments.failed.values(),
                    *self._parts.xdp.problems,
                    *self._unserved,
                }
            ),
            "healthCheckProblems": sorted(
                f"{key}: {text}" for key, text in list(self._parts.health_checks.failed.items())
            ),
        }
