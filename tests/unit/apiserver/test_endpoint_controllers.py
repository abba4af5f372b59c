"""Service + Pods -> EndpointSlices and Endpoints."""

from typing import Any

import pytest

from ebpf_lb.apiserver.kinds import (
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    NODE,
    POD,
    SERVICE,
)
from ebpf_lb.apiserver.registry import DeleteOptions
from tests.unit.apiserver.cluster import Cluster, deployment, service

Json = dict[str, Any]
DUAL = "RequireDualStack"


@pytest.fixture
def cluster() -> Cluster:
    """Three ready pods behind a dual-stack Service."""
    made = Cluster()
    made.create(DEPLOYMENT, deployment())
    made.create(SERVICE, service(selector={"app": "web"}, ipFamilyPolicy=DUAL))
    made.settle()
    return made


def conditions(cluster: Cluster) -> list[tuple[bool, bool, bool]]:
    return sorted(
        (c["ready"], c["serving"], c["terminating"])
        for c in (endpoint["conditions"] for endpoint in cluster.endpoints())
    )


def test_one_slice_for_each_family(cluster: Cluster) -> None:
    for family, separator in (("IPv4", "."), ("IPv6", ":")):
        (slice_,) = cluster.slices(family=family)
        assert slice_.object["ports"] == [{"name": "", "port": 80, "protocol": "TCP"}]
        endpoints = slice_.object["endpoints"]
        assert len(endpoints) == 3
        assert all(separator in endpoint["addresses"][0] for endpoint in endpoints)
        assert {e["nodeName"] for e in endpoints} == {"node1", "node2", "node3"}
        assert all(e["zone"] == e["nodeName"].replace("node", "zone") for e in endpoints)
        assert slice_.labels == {
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        }
        assert slice_.metadata["ownerReferences"][0]["kind"] == "Service"


def test_a_second_family_that_goes_takes_its_slice(cluster: Cluster) -> None:
    cluster.update(SERVICE, "web", {"spec": {"ipFamilyPolicy": "SingleStack"}})
    cluster.settle()
    assert len(cluster.slices()) == 1
    assert cluster.slices(family="IPv6") == []


def test_life_of_a_pod(cluster: Cluster) -> None:
    ready, unready = (True, True, False), (False, False, False)
    assert conditions(cluster) == [ready] * 3
    cluster.update(DEPLOYMENT, "web", {"spec": {"paused": True}})
    pod = cluster.pods()[0]
    cluster.run_pod(pod, ready=False)
    cluster.settle()
    assert conditions(cluster) == [unready, ready, ready]
    cluster.run_pod(pod)
    cluster.registry.delete(POD, "default", pod.name)
    cluster.settle(kubelet=False)
    terminating = (False, True, True)
    assert conditions(cluster) == [terminating, ready, ready]
    cluster.registry.delete(POD, "default", pod.name, DeleteOptions(grace_s=0))
    cluster.settle(kubelet=False)
    assert conditions(cluster) == [ready, ready]


def test_not_ready_addresses_may_be_published(cluster: Cluster) -> None:
    cluster.update(SERVICE, "web", {"spec": {"publishNotReadyAddresses": True}})
    cluster.run_pod(cluster.pods()[0], ready=False)
    cluster.settle()
    assert conditions(cluster)[0] == (True, False, False)
    endpoints = cluster.registry.get(ENDPOINTS, "default", "web").object
    assert len(endpoints["subsets"][0]["addresses"]) == 3


def test_no_endpoints_is_one_empty_slice(cluster: Cluster) -> None:
    names = [slice_.name for slice_ in cluster.slices()]
    cluster.update(DEPLOYMENT, "web", {"spec": {"replicas": 0}})
    cluster.settle()
    (slice_,) = cluster.slices()
    assert slice_.object["endpoints"] is None and slice_.object["ports"] is None
    assert [slice_.name] == names
    cluster.update(DEPLOYMENT, "web", {"spec": {"replicas": 1}})
    cluster.settle()
    assert [slice_.name for slice_ in cluster.slices()] == names


def test_a_hundred_endpoints_a_slice() -> None:
    cluster = Cluster()
    cluster.create(SERVICE, service(selector={"app": "web"}))
    cluster.create(DEPLOYMENT, deployment(replicas=230))
    cluster.settle()

    def sizes() -> list[int]:
        return sorted(len(slice_.object["endpoints"]) for slice_ in cluster.slices())

    assert sizes() == [30, 100, 100]
    versions = {slice_.name: slice_.version for slice_ in cluster.slices()}
    cluster.update(DEPLOYMENT, "web", {"spec": {"replicas": 240}})
    cluster.settle()
    assert sizes() == [40, 100, 100]
    changed = [s.name for s in cluster.slices() if s.version != versions[s.name]]
    assert len(changed) == 1, "full slices are left alone"


def test_named_ports_split_slices() -> None:
    cluster = Cluster()
    for name, number in (("a", 8080), ("b", 9090)):
        object_ = deployment(name, replicas=1)
        template = object_["spec"]["template"]
        template["metadata"]["labels"]["all"] = "yes"
        template["spec"]["containers"][0]["ports"] = [{"containerPort": number, "name": "http"}]
        cluster.create(DEPLOYMENT, object_)
    ports = [{"port": 80, "targetPort": "http"}]
    cluster.create(SERVICE, service(selector={"all": "yes"}, ports=ports))
    cluster.settle()
    found = sorted(slice_.object["ports"][0]["port"] for slice_ in cluster.slices())
    assert found == [8080, 9090]
    subsets = cluster.registry.get(ENDPOINTS, "default", "web").object["subsets"]
    assert [subset["ports"][0]["port"] for subset in subsets] == [8080, 9090]


