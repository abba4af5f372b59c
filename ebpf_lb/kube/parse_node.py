"""`v1` Nodes."""

from ebpf_lb.kube.reader import Json, Parsed, Reader
from ebpf_lb.model.node import Node

ZONE = "topology.kubernetes.io/zone"


def parse_node(raw: Json) -> Parsed[Node]:
    """A `v1` Node. Host names among its addresses are passed over."""
    read = Reader("Node", raw)
    if not read.key.name:
        read.refuse("metadata.name", read.key.name, "an object needs a name")
        return read.done(None)
    spec = read.mapping(raw, "spec", "spec")
    status = read.mapping(raw, "status", "status")
    field = "podCIDRs" if spec.get("podCIDRs") else "podCIDR"
    given = spec.get(field)
    networks = given if isinstance(given, list) else [given] if given else []
    zone = read.labels.get(ZONE)
    return read.done(
        Node(
            name=read.key.name,
            zone=zone if isinstance(zone, str) else "",
            addresses=_node_addresses(read, status),
            pod_networks=read.networks((f"spec.{field}", text) for text in networks),
            taints=frozenset(
                key
                for _, taint in read.mappings(spec, "taints", "spec.taints")
                if isinstance(key := taint.get("key"), str)
            ),
            deleting=read.metadata.get("deletionTimestamp") is not None,
            kubelet_port=_kubelet_port(read, status),
        )
    )


def _kubelet_port(read: Reader, status: Json) -> int:
    field = "status.daemonEndpoints"
    endpoints = read.mapping(status, "daemonEndpoints", field)
    endpoint = read.mapping(endpoints, "kubeletEndpoint", f"{field}.kubeletEndpoint")
    return read.port(f"{field}.kubeletEndpoint.Port", endpoint.get("Port"), absent=0) or 0


def _node_addresses(read: Reader, status: Json) -> tuple[bytes, ...]:
    found: dict[str, list[bytes]] = {"InternalIP": [], "ExternalIP": []}
    for path, raw in read.mappings(status, "addresses", "status.addresses"):
        kind = raw.get("type")
        if isinstance(kind, str) and kind in found:
            address = read.address(f"{path}.address", raw.get("address"))
            if address is not None:
                found[kind].append(address)
    return tuple(dict.fromkeys([*found["InternalIP"], *found["ExternalIP"]]))
