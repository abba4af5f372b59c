"""Who comes first: at the start, and where a table has no room for all.

The same on every node: what the cluster lives by, then the older Service, then the lesser name.
"""

from collections.abc import Collection
from typing import NamedTuple

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service import Service
from ebpf_lb.plan.reserved import KUBERNETES

CLUSTER_DNS = ObjectKey("kube-system", "kube-dns")
DEFAULT_CRITICAL = (KUBERNETES, CLUSTER_DNS)


class Priority(NamedTuple):
    """The least comes first."""

    tier: int
    created_s: int
    service: ObjectKey

    @property
    def critical(self) -> bool:
        """Never the one that is left out."""
        return self.tier == 0


def priority(service: Service, critical: Collection[ObjectKey]) -> Priority:
    """`critical`: Services without which the cluster does not live. What has cluster DNS' label is
    one, too, but only beside it: else anybody could put that label on."""
    first = service.key in critical or (
        service.cluster_dns and service.key.namespace == CLUSTER_DNS.namespace
    )
    return Priority(0 if first else 1, service.created_s, service.key)
