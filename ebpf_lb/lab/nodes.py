"""The nodes as the API knows them."""

from platform import machine
from typing import Any

from ebpf_lb.lab.names import NodeNames
from ebpf_lb.lab.objects.client import Client

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # Go's names


def register(client: Client, node: NodeNames) -> None:
    """Creates the Node, with what a kubelet and a cloud would tell of it."""
    created = client.create("/api/v1/nodes", manifest(node))
    patch = {"metadata": {"uid": created["metadata"]["uid"]}, "status": manifest(node)["status"]}
    client.patch(f"/api/v1/nodes/{node.name}/status", patch, "application/merge-patch+json")


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
        },
    }
