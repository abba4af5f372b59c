"""Who asks, and whom."""

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ebpf_lb.cli.beyond import Route, route_to
from ebpf_lb.cli.choice import is_service
from ebpf_lb.cli.cluster import Cluster
from ebpf_lb.cli.explain.near import unknown_service
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import (
    Family,
    Network,
    Protocol,
    family_of,
    format_endpoint,
    parse_address,
)

if TYPE_CHECKING:
    from ebpf_lb.datapath.question import Client
    from ebpf_lb.datapath.reader import View
    from ebpf_lb.datapath.reader.services import Frontend

# of networks that only documents use: nobody has them
OUTSIDE = {Family.IPV4: parse_address("198.51.100.1"), Family.IPV6: parse_address("2001:db8::1")}
_FROM_OUTSIDE = ("LOAD_BALANCER", "EXTERNAL_IP", "NODE_PORT", "CLUSTER_IP")
_FROM_INSIDE = ("CLUSTER_IP", "LOAD_BALANCER", "EXTERNAL_IP", "NODE_PORT")
_KINDS = {
    "POD": "a pod of this node",
    "NODE": "a process of this node",
    "LOCALHOST": "a process of this node",
    "REMOTE": "somebody outside this node",
}
_AF_BRIDGE = 7


@dataclass(slots=True)
class Asker:
    """`interface`: by which its packets come to this node; "" for a process of the node's own.
    `remark`: what should be known of it. `unbound`: the kernel chooses its source by the way to
    whom it is connected with in the end."""

    client: "Client"
    address: bytes
    port: int
    interface: str = ""
    pod: str = ""
    remark: str = ""
    unbound: bool = False

    @property
    def kind(self) -> str:
        if self.pod and self.client.value == "REMOTE":
            return f"pod {self.pod}, of another node"
        return f"pod {self.pod}, of this node" if self.pod else _KINDS[self.client.value]

    @property
    def text(self) -> str:
        return format_endpoint(self.address, self.port)


