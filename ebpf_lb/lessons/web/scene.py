"""What the page draws: a pure function of the API server's objects and the nodes' state."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ebpf_lb.lab.cloud.addresses import external_addresses
from ebpf_lb.lab.status import pod_state

Json = dict[str, Any]
REQUEST_PROTOCOLS = ("TCP", "UDP", "SCTP")  # those that connect.py speaks


@dataclass(frozen=True, slots=True)
class NodeState:
    """agent: as `lab status` says. broken: the nodes to whose pods its route is broken."""

    agent: str
    broken: tuple[str, ...] = ()


def draw(
    lab: str,
    clients: Mapping[str, Sequence[str]],
    nodes: Mapping[str, NodeState],
    objects: Mapping[str, Sequence[Json]],
) -> Json:
    """objects: lists by the plural of their kind, as the API has them."""
    pods = [_pod(pod) for pod in _sorted(objects["pods"])]
    addresses = {name: list(own) for name, own in _node_addresses(objects["nodes"])}
    services = [
        _service(service, objects["endpointslices"], addresses)
        for service in _sorted(objects["services"])
    ]
    return {
        "lab": lab,
        "clients": [{"name": name, "addresses": list(own)} for name, own in clients.items()],
        "nodes": [
            {
                "name": name,
                "addresses": addresses.get(name, []),
                "agent": state.agent,
                "broken": list(state.broken),
            }
            for name, state in nodes.items()
        ],
        "pods": pods,
        "services": services,
        "deployments": [_deployment(each, pods) for each in _sorted(objects["deployments"])],
    }


def _sorted(objects: Sequence[Json]) -> list[Json]:
    return sorted(objects, key=_id)


def _id(object_: Json) -> str:
    return f"{object_['metadata'].get('namespace', '')}/{object_['metadata']['name']}"


def _names(object_: Json) -> Json:
    metadata = object_["metadata"]
    return {"id": _id(object_), "namespace": metadata["namespace"], "name": metadata["name"]}


def _node_addresses(nodes: Sequence[Json]) -> Iterator[tuple[str, Iterator[str]]]:
    for node in nodes:
        given = node.get("status", {}).get("addresses") or ()
        own = (each["address"] for each in given if each["type"] == "InternalIP")
        yield node["metadata"]["name"], own


def _pod(pod: Json) -> Json:
    owners = pod["metadata"].get("ownerReferences") or [{}]
    return {
        **_names(pod),
        "node": pod["spec"].get("nodeName", ""),
        "addresses": [ip["ip"] for ip in pod.get("status", {}).get("podIPs") or ()],
        "state": pod_state(pod),
        "owner": owners[0].get("name", ""),
    }


def _deployment(deployment: Json, pods: Sequence[Json]) -> Json:
    names = _names(deployment)
    own = [
        pod
        for pod in pods
        if (pod["namespace"], pod["owner"]) == (names["namespace"], names["name"])
    ]
    ready = sum(pod["state"] == "ready" for pod in own)
    return {**names, "replicas": deployment["spec"].get("replicas", 1), "ready": ready}


# --- Services


def _service(service: Json, slices: Sequence[Json], nodes: Mapping[str, list[str]]) -> Json:
    spec = service["spec"]
    return {
        **_names(service),
        "type": spec.get("type", "ClusterIP"),
        "externalName": spec.get("externalName", "") if spec.get("type") == "ExternalName" else "",
        "clusterIPs": [ip for ip in spec.get("clusterIPs") or () if ip != "None"],
        "ports": [_port_text(port) for port in spec.get("ports") or ()],
        "local": spec.get("externalTrafficPolicy") == "Local",
        "endpoints": _endpoints(service, slices),
        "targets": list(_targets(service, nodes)),
    }


def _port_text(port: Json) -> str:
    protocol = port.get("protocol", "TCP")
    return f"{port['port']}" + ("" if protocol == "TCP" else f"/{protocol}")


def _endpoints(service: Json, slices: Sequence[Json]) -> list[Json]:
    """One for each pod, whatever the number of its families; without a pod, one for each address.
    ready: new connections may go there, as its slice says."""
    found: dict[str, Json] = {}
    for slice_ in slices:
        metadata = slice_["metadata"]
        owner = (metadata.get("labels") or {}).get("kubernetes.io/service-name")
        if f"{metadata['namespace']}/{owner}" != _id(service):
            continue
        for endpoint in slice_.get("endpoints") or ():
            target = endpoint.get("targetRef") or {}
            is_pod = target.get("kind") == "Pod"
            pod = f"{metadata['namespace']}/{target['name']}" if is_pod else ""
            ready = (endpoint.get("conditions") or {}).get("ready") is not False
            found.setdefault(pod or endpoint["addresses"][0], {"pod": pod, "ready": ready})
    return list(found.values())


def _targets(service: Json, nodes: Mapping[str, list[str]]) -> Iterator[Json]:
    """Every address and port under which it can be asked. `by`: the node to which the router is to
    send it meanwhile; else it chooses."""
    spec = service["spec"]
    cluster_ips = [ip for ip in spec.get("clusterIPs") or () if ip != "None"]
    versions = {_version(address) for address in cluster_ips}
    for port in spec.get("ports") or ():
        if (protocol := port.get("protocol", "TCP")) not in REQUEST_PROTOCOLS:
            continue
        for address in cluster_ips:
            yield _target("ClusterIP", address, port["port"], protocol)
        for address in external_addresses(service):
            yield _target("external address", address, port["port"], protocol)
            for node in nodes:
                kind = f"external address at {node}"
                yield _target(kind, address, port["port"], protocol) | {"by": node}
        if number := port.get("nodePort"):
            for node, own in nodes.items():
                for address in own:
                    if _version(address) in versions:
                        yield _target(f"NodePort of {node}", address, number, protocol)


def _target(kind: str, address: str, port: int, protocol: str) -> Json:
    return {"kind": kind, "address": address, "port": port, "protocol": protocol}


def _version(address: str) -> int:
    return 6 if ":" in address else 4
