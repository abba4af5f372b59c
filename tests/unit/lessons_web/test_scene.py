"""What the page draws of objects made by hand."""

from typing import Any

from ebpf_lb.lessons.web.scene import NodeState, draw

Json = dict[str, Any]


def node(number: int) -> Json:
    addresses = [f"172.30.0.1{number}", f"fd30::{number}"]
    given = [{"type": "InternalIP", "address": each} for each in addresses]
    return {
        "metadata": {"name": f"node{number}"},
        "status": {"addresses": [*given, {"type": "Hostname", "address": "x"}]},
    }


def pod(name: str, *, ready: bool = True, owner: str = "") -> Json:
    condition = {"type": "Ready", "status": str(ready)}
    owners = [{"kind": "Deployment", "name": owner}] if owner else []
    return {
        "metadata": {"namespace": "default", "name": name, "ownerReferences": owners},
        "spec": {"nodeName": "node1"},
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": "10.244.1.5"}],
            "conditions": [condition],
        },
    }


def service(**spec: Any) -> Json:
    ports = [{"port": 80, "nodePort": 30000, "protocol": "TCP"}]
    return {
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {"clusterIPs": ["10.96.0.9"], "ports": ports, **spec},
    }


def slice_(*endpoints: Json, namespace: str = "default", family: str = "IPv4") -> Json:
    labels = {"kubernetes.io/service-name": "web"}
    return {
        "metadata": {"namespace": namespace, "name": "web-1", "labels": labels},
        "addressType": family,
        "endpoints": list(endpoints),
    }


def endpoint(address: str, name: str = "", ready: bool | None = True) -> Json:
    target = {"targetRef": {"kind": "Pod", "name": name}} if name else {}
    conditions = {} if ready is None else {"conditions": {"ready": ready}}
    return {"addresses": [address], **target, **conditions}


def drawn(**objects: list[Json]) -> Json:
    everything: dict[str, list[Json]] = {
        "nodes": [node(1), node(2)],
        "pods": [],
        "services": [],
        "endpointslices": [],
        "deployments": [],
        **objects,
    }
    states = {"node1": NodeState("healthy"), "node2": NodeState("none", ("node1",))}
    return draw("lab", {"client": ["172.31.0.2"]}, states, everything)


def test_nodes_have_their_addresses_and_state() -> None:
    first, second = drawn()["nodes"]
    assert first["addresses"] == ["172.30.0.11", "fd30::1"]
    assert (first["agent"], first["broken"]) == ("healthy", [])
    assert (second["agent"], second["broken"]) == ("none", ["node1"])


def test_a_pod_with_two_families_is_one_endpoint() -> None:
    slices = [
        slice_(endpoint("10.244.1.5", "a"), endpoint("10.244.1.6", "b", ready=False)),
        slice_(endpoint("fd00::5", "a"), family="IPv6"),
        slice_(endpoint("10.244.1.7", "c"), namespace="other"),
    ]
    [shown] = drawn(services=[service()], endpointslices=slices)["services"]
    assert shown["endpoints"] == [
        {"pod": "default/a", "ready": True},
        {"pod": "default/b", "ready": False},
    ]


def test_an_endpoint_by_hand_has_no_pod_and_is_ready_by_default() -> None:
    slices = [slice_(endpoint("192.0.2.7", ready=None))]
    [shown] = drawn(services=[service()], endpointslices=slices)["services"]
    assert shown["endpoints"] == [{"pod": "", "ready": True}]


def test_targets_are_all_addresses_of_its_families() -> None:
    outside = {"loadBalancer": {"ingress": [{"ip": "172.29.0.1"}]}}
    made = service() | {"status": outside}
    [shown] = drawn(services=[made])["services"]
    assert [(t["kind"], t["address"], t["port"]) for t in shown["targets"]] == [
        ("ClusterIP", "10.96.0.9", 80),
        ("external address", "172.29.0.1", 80),
        ("external address at node1", "172.29.0.1", 80),
        ("external address at node2", "172.29.0.1", 80),
        ("NodePort of node1", "172.30.0.11", 30000),
        ("NodePort of node2", "172.30.0.12", 30000),
    ]
    assert [t["by"] for t in shown["targets"] if "by" in t] == ["node1", "node2"]


def test_each_protocol_is_a_target() -> None:
    ports = [{"port": 80, "protocol": protocol} for protocol in ("TCP", "UDP", "SCTP")]
    [shown] = drawn(services=[service(ports=ports)])["services"]
    assert [target["protocol"] for target in shown["targets"]] == ["TCP", "UDP", "SCTP"]


def test_what_cannot_be_asked_is_not_a_target() -> None:
    headless = service(clusterIPs=["None"], ports=[{"port": 80}])
    spec = {"type": "ExternalName", "externalName": "example.com"}
    name = {"metadata": {"namespace": "default", "name": "x"}, "spec": spec}
    shown = drawn(services=[headless, name])["services"]
    assert [one["targets"] for one in shown] == [[], []]
    assert [one["externalName"] for one in shown] == ["", "example.com"]


def test_deployments_count_their_own_ready_pods() -> None:
    pods = [pod("a", owner="web"), pod("b", owner="web", ready=False), pod("c")]
    deployment = {"metadata": {"namespace": "default", "name": "web"}, "spec": {"replicas": 2}}
    shown = drawn(pods=pods, deployments=[deployment])
    [one] = shown["deployments"]
    assert (one["replicas"], one["ready"]) == (2, 1)
    assert [each["state"] for each in shown["pods"]] == ["ready", "not ready", "ready"]
