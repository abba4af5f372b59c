"""Parts that write down what is asked of them, and a clock that stands until it is turned."""

import builtins
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import nullcontext
from typing import Any

from ebpf_lb.agent.config import Config
from ebpf_lb.agent.inbox import Inbox
from ebpf_lb.agent.loop import Loop, Parts
from ebpf_lb.agent.metrics.counters import Metrics
from ebpf_lb.agent.network.attachments import Attachments, SourceNumbers
from ebpf_lb.agent.network.roles import Address, Facts, Link
from ebpf_lb.agent.network.xdp import XdpUplinks
from ebpf_lb.agent.programming.conflicts import Conflicts
from ebpf_lb.agent.programming.node_tables import NodeTables
from ebpf_lb.agent.programming.programmer import Programmer
from ebpf_lb.agent.programming.service_networks import ServiceNetworks
from ebpf_lb.agent.programming.verifier import Plan, Verifier
from ebpf_lb.agent.upkeep.contact import Contact
from ebpf_lb.agent.upkeep.stale_sockets import StaleSockets, Translated
from ebpf_lb.datapath.attach.errors import AttachError
from ebpf_lb.datapath.attach.tcx import Foreign
from ebpf_lb.datapath.attach.xdp import Mode, XdpRefusedError
from ebpf_lb.datapath.sock_diag import UdpSocket
from ebpf_lb.datapath.writer import NODE_SOURCE_ID, NotProgrammed
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Family, Network, parse_address
from ebpf_lb.plan.cluster import Cluster, NodeView
from ebpf_lb.plan.forwarding import Forwarding, ServicePortName
from ebpf_lb.plan.health import HealthCheck
from ebpf_lb.plan.reserved import Reserved
from ebpf_lb.plan.room import Demand, demands

NODE4 = parse_address("172.30.0.11")
ETH0 = Link(2, "eth0", "", 0, False)
CNI0 = Link(3, "cni0", "bridge", 0, False)
VETH4 = Link(4, "veth4", "veth", 3, True)
VETH5 = Link(5, "veth5", "veth", 3, True)
POD4 = parse_address("10.244.1.1")


def facts(*links: Link, more: tuple[Address, ...] = ()) -> Facts:
    """A node with an uplink, a bridge and these."""
    addresses = (Address(2, NODE4, 0), Address(3, POD4, 0), *more)
    known = {link.index: link for link in (ETH0, CNI0, *links)}
    return Facts(known, addresses, frozenset({(Family.IPV4, 2)}))


REST_S = 100.0
EPOCH_S = 1_800_000_000.0  # what the wall's clock adds to ours


class Clock:
    """Seconds, turned by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Log:
    """Lines of a log: event and fields."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: self.lines.append((level, event, fields))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for _, name, fields in self.lines if name == event]


class Writer:
    """A family's maps: holds Forwardings, has room for so many, and can be made to fail."""

    def __init__(self, family: Family, held: Collection[Forwarding] = ()) -> None:
        self.family = family
        self.held = {forwarding.name: forwarding for forwarding in held}
        self.room = 1000
        self.capacity = Demand(1000, 1000, 1000, 1000, 1000)
        self.stats: Counter[str] = Counter()
        self.calls: list[str] = []
        self.entries: dict[int, tuple[int, int]] = {}
        self.with_peers: frozenset[int] = frozenset()
        self.macs: dict[int, bytes] = {}
        self.sources: dict[int, bytes] = {}
        self.pod_networks: builtins.set[Network] = builtins.set()
        self.service_networks: tuple[Network, ...] = ()
        self.udp_departures = 0
        self.served: dict[int, builtins.set[tuple[bytes, int]]] = {}
        self.broken: builtins.set[ServicePortName] = builtins.set()

    def set(self, forwarding: Forwarding) -> None:
        name = forwarding.name
        full = name not in self.held and len(self.held) >= self.room
        if full or name in self.broken:
            self.calls.append(f"refuse {name}")
            raise NotProgrammed(name, self.family, "no room")
        if self.held.get(name) != forwarding:
            self.held[name] = forwarding
            self.stats["services"] += 1
            self.calls.append(f"set {name}")

    def set_all(self, forwardings: Iterable[Forwarding]) -> list[NotProgrammed]:
        refused = []
        for forwarding in forwardings:
            try:
                self.set(forwarding)
            except NotProgrammed as error:
                refused.append(error)
        return refused

    def delete(self, name: ServicePortName) -> None:
        if name in self.broken:
            self.calls.append(f"refuse {name}")
            raise NotProgrammed(name, self.family, "removing: input/output error")
        if self.held.pop(name, None):
            self.stats["services"] += 1
            self.calls.append(f"delete {name}")

    def names(self) -> list[ServicePortName]:
        return list(self.held)

    def adopt_again(self) -> None:
        self.calls.append("adopt")

    def service_id(self, name: ServicePortName) -> int | None:
        return list(self.held).index(name) + 1 if name in self.held else None

    def frontend_counts(self) -> dict[int, int]:
        held = enumerate(self.held.values(), 1)
        return {number: len(forwarding.frontends) for number, forwarding in held}

    def retain(self, names: Collection[ServicePortName]) -> None:
        self.calls.append("retain")
        for name in [name for name in self.held if name not in names]:
            self.delete(name)

    def housekeeping(self, now: float) -> None:
        pass

    def occupancy(self) -> dict[str, int]:
        return {"services": len(self.held)}

    def capacities(self) -> Demand:
        return self.capacity

    def demand_of(self, name: ServicePortName) -> Demand | None:
        return demands([self.held[name]])[0] if name in self.held else None

    def set_interface(
        self,
        ifindex: int,
        bridge: int = 0,
        source_id: int = 0,
        mac: bytes = bytes(6),
        peer: bool = False,
    ) -> None:
        self.calls.append(f"interface {ifindex}")
        self.macs[ifindex] = mac
        self.with_peers = self.with_peers | {ifindex} if peer else self.with_peers - {ifindex}
        if self.entries.get(ifindex) != (bridge, source_id):
            self.entries[ifindex] = (bridge, source_id)
            self.stats["interfaces"] += 1

    def delete_interface(self, ifindex: int) -> None:
        if self.entries.pop(ifindex, None):
            self.stats["interfaces"] += 1

    def interfaces(self) -> "builtins.set[int]":
        return builtins.set(self.entries)

    def set_pod_networks(self, networks: Iterable[Network]) -> None:
        wanted = builtins.set(networks)
        self.stats["pod_networks"] += len(wanted ^ self.pod_networks)
        self.pod_networks = wanted

    def serving(self, service_id: int) -> "builtins.set[tuple[bytes, int]]":
        return self.served.get(service_id, builtins.set())

    def set_service_networks(self, networks: Iterable[Network]) -> tuple[Network, ...]:
        wanted = tuple(networks)
        self.stats["service_networks"] += wanted != self.service_networks
        self.service_networks = wanted[:2]
        return wanted[2:]

    def set_snat_source(self, source_id: int, address: bytes) -> None:
        if self.sources.get(source_id) != address:
            self.sources[source_id] = address
            self.stats["snat_sources"] += 1

    def clear_snat_source(self, source_id: int) -> None:
        if self.sources.pop(source_id, None):
            self.stats["snat_sources"] += 1


