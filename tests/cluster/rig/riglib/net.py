"""The network namespaces: router (with the underlay bridge), control, client and the nodes.

client --- outside --- router --- underlay bridge --- control, node1, node2, node3
"""

from . import conf
from .proc import in_netns, run, wait_for

BRIDGE = "under0"


def ip(name, *words):
    return run("ip", "-n", conf.netns(name), *words)


def sysctl(name, *settings):
    run(*in_netns(name), "sysctl", "-q", "-w", *settings)


def address(name, link, network, host, dual):
    ip(name, "addr", "add", f"{network[0]}{host}/{network[1]}", "dev", link)
    if dual:
        ip(name, "addr", "add", f"{network[2]}{host}/{network[3]}", "dev", link, "nodad")


def create(name):
    run("ip", "netns", "add", conf.netns(name))
    ip(name, "link", "set", "lo", "up")
    sysctl(
        name,
        "net.ipv4.conf.all.rp_filter=0",
        "net.ipv4.conf.default.rp_filter=0",
        "net.ipv6.conf.all.accept_ra=0",
        "net.ipv6.conf.default.accept_ra=0",
    )


def forwarding(name):
    sysctl(
        name,
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "net.ipv4.conf.all.send_redirects=0",
        "net.ipv4.conf.default.send_redirects=0",
    )


def bridge_netfilter(name, value):
    sysctl(
        name,
        f"net.bridge.bridge-nf-call-iptables={value}",
        f"net.bridge.bridge-nf-call-ip6tables={value}",
    )


def join(name, network, host, router_link, dual, bridged):
    """A veth pair: eth0 in the namespace, router_link in the router."""
    run(
        "ip",
        "link",
        "add",
        "eth0",
        "netns",
        conf.netns(name),
        "type",
        "veth",
        "peer",
        "name",
        router_link,
        "netns",
        conf.netns("router"),
    )
    address(name, "eth0", network, host, dual)
    ip(name, "link", "set", "eth0", "up")
    if bridged:
        ip("router", "link", "set", router_link, "master", BRIDGE)
    else:
        address("router", router_link, network, 1, dual)
    ip("router", "link", "set", router_link, "up")
    ip(name, "route", "add", "default", "via", f"{network[0]}1")
    if dual:
        ip(name, "-6", "route", "add", "default", "via", f"{network[2]}1")


def route_pods(name, node):
    """A namespace's routes to the pods of one node."""
    for cidr, via in zip(node.pod_cidrs, node.ips, strict=False):
        ip(name, "route", "add", cidr, "via", via)


def plug_in(state, node):
    host = conf.FIRST_NODE + node.number - 1
    join(node.name, conf.UNDERLAY, host, f"{node.name}-0", state.dual, bridged=True)
    forwarding(node.name)
    # Pods of one node talk over its bridge; a proxy that works with netfilter must see that.
    bridge_netfilter(node.name, 1)


def node_down(node):
    run("ip", "netns", "del", node.netns)


def node_up(state, node):
    """A node that was there before: the others have their routes still."""
    port = f"{node.name}-0"
    wait_for(f"the end of {port}", lambda: port not in ip("router", "-br", "link"), every=0.1)
    create(node.name)
    plug_in(state, node)
    for other in state.node_list():
        if other != node:
            route_pods(node.name, other)


def up(state):
    nodes = state.node_list()
    for name in ["router", "control", "client"] + [node.name for node in nodes]:
        create(name)
    ip("router", "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
    ip("router", "link", "set", BRIDGE, "up")
    address("router", BRIDGE, conf.UNDERLAY, 1, state.dual)
    bridge_netfilter("router", 0)
    join("client", conf.OUTSIDE, conf.CLIENT, "out0", state.dual, bridged=False)
    join("control", conf.UNDERLAY, conf.CONTROL, "control0", state.dual, bridged=True)
    for node in nodes:
        plug_in(state, node)
    forwarding("router")
    sysctl("router", "net.ipv4.fib_multipath_hash_policy=1", "net.ipv6.fib_multipath_hash_policy=1")
    for node in nodes:
        for name in ["router", "control"] + [other.name for other in nodes if other != node]:
            route_pods(name, node)


def down():
    for line in run("ip", "netns", "list", check=False).splitlines():
        name = line.split()[0]
        if name.startswith(conf.PREFIX + "-"):
            run("ip", "netns", "del", name, check=False)
