"""Names, addresses and paths of a lab, all derived from its name: so whatever a lab made can be
found again without any record of it."""

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ebpf_lb.datapath.pins import BPFFS
from ebpf_lb.errors import UserError
from ebpf_lb.lab.options import Options, check_name
from ebpf_lb.model.values import Family

LABS = Path("/run/ebpf-lb/labs")
NETNS = Path("/run/netns")  # where ip-netns(8) keeps them, so that people find them

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Cidr = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Segment:
    """A subnet in both families."""

    ipv4: ipaddress.IPv4Network
    ipv6: ipaddress.IPv6Network

    def networks(self, families: tuple[Family, ...]) -> tuple[Cidr, ...]:
        return tuple(self.ipv4 if family is Family.IPV4 else self.ipv6 for family in families)

    def host(self, number: int, families: tuple[Family, ...]) -> tuple[Interface, ...]:
        """The addresses of the subnet's host number `number`, with prefix lengths."""
        return tuple(
            ipaddress.ip_interface(f"{network[number]}/{network.prefixlen}")
            for network in self.networks(families)
        )


def _segment(ipv4: str, ipv6: str) -> Segment:
    return Segment(ipaddress.IPv4Network(ipv4), ipaddress.IPv6Network(ipv6))


UNDERLAY = _segment("172.30.0.0/24", "fd30::/64")
OUTSIDE = _segment("172.31.0.0/24", "fd31::/64")
PODS = _segment("10.244.0.0/16", "fd00:10:244::/48")
SERVICES = _segment("10.96.0.0/16", "fd00:10:96::/112")
LOAD_BALANCERS = _segment("172.29.0.0/24", "fd29::/112")  # the cloud's to give
ROUTER_HOST, CONTROL_HOST, NODE_HOST, CLIENT_HOST = 1, 10, 10, 1  # node1 is .11, client1 is .2
API_PORT = 6443
DNS_HOST = 10  # in SERVICES: 10.96.0.10 and fd00:10:96::a
CLUSTER_DOMAIN = "cluster.local"
UNDERLAY_BRIDGE = "underlay"
OUTSIDE_BRIDGE = "outside"
POD_BRIDGE = "cni0"
UPLINK = "eth0"


class NoSuchHostError(UserError):
    """A host that the lab does not have."""


@dataclass(frozen=True)
class NodeNames:
    """A node: what it is called and where its things are. `number` counts from 1."""

    lab: "LabNames"
    number: int
    families: tuple[Family, ...]

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def netns(self) -> Path:
        return self.lab.netns(self.name)

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """Its addresses in the underlay, with prefix lengths."""
        return UNDERLAY.host(NODE_HOST + self.number, self.families)

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(str(interface.ip) for interface in self.interfaces)

    @property
    def pod_segment(self) -> Segment:
        """Its pods' networks: 10.244.N.0/24 and fd00:10:244:N::/64."""
        ipv4 = PODS.ipv4.network_address + (self.number << 8)
        ipv6 = PODS.ipv6.network_address + (self.number << 64)
        return Segment(ipaddress.IPv4Network((ipv4, 24)), ipaddress.IPv6Network((ipv6, 64)))

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        return tuple(str(network) for network in self.pod_segment.networks(self.families))

    @property
    def zone(self) -> str:
        return "zone-" + "abc"[(self.number - 1) % 3]

    @property
    def bpffs(self) -> Path:
        return self.lab.bpffs / self.name

    @property
    def cgroup(self) -> Path:
        """The node's sockets are below it: its own processes in host/, its pods in pods/."""
        return self.lab.cgroup / self.name

    @property
    def host_cgroup(self) -> Path:
        return self.cgroup / "host"

    @property
    def agent(self) -> str:
        """The agent's name among the lab's processes."""
        return f"agent-{self.name}"

    @property
    def tunnel(self) -> str:
        """Likewise, of its process in the overlay (udp_tunnel.py)."""
        return f"tunnel-{self.name}"


