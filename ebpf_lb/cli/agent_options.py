"""The agent's options, kube-proxy's flags among them: for the agent, and for whoever wants to know
what it would do with them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from ebpf_lb.agent.config import Resolved

F = TypeVar("F", bound=Callable[..., Any])


class _Option(NamedTuple):
    """One of ours. `field`: the name in Config."""

    flag: str
    field: str
    metavar: str
    help: str


_OPTIONS = (
    _Option("kubeconfig", "kubeconfig", "FILE", "Credentials; default: those of a pod."),
    _Option("node-name", "node_name", "NAME", "Name of this Node; default: the host's name."),
    _Option("cluster-cidr", "cluster_cidrs", "CIDR,…", "The pods' networks."),
    _Option(
        "node-port-addresses",
        "node_port_addresses",
        "CIDR|primary|localhost|all,…",
        "Where NodePorts answer; default: on all addresses of the node, and localhost.",
    ),
    _Option(
        "uplink-interfaces",
        "uplink_interfaces",
        "PATTERN,…",
        "Names of further interfaces by which clients outside the cluster come.",
    ),
    _Option(
        "endpoints-source",
        "endpoints_source",
        "auto|slices|endpoints",
        "EndpointSlices or Endpoints objects; default: slices where the API server has them.",
    ),
    _Option(
        "algorithm",
        "algorithm",
        "random|rr|lc|sh|maglev",
        "How connections are spread over backends: in turn, to the fewest connections, by the "
        "client's address, by consistent hashing.",
    ),
    _Option(
        "host-routing",
        "host_routing",
        "stack|bpf",
        "How packets get through the host: by its stack, or past it by eBPF; default: stack.",
    ),
    _Option(
        "xdp",
        "xdp",
        "off|generic|native|auto",
        "Serve backends on other nodes by XDP on the uplinks; default: off.",
    ),
    _Option(
        "tc-hooks",
        "tc_hooks",
        "auto|tcx|clsact",
        "How programs are attached to interfaces; default: by tcx where the kernel has it.",
    ),
    _Option("bpffs", "bpffs", "DIR", "Where to pin; default: /sys/fs/bpf/ebpf-lb."),
    _Option(
        "cgroup",
        "cgroup",
        "DIR|none",
        "The node's cgroup v2; default: the root; none: serve its own processes at TC only.",
    ),
)

KUBE_PROXYS = {
    "bind-address": "bindAddress",
    "bind-address-hard-fail": "bindAddressHardFail",
    "config-sync-period": "configSyncPeriod",
    "conntrack-max-per-core": "conntrack.maxPerCore",
    "conntrack-min": "conntrack.min",
    "conntrack-tcp-be-liberal": "conntrack.tcpBeLiberal",
    "conntrack-tcp-timeout-close-wait": "conntrack.tcpCloseWaitTimeout",
    "conntrack-tcp-timeout-established": "conntrack.tcpEstablishedTimeout",
    "conntrack-udp-timeout": "conntrack.udpTimeout",
    "conntrack-udp-timeout-stream": "conntrack.udpStreamTimeout",
    "detect-local-mode": "detectLocalMode",
    "feature-gates": "featureGates",
    "healthz-bind-address": "healthzBindAddress",
    "hostname-override": "hostnameOverride",
    "iptables-localhost-nodeports": "iptables.localhostNodePorts",
    "iptables-masquerade-bit": "iptables.masqueradeBit",
    "iptables-min-sync-period": "iptables.minSyncPeriod",
    "iptables-sync-period": "iptables.syncPeriod",
    "ipvs-exclude-cidrs": "ipvs.excludeCIDRs",
    "ipvs-min-sync-period": "ipvs.minSyncPeriod",
    "ipvs-scheduler": "ipvs.scheduler",
    "ipvs-strict-arp": "ipvs.strictARP",
    "ipvs-sync-period": "ipvs.syncPeriod",
    "ipvs-tcp-timeout": "ipvs.tcpTimeout",
    "ipvs-tcpfin-timeout": "ipvs.tcpFinTimeout",
    "ipvs-udp-timeout": "ipvs.udpTimeout",
    "kube-api-burst": "clientConnection.burst",
    "kube-api-content-type": "clientConnection.contentType",
    "kube-api-qps": "clientConnection.qps",
    "log-flush-frequency": "logging.flushFrequency",
    "logging-format": "logging.format",
    "masquerade-all": "linux.masqueradeAll",
    "metrics-bind-address": "metricsBindAddress",
    "min-sync-period": "minSyncPeriod",
    "nodeport-addresses": "nodePortAddresses",
    "oom-score-adj": "oomScoreAdj",
    "pod-bridge-interface": "detectLocal.bridgeInterface",
    "pod-interface-name-prefix": "detectLocal.interfaceNamePrefix",
    "profiling": "enableProfiling",
    "proxy-mode": "mode",
    "show-hidden-metrics-for-version": "showHiddenMetricsForVersion",
    "sync-period": "syncPeriod",
    "v": "logging.verbosity",
    "vmodule": "logging.vmodule",
}
"""kube-proxy's flags: what a KubeProxyConfiguration calls the same."""

