"""A Node, as far as we look at it."""

from dataclasses import dataclass

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Network

AUTOSCALER_TAINT = "ToBeDeletedByClusterAutoscaler"


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    zone: str = ""  # label topology.kubernetes.io/zone
    addresses: tuple[bytes, ...] = ()  # InternalIPs first, then ExternalIPs, as listed
    pod_networks: tuple[Network, ...] = ()
    taints: frozenset[str] = frozenset()  # their keys
    deleting: bool = False
    kubelet_port: int = 0  # 0: not said

    @property
    def key(self) -> ObjectKey:
        return ObjectKey("", self.name)

    @property
    def eligible(self) -> bool:
        """Whether balancers should send new connections here (`/healthz`, KEP-3836)."""
        return not self.deleting and AUTOSCALER_TAINT not in self.taints
