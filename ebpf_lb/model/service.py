"""A Service, as far as forwarding depends on it.

What no plan depends on is left out on purpose: two values are equal exactly when a change between
them cannot change a plan. (`targetPort` is such a field: endpoints carry the resolved port.)
"""

from dataclasses import dataclass
from enum import Enum

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Network, Protocol


class ServiceType(Enum):
    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_NAME = "ExternalName"


class TrafficPolicy(Enum):
    CLUSTER = "Cluster"
    LOCAL = "Local"


class Algorithm(Enum):
    """How new connections are spread over a Service's backends."""

    RANDOM = "random"
    ROUND_ROBIN = "rr"  # in turn
    LEAST_CONNECTIONS = "lc"
    SOURCE_HASH = "sh"  # by the client's address alone
    MAGLEV = "maglev"  # consistent hashing: see plan/maglev.py


class IPMode(Enum):
    """What a balancer does with packets to its address (KEP-1860)."""

    VIP = "VIP"  # they reach the node with that destination: the node must translate them
    PROXY = "Proxy"  # they reach the node as node port or pod traffic


@dataclass(frozen=True, slots=True)
class ServicePort:
    name: str  # "" for the only port of a Service
    protocol: Protocol
    port: int
    node_port: int = 0  # 0: none


@dataclass(frozen=True, slots=True)
class LoadBalancerIngress:
    address: bytes
    ip_mode: IPMode = IPMode.VIP


@dataclass(frozen=True, slots=True)
class Service:
    """`cluster_ips` is empty for headless and ExternalName Services, and before allocation."""

    key: ObjectKey
    created_s: int  # seconds since 1970: of two that claim one address, the older one gets it
    type: ServiceType
    cluster_ips: tuple[bytes, ...]
    ports: tuple[ServicePort, ...]
    external_ips: tuple[bytes, ...] = ()
    load_balancer: tuple[LoadBalancerIngress, ...] = ()
    internal_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    external_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    affinity_timeout_s: int = 0  # 0: no session affinity
    source_ranges: tuple[Network, ...] | None = None  # None: every source; (): none at all
    health_check_node_port: int = 0  # 0: none
    other_proxy: bool = False  # labelled service.kubernetes.io/service-proxy-name
    headless_label: bool = False  # labelled service.kubernetes.io/headless
    algorithm: Algorithm | None = None  # None: as the agent is configured
    weights: tuple[tuple[bytes | str, int], ...] = ()  # of endpoints by address or by node
    cluster_dns: bool = False  # labelled k8s-app=kube-dns
