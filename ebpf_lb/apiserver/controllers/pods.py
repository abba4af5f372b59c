"""What the workload controllers know about pods."""

import copy
import hashlib
import json

from ebpf_lb.apiserver.kinds import POD, Kind
from ebpf_lb.apiserver.store import Json, Store, Stored

_HASH_LETTERS = "bcdf2456789vwxz"


def is_ready(pod: Stored) -> bool:
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True"
        for condition in pod.status.get("conditions") or ()
    )


def is_finished(pod: Stored) -> bool:
    return pod.status.get("phase") in ("Failed", "Succeeded")


def is_active(pod: Stored) -> bool:
    """Whether it counts as a replica: a terminating pod has been replaced already."""
    return not pod.terminating and not is_finished(pod)


def owner_of(stored: Stored, kind: Kind) -> tuple[str, str] | None:
    """(namespace, name) of the controller of `kind` that made the object."""
    for reference in stored.metadata.get("ownerReferences", ()):
        if reference.get("controller") and reference.get("kind") == kind.name:
            return stored.namespace, reference["name"]
    return None


def owned_pods(store: Store, owner: Stored) -> list[Stored]:
    return [
        pod
        for pod in store.objects(POD, owner.namespace)
        if any(
            reference.get("controller") and reference.get("uid") == owner.uid
            for reference in pod.metadata.get("ownerReferences", ())
        )
    ]


def owner_reference(owner: Stored) -> Json:
    return {
        "apiVersion": owner.kind.api_version,
        "kind": owner.kind.name,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def template_hash(template: Json) -> str:
    """Ten letters that differ when the template does, as in a ReplicaSet's name."""
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).digest()
    return "".join(_HASH_LETTERS[byte % len(_HASH_LETTERS)] for byte in digest[:10])


def pod_from_template(owner: Stored, labels: dict[str, str]) -> Json:
    """A pod of a workload, without a name; `labels` come in addition."""
    template: Json = copy.deepcopy(owner.spec["template"])
    metadata: Json = template.get("metadata", {})
    return {
        "metadata": {
            "labels": metadata.get("labels", {}) | labels,
            "annotations": metadata.get("annotations", {}),
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": template["spec"],
    }


def condition(
    stored: Stored, type_: str, status: bool, reason: str, message: str, now: str
) -> Json:
    """A condition of `stored`; its transition time stays if its status does."""
    value = "True" if status else "False"
    for old in stored.status.get("conditions") or ():
        if old.get("type") == type_ and old.get("status") == value:
            now = old.get("lastTransitionTime", now)
    return {
        "type": type_,
        "status": value,
        "reason": reason,
        "message": message,
        "lastTransitionTime": now,
    }
