"""A ServiceCIDR: addresses that only Services have."""

from dataclasses import dataclass

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.values import Network


@dataclass(frozen=True, slots=True)
class ServiceCIDR:
    key: ObjectKey
    networks: tuple[Network, ...]
