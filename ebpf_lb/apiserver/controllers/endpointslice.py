"""Service + Pods -> EndpointSlices: at most 100 endpoints each, as few changes as possible."""

from collections import defaultdict
from datetime import datetime
from typing import Any

from ebpf_lb.apiserver.controllers.base import Controller
from ebpf_lb.apiserver.controllers.endpoint_data import (
    ZONE_LABEL,
    PortSet,
    endpoints_by_ports,
    is_headless,
    selects,
)
from ebpf_lb.apiserver.controllers.pods import owner_of, owner_reference
from ebpf_lb.apiserver.kinds import ENDPOINT_SLICE, NODE, POD, SERVICE
from ebpf_lb.apiserver.registry import Registry
from ebpf_lb.apiserver.store import Change, Json, Stored

MAX_ENDPOINTS = 100
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
HEADLESS = "service.kubernetes.io/headless"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
_CONTROLLER = "endpointslice-controller.k8s.io"

Key = tuple[str, str]


class ServiceController(Controller):
    """A controller whose keys are Services, dirty when their pods change."""

    def __init__(self, registry: Registry) -> None:
        self._triggered: dict[Key, datetime] = {}
        super().__init__(registry)

    def observe(self, change: Change) -> None:
        subject = change.subject
        if subject.kind is SERVICE:
            self._trigger((subject.namespace, subject.name))
        elif subject.kind is POD:
            for service in self.store.objects(SERVICE, subject.namespace):
                if any(
                    pod is not None and selects(service, pod.labels)
                    for pod in (change.before, change.after)
                ):
                    self._trigger((service.namespace, service.name))

    def _trigger(self, key: Key) -> None:
        self._triggered.setdefault(key, self.registry.now())
        self.enqueue(key)

    def trigger_time(self, key: Key) -> str:
        """When the change came that is being followed (RFC 3339): clients measure from there."""
        moment = self._triggered.pop(key, None) or self.registry.now()
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def pods_of(self, service: Stored) -> list[Stored]:
        return [
            pod
            for pod in self.store.objects(POD, service.namespace)
            if selects(service, pod.labels)
        ]


