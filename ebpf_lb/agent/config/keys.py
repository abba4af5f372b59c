"""What can be configured: the values, their defaults, and how each is read."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ebpf_lb.agent.config import parsers
from ebpf_lb.datapath.attach.tcx import KINDS
from ebpf_lb.datapath.pins import DEFAULT_ROOT
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.ports import HEALTHZ_PORT, METRICS_PORT
from ebpf_lb.model.service import Algorithm
from ebpf_lb.model.values import Network
from ebpf_lb.plan.priority import DEFAULT_CRITICAL

# What CNIs call the host's end of a pod's interface: bridge, ptp, flannel, kindnet and docker;
# Calico; Cilium; Amazon's; Google's; Azure's.
POD_INTERFACES = ("veth*", "cali*", "lxc*", "eni*", "gke*", "azv*", "cni-*")

ENDPOINTS_SOURCES = ("auto", "slices", "endpoints")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Where the agent runs, what it talks to, and how it decides. The site's page of the
    configuration is made from these sentences.

    kubeconfig: the file with the API server's address and credentials; default: what a pod finds in
        its container.
    node_name: the name of this node's Node object; default: the host's name in small letters.
    cluster_cidrs: the pods' networks. A client with an address in one of them is inside the
        cluster. Default: the podCIDRs of this node.
    bpffs: the folder in which maps and programs are pinned.
    cgroup: the node's root in cgroup version 2; default: where it is mounted. With the word `none`,
        or if it is not mounted, the node's own processes are served at TC, packet by packet.
    pod_interfaces: shell patterns of the names that pods' interfaces have on the host.
    uplink_interfaces: shell patterns of interfaces by which outside clients or other nodes come,
        where that does not show by a default route, an address or the kind of device.
    ignored_interfaces: shell patterns of interfaces that are left alone.
    node_port_addresses: the addresses on which NodePorts answer: networks, and the words
        `primary` (those of the Node object), `localhost` (the node's own processes ask 127.0.0.0/8
        and ::1) and `all`, in any mixture; default: `all`.
    endpoints_source: `slices` for EndpointSlices, `endpoints` for Endpoints objects, `auto` for
        slices where the API server has them.
    algorithm: how connections are spread over the backends of Services that do not say so
        themselves: `random`; `rr`, in turn; `lc`, to the one with the fewest connections; `sh`, by
        the client's address; `maglev`, by consistent hashing.
    critical_services: Services that are programmed first and never left out, as NAMESPACE/NAME;
        what is labelled k8s-app=kube-dns beside cluster DNS is one of them, too.
    namespace_share: how much of each table one namespace can take, in percent; what is critical is
        not counted. 100: no limit.
    masquerade_all: whether connections to ClusterIPs are masqueraded, too.
    tc_hooks: how programs are put on interfaces: `tcx`, ahead of all TC filters (Linux 6.6 and
        later); `clsact`, as TC filters; `auto`: tcx where the kernel has it.
    filter_preference: with clsact, the place of our filter among a hook's TC filters; lower ones
        run first.
    host_routing: how translated packets get through the host: `stack`, by the kernel's own, as with
        kube-proxy; `bpf`, past it wherever that can be: faster, and unseen by the host's netfilter.
    xdp: where programs run on uplinks before TC: `off`; `native`, in the driver; `auto`, native
        where that is possible; `generic`, after the driver: for trying things, not quicker than TC.
    healthz_bind_address: address and port of `/healthz` and `/livez`; empty: not served.
    metrics_bind_address: address and port of `/metrics` and `/status`; empty: not served.
    log_level: `debug`, `info`, `warning` or `error`.
    log_format: `console`, `json`, or `auto` for console on a terminal and JSON elsewhere.
    list_page_size: how many objects one answer of the API server holds, at most.
    watch_timeout_s: seconds after which the API server ends a watch; a new one goes on from there.
    watch_silence_s: seconds without a byte after which a connection is given up.
    conntrack_max_per_core, conntrack_min: entries of the kernel's own connection tracking, for each
        processor and at least; its limit is raised to these, kube-proxy's defaults. 0 leaves it
        alone.
    conntrack_tcp_established_s, conntrack_tcp_close_wait_s: its time-outs, raised likewise.
    sync_period_s: seconds from one comparison of all maps with the plan to the next, at least; it
        takes no more than a hundredth of a processor, whatever the number of Services. 0: never.
    backend_metrics: of how many backends metrics tell the connections: of those first that most
        connections wait for or were refused by. Each reading of the metrics then goes through the
        connection table. 0: of none.
    reject_per_second: how many refusals the whole node sends in a second, at most; 0: no limit.
    compile: whether the programs are compiled from their sources, where the cache does not have
        them, though they were compiled when ebpf-lb was built: for whoever develops them.
    settings: capacities and time-outs that programs and maps are loaded with.
    """

    kubeconfig: Annotated[Path | None, parsers.path] = None
    node_name: Annotated[str, parsers.text] = ""
    cluster_cidrs: Annotated[tuple[Network, ...], parsers.networks] = ()
    bpffs: Annotated[Path, parsers.path] = DEFAULT_ROOT
    cgroup: Annotated[Path | None, parsers.path_or_none] = None
    pod_interfaces: Annotated[tuple[str, ...], parsers.words] = POD_INTERFACES
    uplink_interfaces: Annotated[tuple[str, ...], parsers.words] = ()
    ignored_interfaces: Annotated[tuple[str, ...], parsers.words] = ()
    node_port_addresses: Annotated[tuple[Network | str, ...], parsers.node_port_addresses] = ()
    endpoints_source: Annotated[str, parsers.choice(*ENDPOINTS_SOURCES)] = "auto"
    algorithm: Annotated[str, parsers.choice(*(one.value for one in Algorithm))] = "random"
    critical_services: Annotated[tuple[ObjectKey, ...], parsers.object_keys] = DEFAULT_CRITICAL
    namespace_share: Annotated[int, parsers.whole(1, 100)] = 50
    masquerade_all: Annotated[bool, parsers.boolean] = False
    compile: Annotated[bool, parsers.boolean] = False
    tc_hooks: Annotated[str, parsers.choice(*KINDS)] = "auto"
    filter_preference: Annotated[int, parsers.whole(1, 65534)] = 49000
    host_routing: Annotated[str, parsers.choice("stack", "bpf")] = "stack"
    xdp: Annotated[str, parsers.xdp_mode] = "off"
    healthz_bind_address: Annotated[tuple[str, int] | None, parsers.bind_address] = (
        "0.0.0.0",
        HEALTHZ_PORT,
    )
    metrics_bind_address: Annotated[tuple[str, int] | None, parsers.bind_address] = (
        "localhost",
        METRICS_PORT,
    )
    log_level: Annotated[str, parsers.choice("debug", "info", "warning", "error")] = "info"
    log_format: Annotated[str, parsers.choice("auto", "console", "json")] = "auto"
    list_page_size: Annotated[int, parsers.whole(1, 100_000)] = 200
    watch_timeout_s: Annotated[int, parsers.whole(10, 86_400)] = 300
    watch_silence_s: Annotated[int, parsers.whole(5, 3600)] = 150
    conntrack_max_per_core: Annotated[int, parsers.whole(0, 1 << 24)] = 32_768
    conntrack_min: Annotated[int, parsers.whole(0, 1 << 30)] = 131_072
    conntrack_tcp_established_s: Annotated[int, parsers.whole(0, 1 << 24)] = 86_400
    conntrack_tcp_close_wait_s: Annotated[int, parsers.whole(0, 1 << 24)] = 3600
    sync_period_s: Annotated[int, parsers.whole(0, 86_400)] = 30
    backend_metrics: Annotated[int, parsers.whole(0, 10_000)] = 0
    reject_per_second: Annotated[int, parsers.whole(0, 1_000_000)] = 1000
    settings: Settings = field(default_factory=Settings)
