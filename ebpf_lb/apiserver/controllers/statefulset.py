"""StatefulSet -> Pods `name-0`, `name-1`, …: in order, one at a time (or all at once if Parallel).

Upstream: pkg/controller/statefulset/stateful_set_control.go.
"""

from ebpf_lb.apiserver.controllers.pods import (
    is_finished,
    is_ready,
    owned_pods,
    pod_from_template,
    template_hash,
)
from ebpf_lb.apiserver.controllers.workload import WorkloadController
from ebpf_lb.apiserver.kinds import POD, STATEFUL_SET
from ebpf_lb.apiserver.store import Json, Stored

_REVISION = "controller-revision-hash"


class StatefulSetController(WorkloadController):
    kind = STATEFUL_SET

    def settle(self, stateful_set: Stored) -> None:
        revision = f"{stateful_set.name}-{template_hash(stateful_set.spec['template'])}"
        self._settle_pods(stateful_set, revision)
        self._write_status(stateful_set, revision)

    def _settle_pods(self, stateful_set: Stored, revision: str) -> None:
        """The next steps; with ordered pods, the first one that is not finished is the last."""
        spec = stateful_set.spec
        ordered = spec["podManagementPolicy"] == "OrderedReady"
        ordinals = range(spec["replicas"])
        pods = {_ordinal(pod): pod for pod in owned_pods(self.store, stateful_set)}
        for ordinal in ordinals:
            pod = pods.get(ordinal)
            if pod is None:
                self._create(stateful_set, ordinal, revision)
            elif is_finished(pod) and not pod.terminating:
                self._delete(pod)
            if ordered and (pod is None or pod.terminating or not is_ready(pod)):
                return
        for ordinal in sorted(set(pods) - set(ordinals), reverse=True):
            if not pods[ordinal].terminating:
                self._delete(pods[ordinal])
            if ordered:
                return
        self._update(stateful_set, revision, [pods[n] for n in ordinals if n in pods])

    def _update(self, stateful_set: Stored, revision: str, pods: list[Stored]) -> None:
        """One pod at a time, from the last down to the partition."""
        strategy: Json = stateful_set.spec["updateStrategy"]
        if strategy["type"] != "RollingUpdate":
            return
        partition: int = strategy.get("rollingUpdate", {}).get("partition", 0)
        for pod in reversed(pods):
            if _ordinal(pod) < partition:
                return
            if pod.labels.get(_REVISION) != revision and not pod.terminating:
                self._delete(pod)
                return
            if pod.terminating or not is_ready(pod):
                return

    def _create(self, stateful_set: Stored, ordinal: int, revision: str) -> None:
        name = f"{stateful_set.name}-{ordinal}"
        if self.store.get(POD, stateful_set.namespace, name):
            return  # someone else's pod of that name, or the last one is still terminating
        labels = {
            _REVISION: revision,
            "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": str(ordinal),
        }
        pod = pod_from_template(stateful_set, labels)
        pod["metadata"]["name"] = name
        pod["spec"] |= {"hostname": name}
        if service := stateful_set.spec.get("serviceName"):
            pod["spec"]["subdomain"] = service
        self.registry.create(POD, stateful_set.namespace, pod)

    def _delete(self, pod: Stored) -> None:
        self.registry.delete(POD, pod.namespace, pod.name)

    def _write_status(self, stateful_set: Stored, revision: str) -> None:
        pods = owned_pods(self.store, stateful_set)
        ready = sum(is_ready(pod) and not pod.terminating for pod in pods)
        updated = sum(pod.labels.get(_REVISION) == revision for pod in pods)
        self.registry.set_status(
            stateful_set,
            {
                "observedGeneration": stateful_set.metadata["generation"],
                "replicas": len(pods),
                "readyReplicas": ready,
                "availableReplicas": ready,
                "currentReplicas": updated,
                "updatedReplicas": updated,
                "currentRevision": revision,
                "updateRevision": revision,
                "collisionCount": 0,
            },
        )


def _ordinal(pod: Stored) -> int:
    return int(pod.name.rpartition("-")[2])
