"""Deployment -> Pods, without ReplicaSets in between.

What a ReplicaSet would be is the set of pods with one `pod-template-hash`. Rolling updates follow
upstream's arithmetic (pkg/controller/deployment/rolling.go): at most maxSurge pods too many, at
most maxUnavailable too few.
"""

import math
from typing import Any

from ebpf_lb.apiserver.controllers.pods import (
    condition,
    is_active,
    is_ready,
    owned_pods,
    pod_from_template,
    template_hash,
)
from ebpf_lb.apiserver.controllers.workload import WorkloadController
from ebpf_lb.apiserver.kinds import DEPLOYMENT, POD
from ebpf_lb.apiserver.registry import DeleteOptions
from ebpf_lb.apiserver.store import Json, Stored

_HASH = "pod-template-hash"
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


class DeploymentController(WorkloadController):
    kind = DEPLOYMENT

    def settle(self, deployment: Stored) -> None:
        current = template_hash(deployment.spec["template"])
        everything = owned_pods(self.store, deployment)
        pods = [pod for pod in everything if is_active(pod)]
        new = [pod for pod in pods if pod.labels.get(_HASH) == current]
        old = [pod for pod in pods if pod.labels.get(_HASH) != current]
        wanted: int = deployment.spec["replicas"]
        if deployment.spec.get("paused"):
            self._resize(deployment, pods, wanted, current)
        elif deployment.spec["strategy"]["type"] == "Recreate":
            self._delete(old)
            ending = [p for p in everything if p.terminating and p.labels.get(_HASH) != current]
            if not old and not ending:
                self._resize(deployment, new, wanted, current)
        else:
            self._roll(deployment, new, old, current)
        self._write_status(deployment, current)

    def _roll(self, deployment: Stored, new: list[Stored], old: list[Stored], current: str) -> None:
        wanted: int = deployment.spec["replicas"]
        rolling: Json = deployment.spec["strategy"].get("rollingUpdate", {})
        surge = _fraction(rolling.get("maxSurge", "25%"), wanted, up=True)
        unavailable = _fraction(rolling.get("maxUnavailable", "25%"), wanted, up=False)
        if surge == 0 and unavailable == 0:
            unavailable = 1
        if not old:
            self._resize(deployment, new, wanted, current)
            return
        room = wanted + surge - len(new) - len(old)
        target = min(wanted, len(new) + max(0, room))
        self._resize(deployment, new, target, current)
        # Old pods that serve nobody go first; then as many as the new ones that are ready allow.
        floor = wanted - min(unavailable, wanted)
        not_ready_new = target - sum(map(is_ready, new))
        may_go = len(old) + target - floor - not_ready_new
        if may_go <= 0:
            return
        idle = [pod for pod in old if not is_ready(pod)][:may_go]
        ready = sum(map(is_ready, new)) + len(old) - len([pod for pod in old if not is_ready(pod)])
        serving = [pod for pod in _removal_order(old) if is_ready(pod)]
        self._delete([*idle, *serving[: max(0, ready - floor)]])

    def _resize(self, deployment: Stored, pods: list[Stored], wanted: int, current: str) -> None:
        for _ in range(wanted - len(pods)):
            pod = pod_from_template(deployment, {_HASH: current})
            pod["metadata"]["name"] = f"{deployment.name}-{current}-{self.registry.suffix()}"
            self.registry.create(POD, deployment.namespace, pod)
        self._delete(_removal_order(pods)[: max(0, len(pods) - wanted)])

    def _delete(self, pods: list[Stored]) -> None:
        for pod in pods:
            self.registry.delete(POD, pod.namespace, pod.name, DeleteOptions())

    def _write_status(self, deployment: Stored, current: str) -> None:
        everything = owned_pods(self.store, deployment)
        pods = [pod for pod in everything if is_active(pod)]
        ready = sum(map(is_ready, pods))
        updated = sum(pod.labels.get(_HASH) == current for pod in pods)
        wanted: int = deployment.spec["replicas"]
        rolling: Json = deployment.spec["strategy"].get("rollingUpdate", {})
        missing = _fraction(rolling.get("maxUnavailable", "25%"), wanted, up=False)
        available = ready >= wanted - missing
        complete = updated == wanted == len(pods) == ready
        now = self.registry.timestamp()
        counts = {
            "replicas": len(pods),
            "updatedReplicas": updated,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, wanted - ready),
            "terminatingReplicas": sum(pod.terminating for pod in everything),
        }
        status: Json = {name: number for name, number in counts.items() if number}
        status["observedGeneration"] = deployment.metadata["generation"]
        status["conditions"] = [
            condition(
                deployment,
                "Available",
                available,
                f"MinimumReplicas{'Available' if available else 'Unavailable'}",
                f"Deployment {'has' if available else 'does not have'} minimum availability.",
                now,
            ),
            condition(
                deployment,
                "Progressing",
                True,
                "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated",
                f"{updated} of {wanted} pods are of the current template, {ready} are ready.",
                now,
            ),
        ]
        self.registry.set_status(deployment, status)


def _fraction(value: Any, of: int, *, up: bool) -> int:
    """`3` or `25%` of `of`."""
    if isinstance(value, str) and value.endswith("%"):
        exact = of * int(value[:-1]) / 100
        return math.ceil(exact) if up else math.floor(exact)
    return int(value)


def _removal_order(pods: list[Stored]) -> list[Stored]:
    """Who goes first when there are too many (upstream's ActivePodsWithRanks): without a node,
    not running, not ready, cheap to delete, on the node with the most of them, the youngest."""
    by_node: dict[str, int] = {}
    for pod in pods:
        node = pod.spec.get("nodeName", "")
        by_node[node] = by_node.get(node, 0) + 1

    def rank(pod: Stored) -> tuple[Any, ...]:
        cost = pod.annotations.get(_DELETION_COST, "0")
        return (
            bool(pod.spec.get("nodeName")),
            pod.status.get("phase") == "Running",
            is_ready(pod),
            int(cost) if cost.lstrip("-").isdigit() else 0,
        )

    # The rank by node changes with each pod that goes; so they are picked one by one.
    left, order = list(pods), []
    while left:
        chosen = min(
            left,
            key=lambda pod: (
                *rank(pod),
                -by_node[pod.spec.get("nodeName", "")],
                -_created(pod),
            ),
        )
        by_node[chosen.spec.get("nodeName", "")] -= 1
        left.remove(chosen)
        order.append(chosen)
    return order


def _created(pod: Stored) -> int:
    """A number that grows with the time of creation."""
    return int(pod.metadata["creationTimestamp"].translate(_DIGITS_ONLY))


_DIGITS_ONLY = str.maketrans("", "", "-:TZ")