class Compared:
    """The maps as a verifier reads them: what the writer has written, but for what is `lost`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.lost: dict[str, str] = {}
        self.more: Counter[int] = Counter()
        self.work_s = 0.0
        self.asked: list[str] = []

    def differences(self, number: int | None, wanted: Forwarding) -> list[str]:
        self.asked.append(str(wanted.name))
        self.work_s += 0.002
        if self._writer.held.get(wanted.name) != wanted:
            return ["it is not in the maps"]
        return [self.lost[str(wanted.name)]] if str(wanted.name) in self.lost else []

    def frontend_counts(self) -> Counter[int]:
        return Counter(self._writer.frontend_counts()) + self.more


class Control:
    """TC hooks."""

    def __init__(self, order: list[str]) -> None:
        self.calls = order
        self.gone: set[int] = set()
        self.refusing: set[int] = set()
        self.foreign: list[Foreign] = []
        self.unheard: set[int] = set()
        self.lost: dict[int, list[str]] = {}
        self.looks: list[int] = []

    def attach(self, ifindex: int, role: str = "pod") -> bool:
        if ifindex in self.refusing:
            raise AttachError(f"Cannot attach to {ifindex}.")
        if ifindex in self.gone:
            return False
        self.lost.pop(ifindex, None)
        self.calls.append(f"attach {role} {ifindex}")
        return True

    def detach(self, ifindex: int) -> int:
        self.calls.append(f"detach {ifindex}")
        return 4

    def missing(self, ifindex: int, role: str = "pod") -> list[str]:
        self.looks.append(ifindex)
        return self.lost.get(ifindex, [])

    def disturbed(self, interfaces: Iterable[int]) -> set[int]:
        found, self.unheard = self.unheard & set(interfaces), set()
        return found

    def ahead_of_us(self, ifindex: int) -> list[Foreign]:
        return self.foreign


class Xdp:
    """XDP hooks. `foreign`: interfaces with somebody else's program; `incapable`: whose driver has
    no native mode."""

    def __init__(self, order: list[str] | None = None) -> None:
        self.calls = [] if order is None else order
        self.on: dict[int, str] = {}
        self.foreign: set[int] = set()
        self.incapable: set[int] = set()
        self.gone: set[int] = set()

    def attach(self, ifindex: int, mode: Mode) -> bool:
        if ifindex in self.gone:
            return False
        if ifindex in self.foreign or (ifindex in self.incapable and mode is Mode.NATIVE):
            self.on.pop(ifindex, None)
            raise XdpRefusedError(f"No {mode.value} XDP on {ifindex}.")
        if self.on.get(ifindex) != mode.value:
            self.on[ifindex] = mode.value
            self.calls.append(f"xdp {mode.value} {ifindex}")
        return True

    def detach(self, ifindex: int) -> int:
        there = self.on.pop(ifindex, None)
        if there:
            self.calls.append(f"xdp off {ifindex}")
        return int(there is not None)

    def holds(self, ifindex: int) -> bool:
        return ifindex in self.on

    def ours(self) -> list[int]:
        return list(self.on)


class HealthChecks:
    """Ports of health checks, as planned and as applied."""

    def __init__(self) -> None:
        self.planned: dict[ObjectKey, HealthCheck] = {}
        self.served: dict[ObjectKey, HealthCheck] = {}
        self.failed: dict[ObjectKey, str] = {}
        self.retries = 0

    def set(self, key: ObjectKey, checks: tuple[HealthCheck, ...]) -> None:
        self.planned.pop(key, None)
        self.planned.update((check.service, check) for check in checks)

    def apply(self) -> None:
        self.served = dict(self.planned)

    def retry(self) -> None:
        self.retries += 1


class Diag:
    """Connected UDP sockets."""

    def __init__(self) -> None:
        self.sockets: list[UdpSocket] = []
        self.destroyed: list[UdpSocket] = []
        self.listings = 0
        self.error: OSError | None = None

    def connected_udp(self) -> list[UdpSocket]:
        self.listings += 1
        if self.error:
            raise self.error
        return list(self.sockets)

    def destroy(self, found: UdpSocket) -> bool:
        self.destroyed.append(found)
        self.sockets.remove(found)
        return True


class Agent:
    """A loop with such parts. IPv4 alone, so that expectations stay short."""

    def __init__(
        self,
        writer: Writer | None = None,
        *,
        late: bool = False,
        xdp: Xdp | None = None,
        xdp_mode: str = "off",
        network: Facts | None = None,
        **configured: Any,
    ) -> None:
        self.clock, self.log = Clock(), Log()
        self.writer = writer or Writer(Family.IPV4)
        self.writer.calls.clear()
        self.writer.stats.clear()
        self.control = Control(self.writer.calls)
        self.xdp = xdp or Xdp()
        self.xdp.calls = self.writer.calls
        config = Config(node_name="node1", xdp=xdp_mode, **configured)
        uplinks = XdpUplinks(self.xdp, config.xdp, self.log)
        writers = {Family.IPV4: self.writer}
        numbers = {Family.IPV4: SourceNumbers(self.writer.sources, self.clock, REST_S)}
        self.reports: list[tuple[ObjectKey, str]] = []
        self.programmer = Programmer(writers, self.clock, self.log, self._report)
        self.attachments = Attachments(self.control, uplinks, writers, numbers, self.log)
        self.cluster = Cluster(NodeView("node1", "", ()))
        self.health_checks = HealthChecks()
        self.inbox = Inbox(self.clock)
        self.taken_over = 0
        self.invalid: list[tuple[ObjectKey, str]] = []
        self.vacated: list[frozenset[Reserved]] = []
        self.metrics = Metrics()
        self.diag = Diag()
        self.translated: list[Translated] = []
        self.stale_sockets = StaleSockets(
            writers, lambda family: self.translated, lambda: nullcontext(self.diag), self.log
        )
        self.compared = Compared(self.writer)
        self.verifier = Verifier(
            Plan(self.cluster, self.programmer),
            {Family.IPV4: self.compared},
            self.log,
            config.sync_period_s,
            self.clock,
            lambda: self.compared.work_s,
        )
        self.service_networks = ServiceNetworks(writers, self.log)
        self.verifier.mend_node = NodeTables(
            writers, self.attachments.write_again, self.service_networks.write_again
        ).mend
        self.loop = Loop(
            config,
            Parts(
                self.cluster,
                self.programmer,
                Conflicts(self.log, self._report),
                self.attachments,
                uplinks,
                self.health_checks,
                self.service_networks,
                self.stale_sockets,
                Contact("https://192.0.2.1:6443", self.clock, self.log),
                self.metrics,
                self.log,
                report_invalid=lambda key, sentence: self.invalid.append((key, sentence)),
                vacate=lambda places: self.vacated.append(frozenset(places)),
                verifier=self.verifier,
            ),
            self.inbox,
            network or facts(VETH4),
            self.clock,
            wall_clock=lambda: EPOCH_S + self.clock.now,
            preferred=tuple(
                address
                for number, address in self.writer.sources.items()
                if number == NODE_SOURCE_ID
            ),
            attach_late=late,
            when_everywhere=self._take_over,
        )
        self.loop.begin()

    def _report(self, key: ObjectKey, sentence: str) -> None:
        self.reports.append((key, sentence))

    def _take_over(self) -> None:
        self.taken_over += 1

    @property
    def calls(self) -> list[str]:
        """What was done to Services since the last time."""
        words = ("set", "delete", "refuse", "retain")
        found = [call for call in self.writer.calls if call.split(" ")[0] in words]
        self.writer.calls.clear()
        return found

    def tell(self, *events: Any) -> None:
        """Events that come at once, a while after the last."""
        self.clock.now += 0.5
        self.tell_now(*events)

    def tell_now(self, *events: Any) -> None:
        for event in events:
            self.inbox.put(event)
        self.loop.step()

    def second(self, seconds: float = 1.0) -> None:
        """Time passes, and nothing happens."""
        self.clock.now += seconds
        self.loop.step()
