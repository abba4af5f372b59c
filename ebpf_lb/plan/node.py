"""What plans depend on of this node."""

from collections.abc import Iterable
from dataclasses import dataclass

from ebpf_lb.model.values import Network, parse_network
from ebpf_lb.plan.reserved import Reserved

# rule: KI-13
_NEVER_NODE_PORTS = tuple(
    parse_network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4",
                 "::/128", "::1/128", "fe80::/10", "ff00::/8")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NodeView:
    """nodeport_addresses: where node ports answer. addresses: all of the node's own, for the rule
    that a node inside loadBalancerSourceRanges may use the LB address itself as source. reserved:
    what no Service may have here."""

    name: str
    zone: str
    nodeport_addresses: tuple[bytes, ...]
    addresses: tuple[bytes, ...] = ()
    reserved: frozenset[Reserved] = frozenset()


def nodeport_addresses(
    addresses: Iterable[bytes],
    *,
    primary: Iterable[bytes] = (),
    networks: Iterable[Network] = (),
    only_primary: bool = False,
) -> tuple[bytes, ...]:
    """Those of a node's `addresses` on which node ports answer, sorted.

    Never loopback, link-local or multicast ones. Without `networks` and `only_primary`: all.
    Else those in `networks`, and the `primary` ones (the Node object's) if `only_primary`:
    the two add up, as in kube-proxy's `nodePortAddresses`.
    """
    first = frozenset(primary)
    within = tuple(networks)
    return tuple(
        sorted(
            address
            for address in set(addresses)
            if not any(address in network for network in _NEVER_NODE_PORTS)
            and (
                not (within or only_primary)
                or (only_primary and address in first)
                or any(address in network for network in within)
            )
        )
    )
