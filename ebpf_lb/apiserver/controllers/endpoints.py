"""Service + Pods -> Endpoints, the older form: one object, one family, no terminating pods.

Upstream: pkg/controller/endpoint/endpoints_controller.go.
"""

from ebpf_lb.apiserver.controllers.endpoint_data import (
    PortSet,
    address_of,
    is_headless,
    resolve_ports,
)
from ebpf_lb.apiserver.controllers.endpointslice import (
    HEADLESS,
    TRIGGER_TIME,
    Key,
    ServiceController,
)
from ebpf_lb.apiserver.controllers.pods import is_finished, is_ready
from ebpf_lb.apiserver.kinds import ENDPOINTS, SERVICE
from ebpf_lb.apiserver.store import Json, Stored

_MANAGED_BY = "endpoints.kubernetes.io/managed-by"


class EndpointsController(ServiceController):
    def reconcile(self, key: Key) -> None:
        service = self.store.get(SERVICE, *key)
        old = self.store.get(ENDPOINTS, *key)
        moment = self.trigger_time(key)
        if service is None:
            if old is not None:
                self.registry.delete(ENDPOINTS, *key)
            return
        if not service.spec.get("selector") or service.spec["type"] == "ExternalName":
            return
        labels = dict(service.labels) | {_MANAGED_BY: "endpoint-controller"}
        if is_headless(service):
            labels[HEADLESS] = ""
        subsets = _subsets(service, self.pods_of(service))
        new: Json = {
            "metadata": {
                "name": service.name,
                "labels": labels,
                "annotations": {TRIGGER_TIME: moment},
            }
        } | ({"subsets": subsets} if subsets else {})
        if old is None:
            self.registry.create(ENDPOINTS, service.namespace, new)
        elif old.labels != labels or (old.object.get("subsets") or []) != subsets:
            self.registry.update(ENDPOINTS, service.namespace, service.name, new)


def _subsets(service: Stored, pods: list[Stored]) -> list[Json]:
    family: str = service.spec["ipFamilies"][0]
    publish = bool(service.spec.get("publishNotReadyAddresses"))
    groups: dict[PortSet, tuple[list[Json], list[Json]]] = {}
    for pod in pods:
        address = address_of(pod, family)
        if address is None or is_finished(pod) or (pod.terminating and not publish):
            continue
        ports = resolve_ports(service, pod)
        if not ports and not is_headless(service):
            continue
        entry: Json = {
            "ip": address,
            "targetRef": {
                "kind": "Pod",
                "namespace": pod.namespace,
                "name": pod.name,
                "uid": pod.uid,
            },
        }
        if node := pod.spec.get("nodeName"):
            entry["nodeName"] = node
        ready, not_ready = groups.setdefault(ports, ([], []))
        (ready if publish or is_ready(pod) else not_ready).append(entry)
    return [
        {
            field: value
            for field, value in (
                ("addresses", ready),
                ("notReadyAddresses", not_ready),
                ("ports", [_port(port.json()) for port in ports]),
            )
            if value
        }
        for ports, (ready, not_ready) in sorted(groups.items(), key=lambda group: group[0])
    ]


def _port(port: Json) -> Json:
    """Endpoints leave an empty name out; EndpointSlices have it."""
    return {field: value for field, value in port.items() if value != ""}
