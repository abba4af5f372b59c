"""Deployments, StatefulSets, scheduling, garbage, namespaces."""

from collections import Counter
from typing import Any

import pytest

from ebpf_lb.apiserver.controllers.pods import is_ready
from ebpf_lb.apiserver.kinds import (
    DEPLOYMENT,
    ENDPOINTS,
    NAMESPACE,
    POD,
    SERVICE,
    STATEFUL_SET,
)
from ebpf_lb.apiserver.registry import DeleteOptions
from tests.unit.apiserver.cluster import Cluster, deployment, service


def nodes_of(cluster: Cluster) -> Counter[str]:
    return Counter(pod.spec.get("nodeName", "") for pod in cluster.pods())


def test_pods_are_spread() -> None:
    cluster = Cluster()
    cluster.create(DEPLOYMENT, deployment(replicas=7))
    cluster.settle()
    assert sorted(nodes_of(cluster).values()) == [2, 2, 3]
    status = cluster.registry.get(DEPLOYMENT, "default", "web").status
    assert (status["readyReplicas"], status["updatedReplicas"]) == (7, 7)
    assert all(pod.name.startswith("web-") and len(pod.name) == 20 for pod in cluster.pods())


def test_spread_counts_the_same_workload_first() -> None:
    cluster = Cluster()
    cluster.create(DEPLOYMENT, deployment("big", replicas=4, nodeName="node1"))
    cluster.create(DEPLOYMENT, deployment("small", replicas=3))
    cluster.settle()
    small = Counter(pod.spec["nodeName"] for pod in cluster.pods() if pod.name.startswith("small"))
    assert small == {"node1": 1, "node2": 1, "node3": 1}


def test_the_least_loaded_node() -> None:
    cluster = Cluster()
    cluster.create(DEPLOYMENT, deployment("big", replicas=2, nodeName="node1"))
    cluster.create(DEPLOYMENT, deployment("one", replicas=1))
    cluster.settle()
    assert [p.spec["nodeName"] for p in cluster.pods() if p.name.startswith("one")] == ["node2"]


@pytest.mark.parametrize(
    "wish", [{"nodeName": "node2"}, {"nodeSelector": {"kubernetes.io/hostname": "node2"}}]
)
def test_wishes_for_a_node(wish: dict[str, Any]) -> None:
    cluster = Cluster()
    cluster.create(DEPLOYMENT, deployment(replicas=3, **wish))
    cluster.settle()
    assert nodes_of(cluster) == {"node2": 3}


def test_host_ports_do_not_clash() -> None:
    cluster = Cluster()
    cluster.create(DEPLOYMENT, deployment(replicas=4, hostNetwork=True))
    cluster.settle()
    assert nodes_of(cluster) == {"node1": 1, "node2": 1, "node3": 1, "": 1}
    (pending,) = [pod for pod in cluster.pods() if not pod.spec.get("nodeName")]
    assert pending.status["conditions"][0]["reason"] == "Unschedulable"
    running = next(pod for pod in cluster.pods() if pod.spec.get("nodeName") == "node2")
    cluster.registry.delete(POD, "default", running.name, DeleteOptions(grace_s=0))
    cluster.settle()
    assert nodes_of(cluster)["node2"] == 1


def test_scale() -> None:
    cluster = Cluster()
    cluster.create(DEPLOYMENT, deployment(replicas=1))
    cluster.settle()
    for replicas in (5, 2, 0):
        cluster.update(DEPLOYMENT, "web", {"spec": {"replicas": replicas}})
        cluster.settle()
        assert len(cluster.pods()) == replicas
    assert "readyReplicas" not in cluster.registry.get(DEPLOYMENT, "default", "web").status


def test_the_pod_that_is_not_ready_goes_first() -> None:
    cluster = Cluster()
    cluster.create(DEPLOYMENT, deployment(replicas=3))
    cluster.settle()
    loser = cluster.pods()[1]
    cluster.run_pod(loser, ready=False)
    cluster.update(DEPLOYMENT, "web", {"spec": {"replicas": 2}})
    cluster.settle()
    assert loser.name not in {pod.name for pod in cluster.pods()}


def test_a_terminating_pod_is_replaced_at_once() -> None:
    cluster = Cluster()
    cluster.create(DEPLOYMENT, deployment(replicas=2))
    cluster.settle()
    victim = cluster.pods()[0]
    cluster.registry.delete(POD, "default", victim.name)
    cluster.settle(kubelet=False)
    assert len(cluster.pods()) == 2
    assert len(cluster.pods(active=False)) == 3


def test_rolling_update_keeps_its_bounds() -> None:
    cluster = Cluster()
    cluster.create(DEPLOYMENT, deployment(replicas=8))
    cluster.settle()
    before = {pod.name for pod in cluster.pods()}
    template = {"metadata": {"annotations": {"version": "2"}}}
    cluster.update(DEPLOYMENT, "web", {"spec": {"template": template}})
    for _ in range(100):
        cluster.step()
        pods = cluster.pods()
        assert len(pods) <= 10, "25 % too many at most"
        assert sum(map(is_ready, pods)) >= 6, "25 % too few at most"
        pending = [pod for pod in pods if pod.status["phase"] == "Pending"]
        bound = [pod for pod in pending if pod.spec.get("nodeName")]
        if bound:
            cluster.run_pod(bound[0])
        for pod in cluster.pods(active=False):
            if pod.terminating:
                cluster.registry.delete(POD, "default", pod.name, DeleteOptions(grace_s=0))
    after = {pod.name for pod in cluster.pods()}
    assert len(after) == 8 and not after & before


