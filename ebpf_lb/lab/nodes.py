"""The nodes as the API knows them."""

import os
from pathlib import Path
from platform import freedesktop_os_release, machine, release
from typing import Any

from ebpf_lb.lab.names import NodeNames
from ebpf_lb.lab.objects.client import Client

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # Go's names
# All of the machine's, for every node; a node's network has this many addresses for pods.
_CAPACITY = {
    "cpu": str(os.cpu_count()),
    "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // 1024}Ki",
    "pods": "253",
}


def register(client: Client, node: NodeNames) -> None:
    """Creates the Node, with what a kubelet and a cloud would tell of it: as in upstream, a node
    registers itself together with its status."""
    client.create("/api/v1/nodes", manifest(node))


def manifest(node: NodeNames) -> dict[str, Any]:
    addresses = [{"type": "InternalIP", "address": address} for address in node.addresses]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": {
                "kubernetes.io/arch": _ARCHITECTURES.get(machine(), machine()),
                "kubernetes.io/hostname": node.name,
                "kubernetes.io/os": "linux",
                "topology.kubernetes.io/region": "lab",
                "topology.kubernetes.io/zone": node.zone,
            },
        },
        "spec": {"podCIDR": node.pod_cidrs[0], "podCIDRs": list(node.pod_cidrs)},
        "status": {
            "addresses": [*addresses, {"type": "Hostname", "address": node.name}],
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "LabNode", "message": "it is there"}
            ],
            "capacity": _CAPACITY,
            "allocatable": _CAPACITY,
            "nodeInfo": {  # none of these may be left out
                "architecture": _ARCHITECTURES.get(machine(), machine()),
                "bootID": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
                "containerRuntimeVersion": "ebpf-lb-lab",
                "kernelVersion": release(),
                "kubeProxyVersion": "",
                "kubeletVersion": "ebpf-lb-lab",
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": freedesktop_os_release().get("PRETTY_NAME", "Linux"),
                "systemUUID": "",
            },
        },
    }
