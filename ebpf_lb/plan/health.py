"""What a Service's healthCheckNodePort reports, as docs/semantics.md says."""

from collections.abc import Iterable
from typing import NamedTuple

from ebpf_lb.model.endpoints import READY, TERMINATING, EndpointSlice
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service import Service, ServiceType, TrafficPolicy
from ebpf_lb.model.values import Family
from ebpf_lb.plan.frontends import is_ours


class HealthCheck(NamedTuple):
    service: ObjectKey
    port: int
    local_endpoints: int  # distinct addresses of ready endpoints on this node


# rule: HE-3
def health_check(
    service: Service, slices: Iterable[EndpointSlice], node: str
) -> tuple[HealthCheck, ...]:
    """At most one. Terminating endpoints never count, even while traffic falls back to them: the
    balancer is to look elsewhere. A dual-stack pod counts once: the family with more decides."""
    if not (
        service.health_check_node_port
        and is_ours(service)
        and service.type is ServiceType.LOAD_BALANCER
        and service.external_policy is TrafficPolicy.LOCAL
    ):
        return ()
    local: dict[Family, set[bytes]] = {family: set() for family in Family}
    for s in slices:
        for endpoint in s.endpoints():
            if endpoint.node == node and endpoint.conditions & (READY | TERMINATING) == READY:
                local[s.family].add(endpoint.address)
    count = max(len(addresses) for addresses in local.values())
    return (HealthCheck(service.key, service.health_check_node_port, count),)
