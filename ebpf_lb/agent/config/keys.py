"""What can be configured: the values, their defaults, and how each is read."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from ebpf_lb.agent.config import parsers
from ebpf_lb.datapath.pins import DEFAULT_ROOT
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.service import Algorithm
from ebpf_lb.model.values import Network

# What CNIs call the host's end of a pod's interface: bridge, ptp, flannel, kindnet and docker;
# Calico; Cilium; Amazon's; Google's; Azure's.
POD_INTERFACES = ("veth*", "cali*", "lxc*", "eni*", "gke*", "azv*", "cni-*")

ENDPOINTS_SOURCES = ("auto", "slices", "endpoints")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Where the agent runs, what it talks to, and how it decides.

    kubeconfig: None for the credentials that a pod finds in its container.
    node_name: the Node object that is us.
    cluster_cidrs: the pods' networks; who is in one is a client inside the cluster.
    cgroup: the node's root in cgroup version 2; None (the word `none`, or nothing mounted): the
        node's own processes are not served at their sockets but at TC, packet by packet.
    pod_interfaces: shell patterns of the names that pods' interfaces have on the host.
    uplink_interfaces: of those by which outside clients or other nodes come, where it does not show
        by a default route, an address or the kind of device.
    ignored_interfaces: of those that are left alone.
    node_port_addresses: where NodePorts answer: networks, or "primary"; empty: on all addresses.
    endpoints_source: EndpointSlices ("slices"), Endpoints objects ("endpoints"), or ("auto") slices
        where the API server has them.
    algorithm: how connections are spread over backends of Services that do not say so themselves:
        "random" or "maglev" (consistent hashing).
    masquerade_all: ClusterIP traffic, too, gets an address of the node as its source.
    filter_preference: ours among a hook's TC filters; lower ones run first.
    xdp: on uplinks, before TC (see `agent.network.xdp`): "off"; "native", in the driver; "auto",
        native where that can be; "generic", after the driver: for trying things, not quicker than
        TC.
    healthz_bind_address, metrics_bind_address: host and port; None: not served.
    watch_timeout_s: after that long the API server ends a watch, and a new one goes on from there.
    watch_silence_s: a connection without a byte for that long is given up.
    conntrack_max_per_core, conntrack_min, conntrack_tcp_established_s, conntrack_tcp_close_wait_s:
        the kernel's own connection tracking is raised to these, kube-proxy's defaults; 0: left
        alone. See `agent.host.conntrack`.
    reject_per_second: refusals that the whole node sends a second, at most; 0: no limit.
    settings: capacities and time-outs that are compiled in.
    """

    kubeconfig: Annotated[Path | None, parsers.path] = None
    node_name: Annotated[str, parsers.text] = ""
    cluster_cidrs: Annotated[tuple[Network, ...], parsers.networks] = ()
    bpffs: Annotated[Path, parsers.path] = DEFAULT_ROOT
    cgroup: Annotated[Path | None, parsers.path_or_none] = None
    pod_interfaces: Annotated[tuple[str, ...], parsers.words] = POD_INTERFACES
    uplink_interfaces: Annotated[tuple[str, ...], parsers.words] = ()
    ignored_interfaces: Annotated[tuple[str, ...], parsers.words] = ()
    node_port_addresses: Annotated[
        tuple[Network | Literal["primary"], ...], parsers.node_port_addresses
    ] = ()
    endpoints_source: Annotated[str, parsers.choice(*ENDPOINTS_SOURCES)] = "auto"
    algorithm: Annotated[str, parsers.choice(*(one.value for one in Algorithm))] = "random"
    masquerade_all: Annotated[bool, parsers.boolean] = False
    filter_preference: Annotated[int, parsers.whole(1, 65534)] = 49000
    xdp: Annotated[str, parsers.xdp_mode] = "off"
    healthz_bind_address: Annotated[tuple[str, int] | None, parsers.bind_address] = (
        "0.0.0.0",
        10256,
    )
    metrics_bind_address: Annotated[tuple[str, int] | None, parsers.bind_address] = (
        "127.0.0.1",
        10249,
    )
    log_level: Annotated[str, parsers.choice("debug", "info", "warning", "error")] = "info"
    log_format: Annotated[str, parsers.choice("auto", "console", "json")] = "auto"
    list_page_size: Annotated[int, parsers.whole(1, 100_000)] = 200
    watch_timeout_s: Annotated[int, parsers.whole(10, 86_400)] = 300
    watch_silence_s: Annotated[int, parsers.whole(5, 3600)] = 75
    conntrack_max_per_core: Annotated[int, parsers.whole(0, 1 << 24)] = 32_768
    conntrack_min: Annotated[int, parsers.whole(0, 1 << 30)] = 131_072
    conntrack_tcp_established_s: Annotated[int, parsers.whole(0, 1 << 24)] = 86_400
    conntrack_tcp_close_wait_s: Annotated[int, parsers.whole(0, 1 << 24)] = 3600
    reject_per_second: Annotated[int, parsers.whole(0, 1_000_000)] = 1000
    settings: Settings = field(default_factory=Settings)