def test_recreate_waits_for_the_old_pods() -> None:
    cluster = Cluster()
    object_ = deployment(replicas=2)
    object_["spec"]["strategy"] = {"type": "Recreate"}
    cluster.create(DEPLOYMENT, object_)
    cluster.settle()
    template = {"metadata": {"annotations": {"version": "2"}}}
    cluster.update(DEPLOYMENT, "web", {"spec": {"template": template}})
    cluster.settle(kubelet=False)
    assert cluster.pods() == []
    cluster.settle()
    assert len(cluster.pods()) == 2


def stateful_set(replicas: int = 3) -> dict[str, Any]:
    object_ = deployment("db", replicas)
    object_["spec"]["serviceName"] = "db"
    return object_


def test_stateful_pods_come_in_order() -> None:
    cluster = Cluster()
    cluster.create(STATEFUL_SET, stateful_set())
    cluster.settle(kubelet=False)
    assert [pod.name for pod in cluster.pods()] == ["db-0"]
    cluster.run_pod(cluster.pods()[0])
    cluster.settle(kubelet=False)
    assert [pod.name for pod in cluster.pods()] == ["db-0", "db-1"]
    cluster.settle()
    assert [pod.name for pod in cluster.pods()] == ["db-0", "db-1", "db-2"]
    assert cluster.pods()[2].spec["hostname"] == "db-2"
    cluster.update(STATEFUL_SET, "db", {"spec": {"replicas": 1}})
    cluster.settle(kubelet=False)
    assert [pod.name for pod in cluster.pods()] == ["db-0", "db-1"], "the last one first"
    cluster.settle()
    assert [pod.name for pod in cluster.pods()] == ["db-0"]


def test_stateful_update_and_parallel() -> None:
    cluster = Cluster()
    object_ = stateful_set()
    object_["spec"]["podManagementPolicy"] = "Parallel"
    cluster.create(STATEFUL_SET, object_)
    cluster.settle(kubelet=False)
    assert len(cluster.pods()) == 3
    cluster.settle()
    before = {pod.uid for pod in cluster.pods()}
    template = {"metadata": {"annotations": {"version": "2"}}}
    cluster.update(STATEFUL_SET, "db", {"spec": {"template": template}})
    cluster.settle(kubelet=False)
    assert [pod.name for pod in cluster.pods()] == ["db-0", "db-1"], "one at a time"
    cluster.settle()
    assert not {pod.uid for pod in cluster.pods()} & before


def test_pods_go_with_their_deployment() -> None:
    cluster = Cluster()
    cluster.create(DEPLOYMENT, deployment())
    cluster.settle()
    cluster.registry.delete(DEPLOYMENT, "default", "web")
    cluster.settle()
    assert cluster.pods(active=False) == []


def test_orphans_stay() -> None:
    cluster = Cluster()
    cluster.create(DEPLOYMENT, deployment())
    cluster.settle()
    cluster.registry.delete(DEPLOYMENT, "default", "web", DeleteOptions(propagation="Orphan"))
    cluster.settle()
    assert len(cluster.pods()) == 3


def test_a_namespace_goes_with_all_that_is_in_it() -> None:
    cluster = Cluster()
    cluster.create(NAMESPACE, {"metadata": {"name": "blue"}}, "")
    cluster.create(DEPLOYMENT, deployment(), "blue")
    cluster.create(SERVICE, service(selector={"app": "web"}), "blue")
    cluster.settle()
    assert cluster.store.get(ENDPOINTS, "blue", "web")
    cluster.registry.delete(NAMESPACE, "", "blue")
    assert cluster.registry.get(NAMESPACE, "", "blue").status["phase"] == "Terminating"
    cluster.settle()
    assert cluster.store.get(NAMESPACE, "", "blue") is None
    assert cluster.pods(active=False) == []
    assert cluster.store.objects(SERVICE, "blue") == []


def test_a_namespace_shortens_the_grace_of_a_pod_that_terminates() -> None:
    cluster = Cluster()
    cluster.create(NAMESPACE, {"metadata": {"name": "blue"}}, "")
    cluster.create(DEPLOYMENT, deployment(replicas=1), "blue")
    cluster.settle()
    [pod] = cluster.store.objects(POD, "blue")
    cluster.registry.delete(POD, "blue", pod.name, DeleteOptions(grace_s=365 * 24 * 3600))
    cluster.registry.delete(NAMESPACE, "", "blue")
    cluster.settle(kubelet=False)
    [metadata] = [one.metadata for one in cluster.store.objects(POD, "blue")]
    assert metadata["deletionGracePeriodSeconds"] == 30
    cluster.settle()
    assert cluster.store.get(NAMESPACE, "", "blue") is None