@dataclass(frozen=True)
class LabNames:
    """What a lab of this name is made of. Raises OptionsError for a name that no lab can have."""

    name: str

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def dir(self) -> Path:
        """The state folder; also what commands lock."""
        return LABS / self.name

    @property
    def state_file(self) -> Path:
        return self.dir / "state.json"

    @property
    def api_dir(self) -> Path:
        """The API server's: ca.crt, token and whatever else it keeps."""
        return self.dir / "api"

    @property
    def api_socket(self) -> Path:
        return self.dir / "api.sock"

    @property
    def cloud_socket(self) -> Path:
        return self.dir / "cloud.sock"

    @property
    def pod_records(self) -> Path:
        return self.dir / "pods"

    def pod_files(self, namespace: str, pod: str) -> Path:
        """What a pod has in place of the machine's own /etc/resolv.conf and the like."""
        return self.dir / "etc" / f"{namespace}_{pod}"

    def log(self, process: str) -> Path:
        return self.dir / "logs" / f"{process}.log"

    def kubeconfig(self, host: str) -> Path:
        return self.dir / "kubeconfig" / host

    @property
    def bpffs(self) -> Path:
        return BPFFS / f"ebpf-lb-{self.name}"

    @cached_property
    def cgroup(self) -> Path:
        """In cgroup v2; every process of the lab is below it."""
        return cgroup2_root() / f"ebpf-lb-{self.name}"

    def netns(self, host: str) -> Path:
        return NETNS / f"ebpflb-{self.name}-{host}"

    def pod_netns(self, namespace: str, pod: str) -> Path:
        name = f"pod.{namespace}.{pod}"
        if len(name) > 160:  # a file name has at most 255 bytes
            name = f"{name[:140]}.{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        return self.netns(name)

    def existing_netns(self) -> list[Path]:
        """This lab's network namespaces that exist, and not those of a lab `NAME-more`."""
        mine = re.compile(
            rf"ebpflb-{re.escape(self.name)}-(router|control|client\d+|node\d+|pod\..+)"
        )
        if not NETNS.is_dir():
            return []
        return sorted(path for path in NETNS.iterdir() if mine.fullmatch(path.name))

    def nodes(self, options: Options) -> list[NodeNames]:
        return [NodeNames(self, n, options.families) for n in range(1, options.nodes + 1)]

    def node(self, options: Options, name: str) -> NodeNames:
        """Raises NoSuchHostError."""
        for node in self.nodes(options):
            if node.name == name:
                return node
        raise NoSuchHostError(
            f"lab {self.name!r} has no node {name!r}: its nodes are node1 to node{options.nodes}"
        )


def clients(options: Options) -> list[str]:
    """The machines outside: client1, client2 …; plain `client` is the first."""
    return [f"client{n}" for n in range(1, options.clients + 1)]


def client_interfaces(number: int, families: tuple[Family, ...]) -> tuple[Interface, ...]:
    return OUTSIDE.host(CLIENT_HOST + number, families)


def dns_addresses(options: Options) -> tuple[str, ...]:
    """Cluster DNS, as Services' clusterIPs."""
    return tuple(str(i.ip) for i in SERVICES.host(DNS_HOST, options.families))


def control_addresses(options: Options) -> tuple[str, ...]:
    return tuple(str(i.ip) for i in UNDERLAY.host(CONTROL_HOST, options.families))


def api_url(options: Options) -> str:
    address = control_addresses(options)[0]
    return f"https://{f'[{address}]' if ':' in address else address}:{API_PORT}"


def cgroup2_root() -> Path:
    """Where cgroup v2 is mounted, alone or beside v1; UserError if nowhere."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount_point, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(mount_point)
    raise UserError(
        "cgroup v2 is not mounted, which the lab's nodes need: "
        "mount it with `mount -t cgroup2 none /sys/fs/cgroup/unified`"
    )
