"""`ebpf-lb agent`: the process that runs on every node."""

import os
from pathlib import Path

import click


@click.command()
@click.option("--kubeconfig", metavar="FILE", help="Credentials; default: those of a pod.")
@click.option("--node-name", metavar="NAME", help="Name of this Node; default: the host's name.")
@click.option("--cluster-cidr", metavar="CIDR,…", help="The pods' networks.")
@click.option(
    "--node-port-addresses",
    metavar="CIDR|primary|localhost|all,…",
    help="Where NodePorts answer; default: on all addresses of the node, and localhost.",
)
@click.option(
    "--uplink-interfaces",
    metavar="PATTERN,…",
    help="Names of further interfaces by which clients outside the cluster come.",
)
@click.option(
    "--endpoints-source",
    metavar="auto|slices|endpoints",
    help="EndpointSlices or Endpoints objects; default: slices where the API server has them.",
)
@click.option(
    "--algorithm",
    metavar="random|maglev",
    help="How connections are spread over backends; maglev: by consistent hashing.",
)
@click.option(
    "--host-routing",
    metavar="stack|bpf",
    help="How packets get through the host: by its stack, or past it by eBPF; default: stack.",
)
@click.option(
    "--xdp",
    metavar="off|generic|native|auto",
    help="Serve backends on other nodes by XDP on the uplinks; default: off.",
)
@click.option(
    "--tc-hooks",
    metavar="auto|tcx|clsact",
    help="How programs are attached to interfaces; default: by tcx where the kernel has it.",
)
@click.option(
    "--compile",
    "anew",
    is_flag=True,
    help="Compile the programs from their sources, as their developers do.",
)
@click.option("--bpffs", metavar="DIR", help="Where to pin; default: /sys/fs/bpf/ebpf-lb.")
@click.option(
    "--cgroup",
    metavar="DIR|none",
    help="The node's cgroup v2; default: the root; none: serve its own processes at TC only.",
)
@click.option(
    "--config",
    "file",
    metavar="FILE",
    envvar="EBPF_LB_CONFIG",
    type=click.Path(path_type=Path),
    help="Everything else, as YAML.",
)
def agent(
    kubeconfig: str | None,
    node_name: str | None,
    cluster_cidr: str | None,
    node_port_addresses: str | None,
    uplink_interfaces: str | None,
    endpoints_source: str | None,
    algorithm: str | None,
    host_routing: str | None,
    xdp: str | None,
    tc_hooks: str | None,
    anew: bool,
    bpffs: str | None,
    cgroup: str | None,
    file: Path | None,
) -> None:
    """Watch the API server and forward Services by eBPF, in kube-proxy's place.

    Each option has an environment variable (EBPF_LB_NODE_NAME) and a key in the configuration file
    (nodeName); a flag wins over the environment, that over the file.
    """
    from ebpf_lb.agent.config import load

    flags = {
        "kubeconfig": kubeconfig,
        "node_name": node_name,
        "cluster_cidrs": cluster_cidr,
        "node_port_addresses": node_port_addresses,
        "uplink_interfaces": uplink_interfaces,
        "endpoints_source": endpoints_source,
        "algorithm": algorithm,
        "host_routing": host_routing,
        "xdp": xdp,
        "tc_hooks": tc_hooks,
        "compile": "true" if anew else None,
        "bpffs": bpffs,
        "cgroup": cgroup,
    }
    config, warnings = load(flags, os.environ, file)
    if os.geteuid() != 0:
        raise click.ClickException("`ebpf-lb agent` needs root: run it with sudo.")
    from ebpf_lb.agent.servers.pages import Probes

    probes = Probes(config)
    from ebpf_lb.agent.host.preparation import Preparation

    preparation = Preparation(config.bpffs, config.settings, anew=config.compile)
    from ebpf_lb.agent.run import run  # takes half a second

    run(config, warnings, probes, preparation)
