"""Pure part of the endpoint controllers: Service and Pods in, endpoints out.

Upstream: staging/src/k8s.io/endpointslice (reconciler.go, utils.go, trafficdist).
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ebpf_lb.apiserver.controllers.pods import is_finished, is_ready
from ebpf_lb.apiserver.store import Json, Stored
from ebpf_lb.apiserver.validation import ip_family

ZONE_LABEL = "topology.kubernetes.io/zone"


class EndpointPort(NamedTuple):
    """A Service port as one pod serves it."""

    name: str
    protocol: str
    port: int
    app_protocol: str

    def json(self) -> Json:
        port: Json = {"name": self.name, "protocol": self.protocol, "port": self.port}
        return port | ({"appProtocol": self.app_protocol} if self.app_protocol else {})


PortSet = tuple[EndpointPort, ...]


def is_headless(service: Stored) -> bool:
    return service.spec.get("clusterIP") == "None"


def selects(service: Stored, labels: Mapping[str, str]) -> bool:
    selector: dict[str, str] = service.spec.get("selector") or {}
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def address_of(pod: Stored, family: str) -> str | None:
    """The pod's address of a family ("IPv4", "IPv6")."""
    addresses = [entry.get("ip", "") for entry in pod.status.get("podIPs") or ()]
    addresses = addresses or [pod.status.get("podIP", "")]
    return next((address for address in addresses if ip_family(address) == family), None)


def resolve_ports(service: Stored, pod: Stored) -> PortSet:
    """The Service's ports at this pod. A named targetPort that the pod has not is left out."""
    ports = []
    for port in service.spec.get("ports", ()):
        target = port.get("targetPort", port["port"])
        number = target if isinstance(target, int) else _named(pod, target, port["protocol"])
        if number:
            ports.append(
                EndpointPort(
                    port.get("name", ""), port["protocol"], number, port.get("appProtocol", "")
                )
            )
    return tuple(ports)


def _named(pod: Stored, name: str, protocol: str) -> int:
    for container in pod.spec.get("containers") or ():
        for port in container.get("ports") or ():
            if port.get("name") == name and port.get("protocol", "TCP") == protocol:
                return int(port["containerPort"])
    return 0


def endpoints_by_ports(
    service: Stored, pods: Iterable[Stored], family: str, zones: Mapping[str, str]
) -> dict[PortSet, list[Json]]:
    """The endpoints of one family, by the set of ports that they serve. `zones`: by node."""
    groups: dict[PortSet, list[Json]] = {}
    for pod in pods:
        address = address_of(pod, family)
        if address is None or is_finished(pod):
            continue
        groups.setdefault(resolve_ports(service, pod), []).append(
            _endpoint(service, pod, address, zones)
        )
    return groups


def _endpoint(service: Stored, pod: Stored, address: str, zones: Mapping[str, str]) -> Json:
    serving = is_ready(pod)
    publish = bool(service.spec.get("publishNotReadyAddresses"))
    ready = publish or (serving and not pod.terminating)
    endpoint: Json = {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": pod.terminating},
        "targetRef": {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
    }
    node = pod.spec.get("nodeName", "")
    if node:
        endpoint["nodeName"] = node
        if zone := zones.get(node):
            endpoint["zone"] = zone
    hostname = pod.spec.get("hostname")
    if hostname and pod.spec.get("subdomain") == service.name:
        endpoint["hostname"] = hostname
    if ready and (hints := _hints(service, endpoint)):
        endpoint["hints"] = hints
    return endpoint


def _hints(service: Stored, endpoint: Json) -> Json:
    """Where clients of an endpoint should be (KEP-4444, KEP-3015)."""
    distribution = service.spec.get("trafficDistribution")
    hints: Json = {}
    if distribution and "zone" in endpoint:
        hints["forZones"] = [{"name": endpoint["zone"]}]
    if distribution == "PreferSameNode" and "nodeName" in endpoint:
        hints["forNodes"] = [{"name": endpoint["nodeName"]}]
    return hints
