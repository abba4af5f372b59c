"""What we know of the cluster, and the plan that follows from it. No I/O.

The rule: a plan is a function of what is known now, never of the order in which it became known.
Work per change does not grow with the cluster: a change marks the Services whose plan it can alter
(its own, and those that win or lose a frontend by it: `Owners`), and only these are planned again.
"""

from collections.abc import Collection, Iterable

from ebpf_lb.model.endpoints import EndpointSlice
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service import Algorithm, Service
from ebpf_lb.model.values import Family
from ebpf_lb.plan.claims import Claim, Claims, FrontendKey, Reservations, claims
from ebpf_lb.plan.conflicts import sentences
from ebpf_lb.plan.forwarding import Forwarding, Frontend, FrontendFlag, ServicePortName
from ebpf_lb.plan.frontends import reaches, source_ranges, uses_cluster, uses_local
from ebpf_lb.plan.health import HealthCheck, health_check
from ebpf_lb.plan.node import NodeView
from ebpf_lb.plan.owners import Owners
from ebpf_lb.plan.priority import DEFAULT_CRITICAL, Priority, priority
from ebpf_lb.plan.reserved import API_SERVER, KUBERNETES
from ebpf_lb.plan.spread import NO_TABLES, Tables, algorithm_of, needs_tables, tables
from ebpf_lb.plan.usable import NOTHING, Usable, places, plain, usable

__all__ = ["Cluster", "NodeView"]


_GONE = Priority(
    0, 0, ObjectKey("", "")
)  # what a Service leaves behind may be what others wait for


