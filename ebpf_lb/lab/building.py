"""How a lab comes to be, step by step, and how all of it goes."""

import contextlib
import shutil
import time
from collections.abc import Callable

from ebpf_lb.lab import cgroups, kubeconfig, namespaces, nodes, services, topology
from ebpf_lb.lab.coredns import install as install_dns
from ebpf_lb.lab.names import LABS, LabNames, clients
from ebpf_lb.lab.objects.client import Client
from ebpf_lb.lab.options import Options
from ebpf_lb.lab.processes import Process
from ebpf_lb.lab.state import State

_API_WITHIN_S = 60
_REAPED_WITHIN_S = 3  # some systems' process 1 looks for ended children every other second only


def build(kept: State, progress: Callable[[str], None]) -> None:
    """Everything down to the agents, which nobody waits for. NotServingError, TopologyError."""
    names, options = kept.names, kept.options
    every_node = names.nodes(options)
    progress(f"building {options.nodes} nodes out of network namespaces")
    _make_folders(names, options)
    topology.build_core(names, options)
    api_server = services.start_api_server(names, options, kept.recorder(services.API_SERVER))
    topology.build_rest(names, options)  # while the API server starts
    _wait_for_api_server(names, api_server)
    client = Client(names.api_socket)
    for node in every_node:
        nodes.register(client, node)
    for host in ["admin", *(node.name for node in every_node)]:
        kubeconfig.write(names, options, host)
    if options.network == "udp":
        for node in every_node:
            services.start_udp_tunnel(node, kept.recorder(node.tunnel))
    services.start_kubelet(names, kept.recorder(services.KUBELET))
    services.start_cloud(names, kept.recorder(services.CLOUD))
    if options.dns:
        install_dns(client, options)
    if options.proxy == "ebpf-lb":
        progress("starting an agent on each node")
        for node in every_node:
            services.start_agent(node, options, kept.recorder(node.agent))
    kept.complete = True
    kept.save()


def _make_folders(names: LabNames, options: Options) -> None:
    names.pod_records.mkdir()
    (names.dir / "logs" / "pods").mkdir(parents=True)
    for host in ["router", "control", services.KUBELET, *clients(options)]:
        cgroups.make(names.cgroup / host)
    for node in names.nodes(options):
        cgroups.make(node.host_cgroup)
        cgroups.make(node.cgroup / "pods")
        node.bpffs.mkdir(parents=True)


def _wait_for_api_server(names: LabNames, process: Process) -> None:
    log = names.log(services.API_SERVER)
    end = time.monotonic() + _API_WITHIN_S
    while not services.api_server_serves(names):
        if not process.alive:
            raise services.complaint("the lab's API server ended", log)
        if time.monotonic() > end:
            raise services.complaint("the lab's API server does not answer", log)
        time.sleep(0.02)


def remove(names: LabNames) -> None:
    """By names alone: nothing depends on what was recorded. Processes go first, and with them the
    kubelet, which would make more; the state last, so that all can be tried again."""
    cgroups.kill(names.cgroup, _REAPED_WITHIN_S)
    for path in names.existing_netns():
        namespaces.remove(path)
    if names.bpffs.exists():
        shutil.rmtree(names.bpffs)
    cgroups.remove(names.cgroup)
    shutil.rmtree(names.dir, ignore_errors=True)
    for parent in (LABS, LABS.parent):
        with contextlib.suppress(OSError):  # other labs are in it
            parent.rmdir()
