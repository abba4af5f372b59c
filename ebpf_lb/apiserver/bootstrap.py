"""A registry with all that the kinds have of their own, and the objects that every cluster has from
its beginning."""

import ipaddress
import random
from collections.abc import Sequence

from ebpf_lb.apiserver import kinds
from ebpf_lb.apiserver.kinds import (
    ENDPOINT_SLICE,
    ENDPOINTS,
    NAMESPACE,
    SERVICE,
    SERVICE_CIDR,
    Kind,
)
from ebpf_lb.apiserver.registry import Registry
from ebpf_lb.apiserver.store import Json, Store
from ebpf_lb.apiserver.strategies.allocation import ClusterIPs, NodePorts
from ebpf_lb.apiserver.strategies.ingress import (
    IngressClassStrategy,
    IngressStrategy,
    SecretStrategy,
)
from ebpf_lb.apiserver.strategies.networking import (
    EndpointSliceStrategy,
    EndpointsStrategy,
    NamespaceStrategy,
    NodeStrategy,
    ServiceCIDRStrategy,
)
from ebpf_lb.apiserver.strategies.service import ServiceStrategy
from ebpf_lb.apiserver.strategies.workloads import (
    DeploymentStrategy,
    PodStrategy,
    StatefulSetStrategy,
)
from ebpf_lb.apiserver.validation import ip_family

_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


def make_registry(
    store: Store,
    node_ports: tuple[int, int] = (30000, 32767),
    rng: random.Random | None = None,
) -> Registry:
    """A registry with the strategies of all kinds; `store` is still empty."""
    rng = rng or random.Random()
    service = ServiceStrategy(ClusterIPs(store, rng), NodePorts(store, rng, *node_ports))
    strategies = {
        kinds.NAMESPACE: NamespaceStrategy(),
        kinds.NODE: NodeStrategy(),
        kinds.SERVICE: service,
        kinds.ENDPOINTS: EndpointsStrategy(),
        kinds.ENDPOINT_SLICE: EndpointSliceStrategy(),
        kinds.POD: PodStrategy(),
        kinds.DEPLOYMENT: DeploymentStrategy(),
        kinds.STATEFUL_SET: StatefulSetStrategy(),
        kinds.SERVICE_CIDR: ServiceCIDRStrategy(),
        kinds.INGRESS: IngressStrategy(),
        kinds.INGRESS_CLASS: IngressClassStrategy(),
        kinds.SECRET: SecretStrategy(),
    }
    return Registry(store, strategies, rng=rng)


def create_defaults(
    registry: Registry, service_cidrs: Sequence[str], addresses: Sequence[str], port: int
) -> None:
    """Creates what is missing: namespaces, the ServiceCIDR `kubernetes`, and the Service
    `default/kubernetes` whose endpoint is the server itself."""
    for name in _NAMESPACES:
        _ensure(registry, NAMESPACE, "", {"metadata": {"name": name}})
    cidr: Json = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": list(service_cidrs)}}
    _ensure(registry, SERVICE_CIDR, "", cidr)
    stored = registry.get(SERVICE_CIDR, "", "kubernetes")
    if not stored.status:
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "",
            "message": "Kubernetes Service CIDR is ready",
            "lastTransitionTime": registry.timestamp(),
        }
        registry.set_status(stored, {"conditions": [ready]})
    _kubernetes_service(registry, service_cidrs, addresses, port)


def _kubernetes_service(
    registry: Registry, service_cidrs: Sequence[str], addresses: Sequence[str], port: int
) -> None:
    first = str(ipaddress.ip_network(service_cidrs[0])[1])
    labels = {"component": "apiserver", "provider": "kubernetes"}
    service: Json = {
        "metadata": {"name": "kubernetes", "labels": labels},
        "spec": {
            "clusterIP": first,
            "ports": [{"name": "https", "port": 443, "targetPort": port, "protocol": "TCP"}],
        },
    }
    _ensure(registry, SERVICE, "default", service)
    family = ip_family(first)
    # A loopback address is nobody's endpoint: a server that has no other stays without.
    mine = [
        address
        for address in addresses
        if ip_family(address) == family and not ipaddress.ip_address(address).is_loopback
    ]
    if not mine:
        return
    endpoints: Json = {
        "metadata": {
            "name": "kubernetes",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [
            {
                "addresses": [{"ip": address} for address in mine],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            }
        ],
    }
    _ensure(registry, ENDPOINTS, "default", endpoints)
    slice_: Json = {
        "metadata": {
            "name": "kubernetes",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": family,
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in mine],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }
    _ensure(registry, ENDPOINT_SLICE, "default", slice_)


def _ensure(registry: Registry, kind: Kind, namespace: str, object_: Json) -> None:
    if registry.store.get(kind, namespace, object_["metadata"]["name"]) is None:
        registry.create(kind, namespace, object_)