class Cluster:
    """`algorithm`: of Services that name none. `critical`: those that come first."""

    def __init__(
        self,
        node: NodeView,
        algorithm: Algorithm = Algorithm.RANDOM,
        critical: Collection[ObjectKey] = DEFAULT_CRITICAL,
    ) -> None:
        self._node = node
        self._reservations = Reservations(node.reserved)
        self._algorithm = algorithm
        self._critical = critical
        self._services: dict[ObjectKey, Service] = {}
        self._slices: dict[ObjectKey, EndpointSlice] = {}
        self._slices_of: dict[ObjectKey, tuple[EndpointSlice, ...]] = {}
        self._owners = Owners()
        # what the Service that was planned last asks for: its problems follow from the same
        self._planned: tuple[Service, Claims] | None = None
        self._changed: dict[ObjectKey, None] = {}

    # what is known

    def set_service(self, service: Service) -> None:
        old = self._services.get(service.key)
        if old == service:
            return
        self._planned = None
        self._reclaim(self._wanted(old), self._claims(service).wanted)
        self._services[service.key] = service
        self._changed[service.key] = None

    def delete_service(self, key: ObjectKey) -> None:
        old = self._services.pop(key, None)
        if old is not None:
            self._planned = None
            self._reclaim(self._wanted(old), {})
            self._changed[key] = None

    def set_slice(self, s: EndpointSlice) -> bool:
        """Whether it is other than what was known."""
        old = self._slices.get(s.key)
        if old == s:
            return False
        if old is not None:
            self._detach(old)
        self._slices[s.key] = s
        self._slices_of[s.service] = (*self._slices_of.get(s.service, ()), s)
        self._mark(s.service)
        return True

    def delete_slice(self, key: ObjectKey) -> ObjectKey | None:
        """The Service that it belonged to; None if there was no such slice."""
        old = self._slices.pop(key, None)
        if old is None:
            return None
        self._detach(old)
        return old.service

    def set_slices(self, service: ObjectKey, slices: Iterable[EndpointSlice]) -> bool:
        """All slices of one Service, as an Endpoints object states them; () when it is gone.
        Whether they are other than what was known."""
        present = {s.key: s for s in slices}
        changed = False
        for old in self._slices_of.get(service, ()):
            if old.key not in present:
                self.delete_slice(old.key)
                changed = True
        for s in present.values():
            changed |= self.set_slice(s)
        return changed

    def differs(self, s: EndpointSlice) -> bool:
        """Whether it is other than what is known."""
        return self._slices.get(s.key) != s

    def replace_services(self, services: Iterable[Service]) -> None:
        """A complete list: what is absent is gone."""
        present = {service.key: service for service in services}
        for key in self._services.keys() - present.keys():
            self.delete_service(key)
        for service in present.values():
            self.set_service(service)

    def replace_slices(self, slices: Iterable[EndpointSlice]) -> None:
        """A complete list: what is absent is gone."""
        present = {s.key: s for s in slices}
        for key in self._slices.keys() - present.keys():
            self.delete_slice(key)
        for s in present.values():
            self.set_slice(s)

    def set_node(self, node: NodeView) -> None:
        """Marks those Services alone whose plan can change by it."""
        old, new = self._node, node
        if old == new:
            return
        self._planned = None
        reserved = old.reserved ^ new.reserved
        before, after = self._reservations, Reservations(new.reserved)
        for key, service in self._services.items():
            if self._depends(service, old, new) or (reserved and reaches(service, reserved, new)):
                was, will_be = claims(service, old, before), claims(service, new, after)
                self._reclaim(was.wanted, will_be.wanted)
                self._changed[key] = None
        self._node, self._reservations = new, after

    # what follows

    @property
    def reserved_addresses(self) -> frozenset[bytes]:
        """Where the API server is, as far as that is not a Service's."""
        own = self._services.get(KUBERNETES)
        cluster_ips = own.cluster_ips if own is not None else ()
        servers = {one.address for one in self._node.reserved if one.what == API_SERVER}
        return frozenset(servers.difference(cluster_ips))

    def priority(self, key: ObjectKey) -> Priority:
        """Who comes first where not all can be at once, or at all."""
        service = self._services.get(key)
        return priority(service, self._critical) if service is not None else _GONE

    def take_changes(self) -> list[ObjectKey]:
        """The Services to plan again since the last call, each of them once, in the order of their
        priorities."""
        changed = sorted(self._changed, key=self.priority)
        self._changed.clear()
        return changed

    def keys(self) -> Iterable[ObjectKey]:
        """Every Service there is, ours or not."""
        return self._services.keys()

    def plan(self, key: ObjectKey) -> tuple[Forwarding, ...]:
        """One Forwarding for every port and family that has a frontend, sorted; () when the
        Service is gone or not ours."""
        self._planned = None
        service = self._services.get(key)
        if service is None:
            return ()
        found = self._claims(service)
        self._planned, own = (service, found), found.wanted
        granted: dict[tuple[str, Family], list[Claim]] = {}
        for at, claim in own.items():
            if self._owners.owns(at, claim):
                granted.setdefault((claim.service_port.name, claim.family), []).append(claim)
        # both families of a port share its name: those who keep it keep one
        ports = {claims[0].service_port for claims in granted.values()}
        names = {port: ServicePortName(*key, port.name, port.protocol) for port in ports}
        forwardings = [
            self._forwarding(service, names[claims[0].service_port], claims)
            for claims in granted.values()
        ]
        return tuple(sorted(forwardings, key=lambda f: (f.name, f.family)))

    def problems(self, key: ObjectKey) -> list[str]:
        """What this Service asks for and does not get: a few sentences."""
        service = self._services.get(key)
        if service is None:
            return []
        known, self._planned = self._planned, None
        own = known[1] if known is not None and known[0] is service else self._claims(service)
        owners = self._owners
        lost = {
            at: owners.owner(at) for at, claim in own.wanted.items() if not owners.owns(at, claim)
        }
        return sentences(key, own.barred, lost)

    def take_misinformed(self, limit: int) -> list[ObjectKey]:
        """Services whose `problems` read otherwise now, though nothing changed of their plans."""
        return self._owners.take_misinformed(limit)

    def health_checks(self, key: ObjectKey) -> tuple[HealthCheck, ...]:
        """What to answer on the Service's healthCheckNodePort; () when it has none."""
        service = self._services.get(key)
        if service is None:
            return ()
        return health_check(service, self._slices_of.get(key, ()), self._node.name)

    def _forwarding(
        self, service: Service, name: ServicePortName, granted: list[Claim]
    ) -> Forwarding:
        family = granted[0].family
        # a port's are told apart by address and port
        frontends: list[Frontend] = sorted([claim.frontend for claim in granted])
        algorithm = algorithm_of(service, self._algorithm)
        if algorithm is Algorithm.MAGLEV:
            frontends = [
                frontend._replace(flags=frontend.flags | FrontendFlag.CONSISTENT)
                for frontend in frontends
            ]
        guarded = service.source_ranges is not None and any(
            f.flags & FrontendFlag.SOURCE_RANGES for f in frontends
        )
        found = self._usable(service, granted[0])
        spread = self._tables(service, algorithm, granted[0], found)
        return Forwarding(
            name=name,
            family=family,
            frontends=tuple(frontends),
            cluster=found.cluster,
            local=found.local,
            has_any=found.has_any,
            affinity_timeout_s=service.affinity_timeout_s,
            source_ranges=source_ranges(service, family, self._node) if guarded else (),
            cluster_table=spread.cluster,
            local_table=spread.local,
            algorithm=algorithm,
        )

    def _usable(self, service: Service, claim: Claim) -> Usable:
        port, family, node = claim.service_port, claim.family, self._node
        slices = self._slices_in(service, family)
        if not slices:
            return NOTHING
        in_cluster = uses_cluster(service, port, family)
        on_node = uses_local(service, port, family)
        all_ready = plain(slices, port.name, port.protocol, node.name)
        if all_ready is not None:
            local = tuple([backend for backend in all_ready if backend.local]) if on_node else ()
            return Usable(all_ready if in_cluster else (), local, bool(all_ready))
        return usable(
            places(slices, port.name, port.protocol, node.name),
            node.name,
            node.zone,
            uses_cluster=in_cluster,
            uses_local=on_node,
        )

    def _tables(
        self, service: Service, algorithm: Algorithm, claim: Claim, found: Usable
    ) -> Tables:
        if not needs_tables(service, algorithm):
            return NO_TABLES
        port, slices = claim.service_port, self._slices_in(service, claim.family)
        known = places(slices, port.name, port.protocol, self._node.name)
        return tables(service, algorithm, known, found, self._node.name)

    def _slices_in(self, service: Service, family: Family) -> list[EndpointSlice]:
        return [s for s in self._slices_of.get(service.key, ()) if s.family is family]

    # who asks for what

    def _claims(self, service: Service) -> Claims:
        return claims(service, self._node, self._reservations)

    def _wanted(self, service: Service | None) -> dict[FrontendKey, Claim]:
        return self._claims(service).wanted if service is not None else {}

    def _reclaim(self, before: dict[FrontendKey, Claim], after: dict[FrontendKey, Claim]) -> None:
        """Note what a Service asks for now, and mark who wins or loses something by it."""
        self._changed.update(dict.fromkeys(self._owners.replace(before, after)))

    def _depends(self, service: Service, old: NodeView, new: NodeView) -> bool:
        """Whether the plan of a Service can differ between two states of this node."""
        if old.name != new.name:
            return True
        if old.nodeport_addresses != new.nodeport_addresses and any(
            port.node_port for port in service.ports
        ):
            return True
        if old.addresses != new.addresses and service.source_ranges and service.load_balancer:
            return True
        return old.zone != new.zone and any(
            hint.zones for s in self._slices_of.get(service.key, ()) for hint in s.hints
        )

    def _detach(self, s: EndpointSlice) -> None:
        left = tuple(other for other in self._slices_of[s.service] if other.key != s.key)
        if left:
            self._slices_of[s.service] = left
        else:
            del self._slices_of[s.service]
        self._mark(s.service)

    def _mark(self, service: ObjectKey) -> None:
        if service in self._services:
            self._changed[service] = None
