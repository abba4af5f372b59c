"""Machines and wires: router, control, clients and nodes, down to the nodes' pod networks.

What a node has is what real ones have: forwarding, strict reverse-path filtering, routes to the
other nodes' pods, and the CNI's packet filter. Pods themselves are the kubelet's.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebpf_lb.errors import UserError
from ebpf_lb.lab import firewall, namespaces, udp_tunnel
from ebpf_lb.lab.links import MTU, VXLAN_OVERHEAD, Links
from ebpf_lb.lab.names import (
    CONTROL_HOST,
    OUTSIDE,
    OUTSIDE_BRIDGE,
    POD_BRIDGE,
    ROUTER_HOST,
    UNDERLAY,
    UNDERLAY_BRIDGE,
    UPLINK,
    Interface,
    LabNames,
    NodeNames,
    client_interfaces,
    clients,
)
from ebpf_lb.lab.options import Options
from ebpf_lb.model.values import Family

_VXLAN_DEVICE = {4: "flannel.1", 6: "flannel-v6.1"}  # one for each family, named as flannel's
_VXLAN_NUMBER, _VXLAN_PORT = 1, 8472

# No waiting for duplicate address detection, and no addresses but ours.
_HOST = {
    "net/ipv6/conf/all/accept_ra": 0,
    "net/ipv6/conf/default/accept_ra": 0,
    "net/ipv6/conf/default/accept_dad": 0,
}
_FORWARDING = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv4/conf/all/send_redirects": 0,
    "net/ipv4/conf/default/send_redirects": 0,
}
_ROUTER = {
    **_FORWARDING,
    # A Service's external address is spread over the nodes by flow, not by pair of addresses.
    "net/ipv4/fib_multipath_hash_policy": 1,
    "net/ipv6/fib_multipath_hash_policy": 1,
}
_NODE = {
    **_FORWARDING,
    "net/ipv4/conf/all/rp_filter": 1,
    "net/ipv4/conf/default/rp_filter": 1,
}


class TopologyError(UserError):
    """This machine lacks something that the lab's network needs."""


def make_namespace(path: Path) -> None:
    """A network namespace with loopback up and IPv6 addresses that are usable at once."""
    namespaces.create(path)
    with namespaces.entered(path):
        namespaces.set_sysctls(_HOST)
    with Links(path) as links:
        links.up("lo")


def pod_gateways(node: NodeNames) -> tuple[Interface, ...]:
    """The node's own addresses in its pods' networks: the first ones, as host-local gives them."""
    return node.pod_segment.host(1, node.families)


def pod_mtu(options: Options) -> int:
    """What pods may send, in bytes; in a tunnel, what is left beside the outer headers."""
    if options.network == "routes":
        return MTU
    if options.network == "udp":
        return MTU - udp_tunnel.OVERHEAD[options.families[0]]
    return MTU - max(VXLAN_OVERHEAD[family] for family in options.families)


@contextmanager
def _explained() -> Iterator[None]:
    """What the kernel refuses, as a sentence: no IPv6, no VXLAN, no veth in this kernel, maybe."""
    from pyroute2.netlink.exceptions import NetlinkError  # late: see Links

    try:
        yield
    except (OSError, NetlinkError) as error:
        raise TopologyError(
            f"the kernel refuses a part of the lab's network ({error}): "
            "it needs network namespaces, veth, bridges, IPv6, VXLAN for --network vxlan, and "
            "tun devices for --network udp"
        ) from error


@_explained()
def build_core(names: LabNames, options: Options) -> None:
    """Router with underlay and outside, and the control plane's machine. Raises TopologyError."""
    path = names.netns("router")
    make_namespace(path)
    with namespaces.entered(path):
        namespaces.set_sysctls(_ROUTER)
        set_bridge_netfilter(False)
    with Links(path) as router:
        for number, (bridge, segment) in enumerate(
            [(UNDERLAY_BRIDGE, UNDERLAY), (OUTSIDE_BRIDGE, OUTSIDE)]
        ):
            router.bridge(bridge, _mac(0, number))
            router.address(bridge, segment.host(ROUTER_HOST, options.families))
        control = UNDERLAY.host(CONTROL_HOST, options.families)
        _plug_in(names.netns("control"), "control", control, router, UNDERLAY_BRIDGE, options)


@_explained()
def build_rest(names: LabNames, options: Options) -> None:
    """Clients and nodes, and everybody's routes to the pods. Raises TopologyError."""
    nodes = names.nodes(options)
    with Links(names.netns("router")) as router:
        for number, client in enumerate(clients(options), start=1):
            interfaces = client_interfaces(number, options.families)
            _plug_in(names.netns(client), client, interfaces, router, OUTSIDE_BRIDGE, options)
        for node in nodes:
            _plug_in(node.netns, node.name, node.interfaces, router, UNDERLAY_BRIDGE, options)
        _route_pods(router, nodes)
    with Links(names.netns("control")) as control:
        _route_pods(control, nodes)
    for node in nodes:
        _configure_node(node, [other for other in nodes if other != node], options)


