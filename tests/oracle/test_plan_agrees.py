"""The plan and the oracle answer alike, whatever the cluster; and the comparison can fail."""

import dataclasses
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from ebpf_lb.kube.parse import parse_service, parse_slice
from ebpf_lb.model.values import parse_address
from ebpf_lb.plan.cluster import Cluster, NodeView
from ebpf_lb.plan.forwarding import Forwarding, FrontendFlag
from tests.oracle.clusters import NODE, clusters, questions
from tests.oracle.oracle import Client, ClientKind, Destination, Kind, Verdict, verdict
from tests.oracle.planned import planned
from tests.support.chance import times

VIEW = NodeView(
    NODE.name,
    NODE.zone,
    tuple(sorted(map(parse_address, NODE.addresses))),
    tuple(sorted(map(parse_address, NODE.addresses))),
)


def plan_of(objects: list[dict[str, Any]]) -> list[Forwarding]:
    cluster = Cluster(VIEW)
    for raw in objects:
        if raw["kind"] == "Service":
            service = parse_service(raw)
            assert not service.problems
            assert service.value is not None
            cluster.set_service(service.value)
        else:
            a_slice = parse_slice(raw)
            assert not a_slice.problems
            assert a_slice.value is not None
            cluster.set_slice(a_slice.value)
    return [forwarding for key in cluster.take_changes() for forwarding in cluster.plan(key)]


def without_masquerade(answer: Verdict) -> Verdict:
    return dataclasses.replace(answer, masquerade=frozenset())


@pytest.mark.rule(
    "EP-6", "EP-8", "EP-9", "EP-10", "EP-12", "VE-1", "VE-2", "VE-6", "VE-9", "VE-18", "KI-2"
)
@settings(max_examples=times(400), deadline=None, suppress_health_check=list(HealthCheck))
@given(clusters())
def test_the_plan_says_what_the_oracle_says(objects: list[dict[str, Any]]) -> None:
    plan = plan_of(objects)
    for client, destination in questions(objects):
        expected = without_masquerade(verdict(objects, NODE, client, destination))
        assert planned(plan, client, destination) == expected, (client, destination)


def service(**spec: Any) -> dict[str, Any]:
    return {
        "kind": "Service",
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.1",
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080}],
            **spec,
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
    }


def endpoints(*of: tuple[str, str, dict[str, bool]]) -> dict[str, Any]:
    return {
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default",
            "name": "web-1",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": [
            {"addresses": [address], "nodeName": node, "conditions": conditions}
            for address, node, conditions in of
        ],
    }


HERE = ("10.244.1.1", "node1", {"ready": True})
THERE = ("10.244.2.1", "node2", {"ready": True})
DRAINING = ("10.244.1.2", "node1", {"ready": False, "serving": True, "terminating": True})
OUTSIDER = Client(ClientKind.OUTSIDE, "203.0.113.77")
POD = Client(ClientKind.LOCAL_POD, "10.244.1.9")
CLUSTER_IP = Destination("10.96.0.1", 80, "TCP")
NODE_PORT = Destination("192.168.0.1", 30080, "TCP")
VIP = Destination("203.0.113.1", 80, "TCP")

CHANGES = {
    "has_any": lambda f: dataclasses.replace(f, has_any=not f.has_any),
    "cluster": lambda f: dataclasses.replace(f, cluster=f.cluster[1:]),
    "local": lambda f: dataclasses.replace(f, local=f.cluster),
    "no ranges": lambda f: dataclasses.replace(f, source_ranges=()),
    "no frontend": lambda f: dataclasses.replace(f, frontends=()),
    "flags": lambda f: dataclasses.replace(
        f,
        frontends=tuple(
            frontend._replace(flags=frontend.flags ^ FrontendFlag.LOCAL) for frontend in f.frontends
        ),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_comparison_notices_a_wrong_plan(change: str) -> None:
    objects = [
        service(externalTrafficPolicy="Local", loadBalancerSourceRanges=["203.0.113.0/24"]),
        endpoints(HERE, THERE),
    ]
    right = plan_of(objects)
    wrong = [CHANGES[change](forwarding) for forwarding in right]
    questions = [(c, d) for c in (OUTSIDER, POD) for d in (CLUSTER_IP, NODE_PORT, VIP)]
    expected = {q: without_masquerade(verdict(objects, NODE, *q)) for q in questions}
    assert all(planned(right, *q) == expected[q] for q in questions)
    assert any(planned(wrong, *q) != expected[q] for q in questions)


@pytest.mark.parametrize(
    ("client", "destination", "spec", "of", "kind", "backends", "masquerade"),
    [
        (POD, CLUSTER_IP, {}, [HERE, THERE], Kind.BACKENDS, [HERE, THERE], []),
        (POD, CLUSTER_IP, {}, [], Kind.REJECT, [], []),
        (POD, CLUSTER_IP, {"internalTrafficPolicy": "Local"}, [THERE], Kind.DROP, [], []),
        (POD, CLUSTER_IP, {}, [DRAINING], Kind.BACKENDS, [DRAINING], []),
        (OUTSIDER, CLUSTER_IP, {}, [HERE], Kind.BACKENDS, [HERE], [HERE]),
        (OUTSIDER, NODE_PORT, {}, [HERE, THERE], Kind.BACKENDS, [HERE, THERE], [THERE]),
        (OUTSIDER, NODE_PORT, {"externalTrafficPolicy": "Local"}, [THERE], Kind.DROP, [], []),
        (POD, VIP, {"externalTrafficPolicy": "Local"}, [THERE], Kind.BACKENDS, [THERE], []),
        (OUTSIDER, VIP, {"loadBalancerSourceRanges": ["192.0.2.0/24"]}, [HERE], Kind.DROP, [], []),
        (POD, Destination("10.96.0.1", 81, "UDP"), {}, [HERE], Kind.REJECT, [], []),
        (POD, Destination("10.96.0.7", 80, "TCP"), {}, [HERE], Kind.NOT_A_SERVICE, [], []),
        (Client(ClientKind.LOCAL_POD, "10.244.1.1"), CLUSTER_IP, {}, [HERE], Kind.BACKENDS,
         [HERE], [HERE]),
    ],
)  # fmt: skip
def test_the_oracle_by_hand(
    client: Client,
    destination: Destination,
    spec: dict[str, Any],
    of: list[Any],
    kind: Kind,
    backends: list[Any],
    masquerade: list[Any],
) -> None:
    answer = verdict([service(**spec), endpoints(*of)], NODE, client, destination)
    assert answer == Verdict(
        kind,
        frozenset((address, 8080) for address, _, _ in backends),
        frozenset((address, 8080) for address, _, _ in masquerade),
    )


def test_the_random_clusters_are_worth_asking() -> None:
    """All four kinds of verdict come up often."""
    seen: Counter[Kind] = Counter()

    @settings(max_examples=100, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(clusters())
    def ask(objects: list[dict[str, Any]]) -> None:
        seen.update(verdict(objects, NODE, *question).kind for question in questions(objects))

    ask()
    assert all(seen[kind] >= 50 for kind in Kind), seen
