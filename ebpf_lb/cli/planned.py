"""What should be in a node's maps: asked of the API server and netlink alone, as an agent plans."""

import queue
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ebpf_lb.agent.config import Config
from ebpf_lb.agent.network import here, reserved
from ebpf_lb.agent.network.interfaces import NodeNetwork
from ebpf_lb.agent.network.roles import NetworkView
from ebpf_lb.agent.programming.service_networks import clashing
from ebpf_lb.errors import UserError
from ebpf_lb.kube import resources
from ebpf_lb.kube.client import ApiClient, connect
from ebpf_lb.kube.watch import Interrupted, Listed, Watcher
from ebpf_lb.model.node import Node
from ebpf_lb.model.service import Algorithm
from ebpf_lb.model.service_cidr import ServiceCIDR
from ebpf_lb.model.values import Network
from ebpf_lb.plan.cluster import Cluster
from ebpf_lb.plan.forwarding import Forwarding
from ebpf_lb.plan.node import NodeView

_WITHIN_S = 60.0
_ENDPOINTS = {
    "auto": resources.ENDPOINT_SLICES_OR_ENDPOINTS,
    "slices": resources.ENDPOINT_SLICES,
    "endpoints": resources.ENDPOINTS,
}


@dataclass(frozen=True, slots=True)
class Planned:
    """`service_networks`: what is dropped if no Service has it. `problems`: what the plan leaves
    out of a Service, and why."""

    forwardings: tuple[Forwarding, ...]
    network: NetworkView
    service_networks: tuple[Network, ...]
    problems: dict[str, list[str]]


def ask(config: Config) -> Planned:
    """UserError: the API server does not say."""
    client = connect(config.kubeconfig)
    found = _lists(config, client)
    nodes, services = found[resources.node(config.node_name).name], found[resources.SERVICES.name]
    node = nodes[0] if nodes else Node(config.node_name)
    cluster = Cluster(
        NodeView(node.name, "", ()), Algorithm(config.algorithm), config.critical_services
    )
    view, network = here.look(
        config,
        node,
        NodeNetwork().facts,
        reserved.of_server(client.look_up()),
        known=bool(nodes),
    )
    cluster.set_node(view)
    cluster.replace_services(services)
    if resources.ENDPOINTS.name in found:
        cluster.replace_slices(one for slices in found[resources.ENDPOINTS.name] for one in slices)
    else:
        cluster.replace_slices(found[resources.ENDPOINT_SLICES.name])
    keys = sorted(cluster.keys())
    return Planned(
        tuple(one for key in keys for one in cluster.plan(key)),
        network,
        _service_networks(
            found[resources.SERVICE_CIDRS.name],
            (*network.primary, *cluster.reserved_addresses),
            network.pod_networks or (),
        ),
        {str(key): problems for key in keys if (problems := cluster.problems(key))},
    )


def _service_networks(
    cidrs: Iterable[ServiceCIDR], addresses: Iterable[bytes], pods: Iterable[Network]
) -> tuple[Network, ...]:
    theirs = [*(Network(address, len(address) * 8) for address in addresses), *pods]
    wanted = sorted({one for cidr in cidrs for one in cidr.networks})
    clashes = clashing(wanted, theirs)
    return tuple(one for one in wanted if one not in clashes)


def _lists(config: Config, client: ApiClient) -> dict[str, tuple[Any, ...]]:
    """Objects by kind."""
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    wanted = (
        resources.node(config.node_name),
        resources.SERVICES,
        _ENDPOINTS[config.endpoints_source],
        resources.SERVICE_CIDRS,
    )
    watchers = [Watcher(client, one, heard.put) for one in wanted]
    for one in watchers:
        one.start()
    found: dict[str, tuple[Any, ...]] = {}
    give_up_at = time.monotonic() + _WITHIN_S
    try:
        while len(found) < len(wanted):
            event = heard.get(timeout=max(0.0, give_up_at - time.monotonic()))
            if isinstance(event, Interrupted):
                raise UserError(event.text.replace("; trying again", ""))
            if isinstance(event, Listed):
                found[event.resource.name] = event.objects
    except queue.Empty:
        raise UserError(f"The API server has not answered within {_WITHIN_S:.0f} s.") from None
    finally:
        for one in watchers:
            one.stop()
    return found