@pytest.mark.parametrize(
    ("distribution", "hints"),
    [
        (None, [None]),
        ("PreferClose", [{"forZones"}]),
        ("PreferSameZone", [{"forZones"}]),
        ("PreferSameNode", [{"forZones", "forNodes"}]),
    ],
)
def test_hints(cluster: Cluster, distribution: str | None, hints: list[Any]) -> None:
    cluster.update(SERVICE, "web", {"spec": {"trafficDistribution": distribution}})
    cluster.settle()
    for endpoint in cluster.endpoints():
        found = endpoint.get("hints")
        assert [set(found) if found else None] == hints
        if found:
            assert found["forZones"] == [{"name": endpoint["zone"]}]
    cluster.run_pod(cluster.pods()[0], ready=False)
    cluster.settle()
    for endpoint in cluster.endpoints():
        if not endpoint["conditions"]["ready"]:
            assert "hints" not in endpoint


def test_zones_follow_the_node(cluster: Cluster) -> None:
    patch = {"metadata": {"labels": {"topology.kubernetes.io/zone": "moved"}}}
    cluster.registry.patch(NODE, "", "node1", "application/merge-patch+json", patch)
    cluster.settle()
    zones = {endpoint["nodeName"]: endpoint["zone"] for endpoint in cluster.endpoints()}
    assert zones == {"node1": "moved", "node2": "zone2", "node3": "zone3"}


def test_labels_of_the_service_reach_its_slices(cluster: Cluster) -> None:
    label = "service.kubernetes.io/service-proxy-name"
    patch: Json = {"metadata": {"labels": {label: "other"}}}
    cluster.update(SERVICE, "web", patch)
    cluster.settle()
    assert cluster.slices()[0].labels[label] == "other"
    patch["metadata"]["labels"][label] = None
    cluster.update(SERVICE, "web", patch)
    cluster.settle()
    assert label not in cluster.slices()[0].labels


def test_headless_services_are_marked() -> None:
    cluster = Cluster()
    cluster.create(DEPLOYMENT, deployment())
    cluster.create(SERVICE, service(selector={"app": "web"}, clusterIP="None"))
    cluster.settle()
    assert cluster.slices()[0].labels["service.kubernetes.io/headless"] == ""


def test_slices_go_with_their_service_and_hand_made_ones_stay(cluster: Cluster) -> None:
    hand_made = {
        "metadata": {"name": "mine", "labels": {"kubernetes.io/service-name": "bare"}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["192.0.2.1"], "conditions": {"ready": False, "terminating": True}}
        ],
        "ports": [{"port": 80}],
    }
    cluster.create(SERVICE, service("bare"))
    cluster.create(ENDPOINT_SLICE, hand_made)
    cluster.registry.delete(SERVICE, "default", "web")
    cluster.settle()
    assert cluster.slices() == []
    assert cluster.store.get(ENDPOINTS, "default", "web") is None
    (mine,) = cluster.slices("bare")
    assert mine.object["endpoints"] == hand_made["endpoints"]


def test_meddling_is_mended(cluster: Cluster) -> None:
    (slice_,) = cluster.slices()
    wanted = slice_.object["endpoints"]
    cluster.update(ENDPOINT_SLICE, slice_.name, {"endpoints": []})
    cluster.settle()
    assert cluster.slices()[0].object["endpoints"] == wanted
    cluster.registry.delete(ENDPOINT_SLICE, "default", slice_.name)
    cluster.settle()
    assert cluster.slices()[0].object["endpoints"] == wanted


def test_nothing_is_written_where_nothing_changed(cluster: Cluster) -> None:
    cluster.create(SERVICE, service("other", selector={"app": "nothing"}))
    cluster.settle()
    versions = {slice_.name: slice_.version for slice_ in cluster.slices()}
    cluster.update(SERVICE, "web", {"spec": {"sessionAffinity": "ClientIP"}})
    cluster.settle()
    assert {slice_.name: slice_.version for slice_ in cluster.slices()} == versions


def test_endpoints(cluster: Cluster) -> None:
    cluster.run_pod(cluster.pods()[0], ready=False)
    cluster.settle()
    (subset,) = cluster.registry.get(ENDPOINTS, "default", "web").object["subsets"]
    assert len(subset["addresses"]) == 2
    assert len(subset["notReadyAddresses"]) == 1
    assert subset["ports"] == [{"port": 80, "protocol": "TCP"}]


def test_endpoints_made_by_hand_are_mirrored() -> None:
    cluster = Cluster()
    cluster.create(SERVICE, service("bare"))
    subset = {
        "addresses": [{"ip": "192.0.2.1"}],
        "notReadyAddresses": [{"ip": "192.0.2.2"}],
        "ports": [{"port": 8080}],
    }
    cluster.create(ENDPOINTS, {"metadata": {"name": "bare"}, "subsets": [subset]})
    cluster.settle()
    (slice_,) = cluster.slices("bare")
    assert [e["conditions"]["ready"] for e in slice_.object["endpoints"]] == [True, False]
    cluster.registry.delete(ENDPOINTS, "default", "bare")
    cluster.settle()
    assert cluster.slices("bare") == []
