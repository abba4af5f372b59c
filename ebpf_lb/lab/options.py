"""What `lab up` can be told."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Family

FAMILIES = ("ipv4", "ipv6", "dual")
PROXIES = ("ebpf-lb", "none")
NETWORKS = ("routes", "vxlan", "udp")
POD_NETWORKS = ("bridge", "ptp")
XDP_MODES = ("off", "generic", "native", "auto")
HOST_ROUTINGS = ("stack", "bpf")
NODES_MAX = 100  # node addresses are .11 to .110 in the underlay
CLIENTS_MAX = 100
DEFAULT_NAME = "lab"

# No dots: the host's name follows after a hyphen, and pods' names contain dots (names.py).
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


class OptionsError(UserError):
    """An option's value that a lab cannot have."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a lab is built. Raises OptionsError for values out of range.

    family: IP families of nodes, pods and Services.
    proxy: who implements Services; "none" leaves the nodes without, to start another one there.
    network: how packets travel between nodes: routed as they are, in VXLAN (flannel's way), or in
        UDP by devices without Ethernet header (flannel's first way; WireGuard's look alike).
    pods: how pods hang on their node: ports of a bridge (the bridge CNI), or routed veths (ptp).
    bridge_netfilter: whether bridged packets pass iptables and nftables too
        (net.bridge.bridge-nf-call-iptables), as kube-proxy asks for.
    hairpin_mode: whether a bridge port may send a packet back where it came from. Off, as the
        bridge CNI's `hairpinMode` is unless configured: what works without it works with it.
        Proxies that leave a pod's connection to itself to the bridge (kube-proxy) need it on.
    clients: machines outside the cluster.
    host_routing: the agents' --host-routing.
    xdp: the agents' --xdp.
    dns: whether there is cluster DNS, and pods resolve names by it.
    socket_hooks: whether the nodes' own processes are served at their sockets; else as on nodes
        without cgroup v2.
    """

    nodes: int = 3
    family: str = "dual"
    proxy: str = "ebpf-lb"
    network: str = "routes"
    pods: str = "bridge"
    bridge_netfilter: bool = True
    hairpin_mode: bool = False
    clients: int = 1
    host_routing: str = "stack"
    xdp: str = "off"
    socket_hooks: bool = True
    dns: bool = True

    def __post_init__(self) -> None:
        _in_range("nodes", self.nodes, NODES_MAX)
        _in_range("clients", self.clients, CLIENTS_MAX)
        for name, allowed in (
            ("family", FAMILIES),
            ("proxy", PROXIES),
            ("network", NETWORKS),
            ("pods", POD_NETWORKS),
            ("host_routing", HOST_ROUTINGS),
            ("xdp", XDP_MODES),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise OptionsError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")

    @property
    def families(self) -> tuple[Family, ...]:
        """The families in use, the primary one first."""
        return {
            "ipv4": (Family.IPV4,),
            "ipv6": (Family.IPV6,),
            "dual": (Family.IPV4, Family.IPV6),
        }[self.family]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check_name(name: str) -> str:
    """The lab's name itself; OptionsError if no lab can have it."""
    if not _NAME.fullmatch(name):
        raise OptionsError(
            f"{name!r} cannot name a lab: use up to 32 small letters, digits and hyphens"
        )
    return name


def _in_range(name: str, value: int, largest: int) -> None:
    if not 1 <= value <= largest:
        raise OptionsError(f"{name} must be between 1 and {largest}, not {value}")
