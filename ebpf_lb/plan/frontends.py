"""On which addresses a Service is reached, and by which policy: docs/semantics.md."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ebpf_lb.model.service import IPMode, Service, ServicePort, ServiceType, TrafficPolicy
from ebpf_lb.model.values import Family, Network, Protocol, family_of
from ebpf_lb.plan.forwarding import NO_FLAGS, Frontend, FrontendFlag, FrontendKind
from ebpf_lb.plan.node import LOOPBACK, NodeView
from ebpf_lb.plan.reserved import Reserved

_BOTH = FrontendFlag.LOCAL | FrontendFlag.SOURCE_RANGES


# rule: KI-10, KI-11
def is_ours(service: Service) -> bool:
    """Whether we forward for it: not headless, not ExternalName, not labelled for another proxy."""
    return (
        service.type is not ServiceType.EXTERNAL_NAME
        and bool(service.cluster_ips)
        and not service.other_proxy
        and not service.headless_label
    )


# rule: KI-9
def families(service: Service) -> list[Family]:
    """A Service is served in the families it has a ClusterIP of, whatever its other addresses."""
    return sorted({family_of(address) for address in service.cluster_ips})


# rule: KI-2
def load_balancer_addresses(service: Service, family: Family) -> list[bytes]:
    """Those whose packets reach us with that destination. ipMode Proxy is not programmed."""
    return [
        ingress.address
        for ingress in service.load_balancer
        if ingress.ip_mode is IPMode.VIP and family_of(ingress.address) is family
    ]


def externally_accessible(service: Service, port: ServicePort, family: Family) -> bool:
    return (
        port.node_port != 0
        or any(family_of(address) is family for address in service.external_ips)
        or bool(load_balancer_addresses(service, family))
    )


# rule: EP-7
def uses_cluster(service: Service, port: ServicePort, family: Family) -> bool:
    """Whether anybody may be sent to any node. With eTP Local too: the cluster's own clients are,
    by every address that outsiders may use (kube-proxy's short circuit)."""
    return service.internal_policy is TrafficPolicy.CLUSTER or externally_accessible(
        service, port, family
    )


# rule: EP-7
def uses_local(service: Service, port: ServicePort, family: Family) -> bool:
    return service.internal_policy is TrafficPolicy.LOCAL or (
        service.external_policy is TrafficPolicy.LOCAL
        and externally_accessible(service, port, family)
    )


def reaches(service: Service, reserved: Iterable[Reserved], node: NodeView) -> bool:
    """Whether it may ask for one of these, by any of its ports."""
    own = {
        *service.cluster_ips,
        *service.external_ips,
        *(ingress.address for ingress in service.load_balancer),
    }
    ports = {port.node_port for port in service.ports}
    return any(
        one.address in own or (one.port in ports and one.address in node.nodeport_addresses)
        for one in reserved
    )


class Listener(NamedTuple):
    """An address of a Service, for all of its ports."""

    address: bytes
    kind: FrontendKind
    flags: FrontendFlag


# rule: KI-1
def listeners(service: Service, family: Family, node: NodeView) -> list[Listener]:
    """Every address by which a Service may be asked, before clashes: one may appear twice."""
    internal = _flags(service.internal_policy is TrafficPolicy.LOCAL, False)
    local = service.external_policy is TrafficPolicy.LOCAL
    external = _flags(local, False)
    guarded = _flags(local, service.source_ranges is not None)
    return [
        Listener(address, kind, flags)
        for kind, flags, addresses in (
            (FrontendKind.CLUSTER_IP, internal, service.cluster_ips),
            (FrontendKind.NODE_PORT, external, node.nodeport_addresses),
            (FrontendKind.LOAD_BALANCER, guarded, load_balancer_addresses(service, family)),
            (FrontendKind.EXTERNAL_IP, external, service.external_ips),
        )
        for address in addresses
        if family_of(address) is family
    ]


def frontends(port: ServicePort, addresses: Iterable[Listener]) -> Iterator[Frontend]:
    """Those that ask for this port."""
    for address, kind, flags in addresses:
        number = port.node_port if kind is FrontendKind.NODE_PORT else port.port
        # rule: KI-14
        if address in LOOPBACK and port.protocol is Protocol.SCTP:
            continue  # the socket hooks, which alone serve these, translate TCP and UDP
        # rule: KI-4
        if number:
            yield Frontend(address, number, kind, flags)


def _flags(local: bool, ranges: bool) -> FrontendFlag:
    if local:
        return _BOTH if ranges else FrontendFlag.LOCAL
    return FrontendFlag.SOURCE_RANGES if ranges else NO_FLAGS


# rule: KI-18
def source_ranges(service: Service, family: Family, node: NodeView) -> tuple[Network, ...]:
    """Whose packets the LB addresses take, where a frontend has SOURCE_RANGES; sorted.

    A node inside the ranges may come from the LB address itself: where the balancer's address is
    also configured on nodes, the node's own packets to it never leave and have it as source.
    """
    if service.source_ranges is None:
        return ()
    ranges = {network for network in service.source_ranges if network.family is family}
    vips = load_balancer_addresses(service, family)
    # rule: KI-19
    if vips and any(address in network for network in ranges for address in node.addresses):
        ranges |= {Network(address, len(address) * 8) for address in vips}
    return tuple(sorted(ranges))