def address_and_port(text: str) -> tuple[bytes, int | None] | None:
    """ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT; None if it is something else."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        if rest and not rest.startswith(":"):
            return None
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address = parse_address(host)
    except ValueError:
        return None
    if not port:
        return address, None
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise UserError(f"{text}: {port!r} is not a port: these are 1 to 65535.")
    return address, int(port)


def who_asks(view: "View", origin: str | None, port: int, cluster: Cluster) -> Asker:
    from ebpf_lb.datapath.question import Client
    from ebpf_lb.datapath.reader.node import sources

    if origin is None:
        address = OUTSIDE[view.family]
        return Asker(Client.REMOTE, address, port, route_to(address).interface)
    if origin == "node":
        number = view.layout.defines["NODE_SOURCE_ID"]
        known = {one.id: one.address for one in sources(view)}
        own = known.get(number, bytes(view.family.address_bytes))
        return Asker(Client.NODE, own, port, unbound=True)
    given = address_and_port(origin)
    if given is None:
        return _pod_asks(view, origin, port, cluster)
    if family_of(given[0]) is not view.family:
        raise UserError(f"{origin} and the address asked are of different families.")
    return _address_asks(view, given[0], given[1] or port)


def _address_asks(view: "View", address: bytes, port: int) -> Asker:
    from ebpf_lb.datapath.question import Client
    from ebpf_lb.datapath.reader.node import interfaces, pod_networks

    route = route_to(address)
    if route.local:
        return Asker(Client.NODE, address, port)
    bridges = {one.bridge for one in interfaces(view)}
    if not route.gateway and (route.ifindex in bridges or _is_pods(view, route)):
        return Asker(Client.POD, address, port, port_of(route, address))
    asker = Asker(Client.REMOTE, address, port, route.interface)
    networks = (Network(*one) for one in pod_networks(view))
    if any(address in network for network in networks):
        asker.remark = (
            "It is a pod of another node, which decides by itself on what the pod asks of a "
            "ClusterIP: run this there, unless the pod asks this node's own address."
        )
    return asker


def _pod_asks(view: "View", name: str, port: int, cluster: Cluster) -> Asker:
    namespace, _, short = name.rpartition("/")
    found = cluster.pod(namespace or "default", short)
    if found is None:
        if why := cluster.problem or cluster.denied:
            raise UserError(
                f"{name!r} is not an address, and the API server cannot be asked for a Pod of that "
                f"name: {why}. Give the Pod's address (`kubectl get pod -o wide` shows "
                "it), or `node`."
            )
        raise UserError(
            f"{name!r} is not an address, and there is no Pod {namespace or 'default'}/{short}: "
            "give NAMESPACE/NAME of a Pod, an address, or `node`."
        )
    address = _address_of(found, view.family)
    if address is None:
        raise UserError(f"Pod {namespace or 'default'}/{short} has no IPv{view.family:d} address.")
    asker = _address_asks(view, address, port)
    asker.pod = f"{namespace or 'default'}/{short}"
    return asker


def _address_of(pod: Any, family: Family) -> bytes | None:
    status = pod.get("status") or {}
    texts = [one.get("ip") for one in status.get("podIPs") or []] or [status.get("podIP")]
    for text in texts:
        try:
            address = parse_address(str(text))
        except ValueError:
            continue
        if family_of(address) is family:
            return address
    return None


def _is_pods(view: "View", route: Route) -> bool:
    """Whether our programs for pods are on the interface."""
    from ebpf_lb.datapath.attach.listing import Listing

    if not route.ifindex:
        return False
    with Listing(view.build) as listing:
        return any(name.startswith("pod_") for name in listing.programs(route.ifindex))


def port_of(route: Route, address: bytes) -> str:
    """The bridge's port behind which an address is, where the bridge has learnt it."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        text = socket.inet_ntop(socket.AF_INET6 if len(address) == 16 else socket.AF_INET, address)
        macs = {
            one.get_attr("NDA_LLADDR")
            for one in ip.get_neighbours(ifindex=route.ifindex)
            if one.get_attr("NDA_DST") == text
        }
        for one in ip.get_neighbours(family=_AF_BRIDGE):
            if one.get_attr("NDA_LLADDR") in macs and one["ifindex"] != route.ifindex:
                name = ip.get_links(one["ifindex"])[0].get_attr("IFLA_IFNAME")
                return str(name)
    return route.interface


def whom(
    view: "View", target: str, protocol: Protocol, asker: Asker, cluster: Cluster
) -> "tuple[tuple[bytes, int], Frontend | None]":
    """The address and port that are asked, and whose they are."""
    from ebpf_lb.datapath.reader.services import frontends

    known = [one for one in frontends(view) if one.port and one.protocol == protocol.name]
    given = address_and_port(target)
    if given is not None:
        if given[1] is None:
            ports = sorted({one.port for one in known if one.address == given[0]})
            hint = f" It serves {', '.join(map(str, ports))}." if ports else ""
            raise UserError(f"Say which port of {target}: {target}:PORT.{hint}")
        place = (given[0], given[1])
        return place, next((one for one in known if (one.address, one.port) == place), None)
    if target.startswith("node:"):
        number = target.removeprefix("node:")
        chosen = [one for one in known if one.kind == "NODE_PORT" and str(one.port) == number]
        if not chosen:
            raise UserError(
                f"No Service has the nodePort {number}/{protocol.name} on this node: "
                "`ebpf-lb services` lists what is served, and `ebpf-lb status` what is not."
            )
    else:
        chosen = [one for one in known if is_service(target, one.service) or _by_port(target, one)]
        if not chosen:
            raise UserError(unknown_service(view, target, protocol, cluster))
    order = _FROM_OUTSIDE if asker.client.value == "REMOTE" and not asker.pod else _FROM_INSIDE
    best = min(chosen, key=lambda one: (order.index(one.kind), one.address, one.port))
    return (best.address, best.port), best


def _by_port(target: str, frontend: "Frontend") -> bool:
    """NAME:NUMBER."""
    name, _, number = target.rpartition(":")
    return number == str(frontend.port) and is_service(name, frontend.service)