_SWITCHES = frozenset(
    {
        "cleanup",
        "cleanup-ipvs",
        "bind-address-hard-fail",
        "conntrack-tcp-be-liberal",
        "iptables-localhost-nodeports",
        "ipvs-strict-arp",
        "masquerade-all",
        "profiling",
    }
)

_REFUSED = {
    "cleanup": "`ebpf-lb cleanup` removes every trace of ebpf-lb from a node",
    "cleanup-ipvs": "`ebpf-lb cleanup` removes every trace of ebpf-lb from a node",
    "master": "name the API server in a kubeconfig, by --kubeconfig",
    "write-config-to": "`ebpf-lb config show` prints what is in force",
}


def agent_options(command: F) -> F:
    """All of them; the command takes them as keywords, and `resolve` makes a configuration."""
    for flag in (*_REFUSED, *KUBE_PROXYS):
        names = ("-v", "--v") if flag == "v" else (f"--{flag}",)
        # hidden: configuration.md lists them with what they mean here
        command = click.option(
            *names,
            _of_kube_proxy(flag),
            is_flag=False,
            flag_value="true" if flag in _SWITCHES else None,
            hidden=True,
        )(command)
    command = click.option(
        "--config",
        "file",
        metavar="FILE",
        envvar="EBPF_LB_CONFIG",
        type=click.Path(path_type=Path),
        help="Everything else, as YAML; kube-proxy's own file will do. Its flags are understood.",
    )(command)
    command = click.option(
        "--compile",
        is_flag=True,
        help="Compile the programs from their sources, as their developers do.",
    )(command)
    for one in reversed(_OPTIONS):
        command = click.option(f"--{one.flag}", one.field, metavar=one.metavar, help=one.help)(
            command
        )
    return command


def resolve(said: dict[str, Any]) -> Resolved:
    """What is in force with these options, by their keywords. ConfigError."""
    from ebpf_lb.agent.config import load

    for flag, instead in _REFUSED.items():
        if said.get(_of_kube_proxy(flag)) is not None:
            raise click.UsageError(f"kube-proxy's --{flag} has no place here: {instead}.")
    flags = {one.field: said.get(one.field) for one in _OPTIONS}
    flags["compile"] = "true" if said.get("compile") else None
    kube_proxys = {
        path: (value, f"--{flag}" if flag != "v" else "-v")
        for flag, path in KUBE_PROXYS.items()
        if (value := said.get(_of_kube_proxy(flag))) is not None
    }
    return load(flags, os.environ, said["file"], kube_proxys)


def _of_kube_proxy(flag: str) -> str:
    """The keyword: ours may have the same name."""
    return f"kube_proxys_{flag.replace('-', '_')}"