class EndpointSliceController(ServiceController):
    def __init__(self, registry: Registry) -> None:
        self._slices: defaultdict[Key, set[str]] = defaultdict(set)  # names of ours, by Service
        super().__init__(registry)

    def observe(self, change: Change) -> None:
        super().observe(change)
        subject = change.subject
        if subject.kind is ENDPOINT_SLICE:
            self._index(change)
            if owner := owner_of(subject, SERVICE):  # someone may have meddled with it
                self.enqueue(owner)
        elif subject.kind is NODE and _zone(change.before) != _zone(change.after):
            for service in self.store.objects(SERVICE):
                self._trigger((service.namespace, service.name))

    def _index(self, change: Change) -> None:
        for stored, there in ((change.before, False), (change.after, True)):
            if stored is None or stored.labels.get(MANAGED_BY) != _CONTROLLER:
                continue
            names = self._slices[stored.namespace, stored.labels.get(SERVICE_NAME, "")]
            if there:
                names.add(stored.name)
            else:
                names.discard(stored.name)

    def reconcile(self, key: Key) -> None:
        service = self.store.get(SERVICE, *key)
        moment = self.trigger_time(key)
        if service is None or service.terminating:
            return  # its slices go with it: it owns them
        if not service.spec.get("selector") or service.spec["type"] == "ExternalName":
            return
        zones = {node.name: _zone(node) for node in self.store.objects(NODE)}
        pods = self.pods_of(service)
        mine = [
            self.registry.get(ENDPOINT_SLICE, service.namespace, name)
            for name in sorted(self._slices[key])
        ]
        families: list[str] = service.spec["ipFamilies"]
        for family in families:
            groups = endpoints_by_ports(service, pods, family, zones)
            slices = [s for s in mine if s.object["addressType"] == family]
            self._settle(service, family, groups or {(): []}, slices, moment)
        for slice_ in mine:
            if slice_.object["addressType"] not in families:
                self.registry.delete(ENDPOINT_SLICE, slice_.namespace, slice_.name)

    def _settle(
        self,
        service: Stored,
        family: str,
        groups: dict[PortSet, list[Json]],
        slices: list[Stored],
        moment: str,
    ) -> None:
        """Endpoints stay in their slices and new ones fill up what there is. A slice whose ports
        nobody serves any more becomes a new one's, so that a Service is never seen without."""
        wanted = {port_set: [port.json() for port in port_set] for port_set in groups}
        unused = [s for s in slices if (s.object.get("ports") or []) not in wanted.values()]
        for port_set, endpoints in sorted(groups.items()):
            ports = wanted[port_set]
            fitting = [s for s in slices if (s.object.get("ports") or []) == ports]
            contents = _distribute(endpoints, fitting)
            for index, kept in enumerate(contents):
                old = fitting[index] if index < len(fitting) else None
                if kept or (index == 0 and not endpoints):  # without endpoints, an empty one
                    if old is None and unused:
                        old = unused.pop()
                    self._write(service, family, ports, kept, old, moment)
                elif old:
                    self.registry.delete(ENDPOINT_SLICE, old.namespace, old.name)
        for slice_ in unused:
            self.registry.delete(ENDPOINT_SLICE, slice_.namespace, slice_.name)

    def _write(
        self,
        service: Stored,
        family: str,
        ports: list[Json],
        endpoints: list[Json],
        old: Stored | None,
        moment: str,
    ) -> None:
        labels = slice_labels(service)
        content: Json = {"addressType": family, "endpoints": endpoints, "ports": ports}
        if old is None:
            metadata: Json = {
                "generateName": f"{service.name}-",
                "labels": labels,
                "annotations": {TRIGGER_TIME: moment},
                "ownerReferences": [owner_reference(service)],
            }
            new = {"metadata": metadata} | content
            self.registry.create(ENDPOINT_SLICE, service.namespace, new)
            return
        same = old.labels == labels and all(
            (old.object.get(field) or []) == content[field]
            for field in ("addressType", "endpoints", "ports")
        )
        if not same:
            metadata = old.metadata | {
                "labels": labels,
                "annotations": old.annotations | {TRIGGER_TIME: moment},
            }
            new = {"metadata": metadata} | content
            self.registry.update(ENDPOINT_SLICE, old.namespace, old.name, new)


def _distribute(endpoints: list[Json], slices: list[Stored]) -> list[list[Json]]:
    """What each slice is to hold, and those that are to be added."""
    missing = {_identity(endpoint): endpoint for endpoint in endpoints}
    contents = [
        [
            missing.pop(_identity(endpoint))
            for endpoint in slice_.object.get("endpoints") or ()
            if _identity(endpoint) in missing
        ]
        for slice_ in slices
    ]
    new = list(missing.values())
    for kept in contents:
        room = MAX_ENDPOINTS - len(kept)
        kept += new[:room]
        new = new[room:]
    contents += [new[i : i + MAX_ENDPOINTS] for i in range(0, len(new), MAX_ENDPOINTS)]
    return contents or [[]]


def slice_labels(service: Stored) -> dict[str, str]:
    """The Service's own labels, so that a service-proxy-name reaches the proxy, and the fixed
    ones."""
    labels = {key: value for key, value in service.labels.items() if key != HEADLESS}
    if is_headless(service):
        labels[HEADLESS] = ""
    return labels | {SERVICE_NAME: service.name, MANAGED_BY: _CONTROLLER}


def _zone(node: Stored | None) -> str:
    return node.labels.get(ZONE_LABEL, "") if node else ""


def _identity(endpoint: Json) -> tuple[Any, ...]:
    """What makes it the same endpoint in its next version."""
    return (endpoint.get("targetRef", {}).get("uid"), *endpoint["addresses"])
