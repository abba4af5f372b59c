"""What is read of Nodes and of ServiceCIDRs."""

from ebpf_lb.kube.parse import (
    parse_node,
    parse_service_cidr,
)
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.node import Node
from ebpf_lb.model.service_cidr import ServiceCIDR
from ebpf_lb.model.values import parse_address, parse_network


def test_a_service_cidr() -> None:
    cidrs = ["10.96.0.0/12", "fd00:10:96::/108", "10.0.0.1"]
    parsed = parse_service_cidr({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}})
    assert parsed.problems == () and parsed.value is not None
    assert parsed.value.networks == tuple(map(parse_network, cidrs))
    refused = parse_service_cidr({"metadata": {"name": "k"}, "spec": {"cidrs": ["x", 3]}})
    assert len(refused.problems) == 2
    assert refused.value == ServiceCIDR(ObjectKey("", "k"), ())


def test_a_node() -> None:
    parsed = parse_node(
        {
            "metadata": {
                "name": "node1",
                "labels": {"topology.kubernetes.io/zone": "a"},
                "deletionTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "podCIDR": "10.244.1.0/24",
                "podCIDRs": ["10.244.1.0/24", "fd00:244:1::/64"],
                "taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}],
            },
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "node1"},
                    {"type": "ExternalIP", "address": "198.51.100.1"},
                    {"type": "InternalIP", "address": "192.168.0.1"},
                    {"type": "InternalIP", "address": "fd00:192::1"},
                ],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            },
        }
    )
    assert parsed.problems == ()
    assert parsed.value == Node(
        name="node1",
        zone="a",
        addresses=tuple(map(parse_address, ["192.168.0.1", "fd00:192::1", "198.51.100.1"])),
        pod_networks=(parse_network("10.244.1.0/24"), parse_network("fd00:244:1::/64")),
        taints=frozenset({"ToBeDeletedByClusterAutoscaler"}),
        deleting=True,
        kubelet_port=10250,
    )
    assert parse_node({"metadata": {"name": "n"}}).value == Node(name="n")
