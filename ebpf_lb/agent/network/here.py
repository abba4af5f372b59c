"""This node as plans see it: from what netlink tells, the Node object and the configuration."""

from collections.abc import Iterable

from ebpf_lb.agent.config import Config
from ebpf_lb.agent.network import reserved, roles
from ebpf_lb.agent.network.roles import Facts, NetworkView, Patterns
from ebpf_lb.model.node import Node
from ebpf_lb.model.values import Network
from ebpf_lb.plan.node import NodeView, nodeport_addresses
from ebpf_lb.plan.reserved import Reserved


# rule: KI-17
def look(
    config: Config, node: Node, facts: Facts, server: frozenset[Reserved], *, known: bool
) -> tuple[NodeView, NetworkView]:
    """`server`: where the API server is. `known`: whether `node` is an object of the API's, and not
    only what it was last time."""
    patterns = Patterns(config.pod_interfaces, config.uplink_interfaces, config.ignored_interfaces)
    pod_networks = config.cluster_cidrs or (node.pod_networks if known else None)
    view = roles.view(facts, patterns, node.addresses, pod_networks)
    named = config.node_port_addresses
    return (
        NodeView(
            node.name,
            node.zone,
            nodeport_addresses(
                view.addresses,
                primary=view.primary,
                networks=[one for one in named if isinstance(one, Network)],
                words=[one for one in named if isinstance(one, str)],
            ),
            view.addresses,
            server | _reserved(config, node, view.addresses),
        ),
        view,
    )


def _reserved(config: Config, node: Node, addresses: Iterable[bytes]) -> frozenset[Reserved]:
    served = (config.healthz_bind_address, config.metrics_bind_address)
    return reserved.of_node(addresses, node.kubelet_port, served)
