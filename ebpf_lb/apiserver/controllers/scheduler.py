"""Pods get nodes: the least loaded one that fits.

Filters: readiness, taints of kind NoSchedule/NoExecute that are not tolerated, `nodeSelector`,
host ports. Then fewest pods of the same workload, fewest pods at all, and the order of names.
Affinities and topology constraints are not read.
"""

import re
from collections import Counter
from typing import Any

from ebpf_lb.apiserver.controllers.base import Controller
from ebpf_lb.apiserver.controllers.pods import condition, is_active, is_finished
from ebpf_lb.apiserver.kinds import NODE, POD
from ebpf_lb.apiserver.store import Change, Json, Stored


class Scheduler(Controller):
    def observe(self, change: Change) -> None:
        subject = change.subject
        if subject.kind is POD and change.after and not change.after.spec.get("nodeName"):
            self.enqueue((subject.namespace, subject.name))
        elif subject.kind is NODE or (subject.kind is POD and change.after is None):
            for pod in self.store.objects(POD):  # perhaps there is room now
                if not pod.spec.get("nodeName"):
                    self.enqueue((pod.namespace, pod.name))

    def reconcile(self, key: tuple[str, str]) -> None:
        pod = self.store.get(POD, *key)
        if pod is None or pod.terminating or pod.spec.get("nodeName") or is_finished(pod):
            return
        everything = [other for other in self.store.objects(POD) if other.spec.get("nodeName")]
        nodes = self.store.objects(NODE)
        fitting = [node for node in nodes if _fits(pod, node, everything)]
        if not fitting:
            message = f"0/{len(nodes)} nodes are available for this pod"
            self._tell(pod, False, "Unschedulable", message)
            return
        load = Counter(other.spec["nodeName"] for other in everything if not is_finished(other))
        siblings = Counter(
            other.spec["nodeName"]
            for other in everything
            if is_active(other) and _owner_uid(other) and _owner_uid(other) == _owner_uid(pod)
        )
        best = min(
            fitting,
            key=lambda node: (siblings[node.name], load[node.name], _natural(node.name)),
        )
        self._tell(self.registry.bind(pod, best.name), True, "", "")

    def _tell(self, pod: Stored, scheduled: bool, reason: str, message: str) -> None:
        now = self.registry.timestamp()
        told = condition(pod, "PodScheduled", scheduled, reason, message, now)
        others = [
            other
            for other in pod.status.get("conditions") or ()
            if other.get("type") != "PodScheduled"
        ]
        self.registry.set_status(
            pod, {"phase": "Pending"} | pod.status | {"conditions": [*others, told]}
        )


def _natural(name: str) -> list[Any]:
    """So that node2 comes before node10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _owner_uid(pod: Stored) -> str:
    for reference in pod.metadata.get("ownerReferences", ()):
        if reference.get("controller"):
            return str(reference["uid"])
    return ""


def _fits(pod: Stored, node: Stored, others: list[Stored]) -> bool:
    if node.spec.get("unschedulable") or node.terminating:
        return False
    for ready in node.status.get("conditions") or ():
        if ready.get("type") == "Ready" and ready.get("status") != "True":
            return False
    if any(not _tolerated(pod, taint) for taint in node.spec.get("taints") or ()):
        return False
    selector: dict[str, str] = pod.spec.get("nodeSelector") or {}
    if any(node.labels.get(key) != value for key, value in selector.items()):
        return False
    wanted = _host_ports(pod)
    return not wanted or not any(
        wanted & _host_ports(other)
        for other in others
        if other.spec["nodeName"] == node.name and not is_finished(other)
    )


def _tolerated(pod: Stored, taint: Json) -> bool:
    if taint.get("effect") == "PreferNoSchedule":
        return True
    return any(
        toleration.get("key") in (None, taint.get("key"))
        and toleration.get("effect") in (None, "", taint.get("effect"))
        and (
            toleration.get("operator") == "Exists"
            or toleration.get("value", "") == taint.get("value", "")
        )
        for toleration in pod.spec.get("tolerations") or ()
    )


def _host_ports(pod: Stored) -> set[tuple[str, int]]:
    return {
        (port.get("protocol", "TCP"), port["hostPort"])
        for container in pod.spec.get("containers") or ()
        for port in container.get("ports") or ()
        if port.get("hostPort")
    }
