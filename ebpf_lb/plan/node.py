"""What plans depend on of this node."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ebpf_lb.model.values import Network, parse_address, parse_network
from ebpf_lb.plan.reserved import Reserved

# rule: KI-13
LOOPBACK = (parse_address("127.0.0.1"), parse_address("::1"))
"""One address of each family stands for all of its loopback addresses."""

_LOOPBACK_NETWORKS = (parse_network("127.0.0.0/8"), parse_network("::1/128"))
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


# rule: KI-12, KI-16
def nodeport_addresses(
    addresses: Iterable[bytes],
    *,
    primary: Iterable[bytes] = (),
    networks: Iterable[Network] = (),
    words: Collection[str] = (),
) -> tuple[bytes, ...]:
    """Those of a node's `addresses` on which node ports answer, sorted; and of LOOPBACK those that
    the node's own processes may ask.

    Never link-local or multicast ones. Without `networks` and `words`: all, and localhost. Else
    what these name, and it adds up, as in kube-proxy's `nodePortAddresses`: addresses in
    `networks`; the `primary` ones (the Node object's), `localhost`, or `all`.
    """
    within = tuple(networks)
    everything = not (within or words) or "all" in words
    first = frozenset(primary) if "primary" in words else frozenset()
    found = {
        address
        for address in addresses
        if not any(address in network for network in _NEVER_NODE_PORTS)
        and (everything or address in first or any(address in network for network in within))
    }
    for address, network in zip(LOOPBACK, _LOOPBACK_NETWORKS, strict=True):
        named = any(address in one or one.address in network for one in within)
        if everything or "localhost" in words or named:
            found.add(address)
    return tuple(sorted(found))