def _plug_in(
    path: Path,
    port: str,
    interfaces: tuple[Interface, ...],
    router: Links,
    bridge: str,
    options: Options,
) -> None:
    """A machine whose uplink is a port of one of the router's bridges."""
    make_namespace(path)
    router.veth(port, UPLINK, path, bridge=bridge)
    segment = UNDERLAY if bridge == UNDERLAY_BRIDGE else OUTSIDE
    with Links(path) as links:
        links.address(UPLINK, interfaces)
        links.up(UPLINK)
        links.default_routes(i.ip for i in segment.host(ROUTER_HOST, options.families))


def make_ready_for_xdp(node: NodeNames) -> None:
    """The router's end of the node's wire, for a node with native XDP. A veth takes in what XDP at
    its other end sends back only if it has an XDP program itself (one that passes everything will
    do); and what comes to XDP must have its checksums, since there no note says that they are
    still to be computed.

    It stays so: the node's program may stay when its agent goes."""
    with Links(node.lab.netns("router")) as router:
        router.pass_by_xdp(node.name)
        router.compute_checksums(node.name)


def _configure_node(node: NodeNames, others: list[NodeNames], options: Options) -> None:
    with namespaces.entered(node.netns):
        namespaces.set_sysctls(_NODE)
        set_bridge_netfilter(options.bridge_netfilter)
        firewall.install(options.families)
    with Links(node.netns) as links:
        if options.pods == "bridge":
            links.bridge(POD_BRIDGE, _mac(1, node.number), pod_mtu(options))
            links.address(POD_BRIDGE, pod_gateways(node))
        if options.network == "vxlan":
            _join_vxlan(links, node, others)
        elif options.network == "udp":
            _join_udp_tunnel(links, node, others, pod_mtu(options))
        else:
            _route_pods(links, others)


def _route_pods(links: Links, nodes: list[NodeNames]) -> None:
    """Routes to the pods of some nodes, by these nodes."""
    for node in nodes:
        networks = node.pod_segment.networks(node.families)
        for network, gateway in zip(networks, node.interfaces, strict=True):
            links.route(network, via=gateway.ip)


def _join_vxlan(links: Links, node: NodeNames, others: list[NodeNames]) -> None:
    """One device a family, without flooding and learning: routes, neighbours and forwarding entries
    for each other node are set, as flannel does. A node's address in the overlay is its pod
    network's zeroth, which no pod gets."""
    for family, uplink in zip(node.families, node.interfaces, strict=True):
        device = _VXLAN_DEVICE[family]
        links.vxlan(device, _VXLAN_NUMBER, UPLINK, uplink.ip, _VXLAN_PORT, _vtep_mac(node, family))
        links.address(device, [_vtep(node, family)])
        for other in others:
            mac, vtep = _vtep_mac(other, family), _vtep(other, family).ip
            remote = other.interfaces[other.families.index(family)].ip
            links.neighbour(device, vtep, mac)
            links.vxlan_peer(device, mac, remote)
            [network] = other.pod_segment.networks((family,))
            links.route(network, via=vtep, device=device, onlink=True)


def _join_udp_tunnel(links: Links, node: NodeNames, others: list[NodeNames], mtu: int) -> None:
    """One device for both families; a process of its own carries what it sends (udp_tunnel.py)."""
    links.tun(udp_tunnel.DEVICE, mtu)
    links.address(udp_tunnel.DEVICE, [_vtep(node, family) for family in node.families])
    for other in others:
        for network in other.pod_segment.networks(other.families):
            links.route(network, device=udp_tunnel.DEVICE)


def _vtep(node: NodeNames, family: Family) -> Interface:
    [address] = node.pod_segment.host(0, (family,))
    return type(address)((address.ip, address.max_prefixlen))


def _vtep_mac(node: NodeNames, family: Family) -> str:
    return _mac(family, node.number)


def _mac(group: int, number: int) -> str:
    """A locally administered address."""
    return f"02:eb:9f:00:{group:02x}:{number:02x}"


def set_bridge_netfilter(on: bool) -> None:
    """Whether this thread's namespace hands bridged packets to iptables and nftables; a kernel
    without br_netfilter never does."""
    try:
        namespaces.set_sysctls(
            {
                "net/bridge/bridge-nf-call-iptables": int(on),
                "net/bridge/bridge-nf-call-ip6tables": int(on),
            }
        )
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        if on:
            raise TopologyError(
                "the kernel module br_netfilter is not loaded: run `modprobe br_netfilter`, "
                "or use --no-bridge-netfilter"
            ) from error
