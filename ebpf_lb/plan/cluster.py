"""What we know of the cluster, and the plan that follows from it. No I/O.

The rule: a plan is a function of what is known now, never of the order in which it became known.
Work per change does not grow with the cluster: a change marks the Services whose plan it can alter
(its own, and those that claim an address of it), and only these are planned again.
"""

from collections.abc import Iterable

from ebpf_lb.model.endpoints import EndpointSlice
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service import Algorithm, Service
from ebpf_lb.model.values import Family
from ebpf_lb.plan.clash import Claim, Place, claims, lost, sentence
from ebpf_lb.plan.forwarding import Forwarding, Frontend, FrontendFlag, ServicePortName
from ebpf_lb.plan.frontends import source_ranges, uses_cluster, uses_local
from ebpf_lb.plan.health import HealthCheck, health_check
from ebpf_lb.plan.node import NodeView
from ebpf_lb.plan.spread import NO_TABLES, Tables, by_table, tables
from ebpf_lb.plan.usable import NOTHING, Usable, places, plain, usable

__all__ = ["Cluster", "NodeView"]


class Cluster:
    """`algorithm`: of Services that name none."""

    def __init__(self, node: NodeView, algorithm: Algorithm = Algorithm.RANDOM) -> None:
        self._node = node
        self._algorithm = algorithm
        self._services: dict[ObjectKey, Service] = {}
        self._slices: dict[ObjectKey, EndpointSlice] = {}
        self._slices_of: dict[ObjectKey, tuple[EndpointSlice, ...]] = {}
        # who asks for a place: nearly always one Service, and then its places share one tuple
        self._claimants: dict[Place, tuple[ObjectKey, ...]] = {}
        self._changed: dict[ObjectKey, None] = {}

    # what is known

    def set_service(self, service: Service) -> None:
        old = self._services.get(service.key)
        if old == service:
            return
        self._reclaim(service.key, self._claims(old), claims(service, self._node))
        self._services[service.key] = service
        self._changed[service.key] = None

    def delete_service(self, key: ObjectKey) -> None:
        old = self._services.pop(key, None)
        if old is not None:
            self._reclaim(key, self._claims(old), {})
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
        old = self._node
        if old == node:
            return
        for key, service in self._services.items():
            if not self._depends(service, old, node):
                continue
            before = claims(service, old)
            self._reclaim(key, before, claims(service, node))
            self._changed[key] = None
        self._node = node

    # what follows

    def take_changes(self) -> list[ObjectKey]:
        """The Services to plan again since the last call, each of them once."""
        changed = list(self._changed)
        self._changed.clear()
        return changed

    def keys(self) -> Iterable[ObjectKey]:
        """Every Service there is, ours or not."""
        return self._services.keys()

    def plan(self, key: ObjectKey) -> tuple[Forwarding, ...]:
        """One Forwarding for every port and family that has a frontend, sorted; () when the
        Service is gone or not ours."""
        service = self._services.get(key)
        own = self._claims(service)
        if service is None or not own:
            return ()
        given_away = self._lost(key, own)
        granted: dict[tuple[str, Family], list[Claim]] = {}
        for place, claim in own.items():
            if place not in given_away:
                granted.setdefault((claim.port, claim.family), []).append(claim)
        # both families of a port share its name: those who keep it keep one
        ports = {claims[0].service_port for claims in granted.values()}
        names = {port: ServicePortName(*key, port.name, port.protocol) for port in ports}
        forwardings = [
            self._forwarding(service, names[claims[0].service_port], claims)
            for claims in granted.values()
        ]
        return tuple(sorted(forwardings, key=lambda f: (f.name, f.family)))

    def problems(self, key: ObjectKey) -> list[str]:
        """What this Service asks for and does not get, one sentence each."""
        own = self._claims(self._services.get(key))
        return [
            sentence(place, key, winner) for place, winner in sorted(self._lost(key, own).items())
        ]

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
        frontends: list[Frontend] = sorted(
            (claim.frontend for claim in granted), key=lambda f: (f.address, f.port)
        )
        guarded = any(f.flags & FrontendFlag.SOURCE_RANGES for f in frontends)
        found = self._usable(service, granted[0])
        spread = self._tables(service, granted[0], found)
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

    def _tables(self, service: Service, claim: Claim, found: Usable) -> Tables:
        if not by_table(service, self._algorithm):
            return NO_TABLES
        port, slices = claim.service_port, self._slices_in(service, claim.family)
        known = places(slices, port.name, port.protocol, self._node.name)
        return tables(service, known, found, self._node.name)

    def _slices_in(self, service: Service, family: Family) -> list[EndpointSlice]:
        return [s for s in self._slices_of.get(service.key, ()) if s.family is family]

    # who asks for what

    def _claims(self, service: Service | None) -> dict[Place, Claim]:
        return claims(service, self._node) if service is not None else {}

    def _lost(self, key: ObjectKey, own: dict[Place, Claim]) -> dict[Place, Claim]:
        rivals = {
            place: [self._services[rival] for rival in self._claimants[place] if rival != key]
            for place in own
            if len(self._claimants[place]) > 1
        }
        return lost(own, rivals, self._node) if rivals else {}

    def _reclaim(
        self, key: ObjectKey, before: dict[Place, Claim], after: dict[Place, Claim]
    ) -> None:
        """Note what a Service asks for now, and mark whoever asks for the same."""
        alone = (key,)
        for place in before.keys() | after.keys():
            rivals = tuple(rival for rival in self._claimants.get(place, ()) if rival != key)
            for rival in rivals:
                self._changed[rival] = None
            claimants = (*rivals, key) if place in after and rivals else rivals
            if place in after and not rivals:
                claimants = alone
            if claimants:
                self._claimants[place] = claimants
            else:
                self._claimants.pop(place, None)

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
