"""Operations on objects: names, versions, deletion."""

from typing import Any

import pytest

from ebpf_lb.apiserver.errors import StatusError
from ebpf_lb.apiserver.kinds import (
    DEPLOYMENT,
    KINDS,
    NAMESPACE,
    NODE,
    POD,
    SERVICE,
    find_kind,
)
from ebpf_lb.apiserver.registry import DeleteOptions, Registry
from tests.unit.apiserver.cluster import deployment, registry, service

MERGE = "application/merge-patch+json"
CONFIG_MAP = find_kind("cm")
EVENT = find_kind("events")
assert CONFIG_MAP and EVENT


def pod(name: str = "a", **spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "i"}]
    return {"metadata": {"name": name}, "spec": {"containers": containers} | spec}


def failure(code: int, reason: str, operation: Any, *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(StatusError) as caught:
        operation(*arguments, **keywords)
    assert (caught.value.code, caught.value.reason) == (code, reason)
    assert caught.value.body()["code"] == code
    return caught.value.message


@pytest.fixture
def made() -> Registry:
    return registry()


def test_a_created_object_has_an_identity(made: Registry) -> None:
    first = made.create(SERVICE, "default", service())
    second = made.create(SERVICE, "default", service("other"))
    assert first.uid != second.uid
    assert second.version > first.version
    assert first.metadata["creationTimestamp"].endswith("Z")
    assert made.get(SERVICE, "default", "web") is first


def test_generate_name(made: Registry) -> None:
    names = {
        made.create(CONFIG_MAP, "default", {"metadata": {"generateName": "x-"}}).name
        for _ in range(10)
    }
    assert len(names) == 10
    assert all(name.startswith("x-") and len(name) == 7 for name in names)


@pytest.mark.parametrize(
    ("kind", "name", "good"),
    [
        (SERVICE, "web-1", True),
        (SERVICE, "1web", True),
        (SERVICE, "w.eb", False),
        (SERVICE, "w" * 64, False),
        (POD, "1.web", True),
        (POD, "Web", False),
        (POD, "-web", False),
        (NAMESPACE, "1web", True),
        (NAMESPACE, "a.b", False),
        (NODE, "a.b", True),
    ],
)
def test_names(made: Registry, kind: Any, name: str, good: bool) -> None:
    object_ = {SERVICE: service(), POD: pod()}.get(kind, {"metadata": {}})
    object_["metadata"]["name"] = name
    namespace = "default" if kind.namespaced else ""
    if good:
        made.create(kind, namespace, object_)
    else:
        message = failure(422, "Invalid", made.create, kind, namespace, object_)
        assert "metadata.name: Invalid value" in message


def test_labels_are_checked(made: Registry) -> None:
    object_ = service()
    object_["metadata"]["labels"] = {"a/b/c": "x"}
    assert "metadata.labels" in failure(422, "Invalid", made.create, SERVICE, "default", object_)


def test_namespaces(made: Registry) -> None:
    message = failure(404, "NotFound", made.create, SERVICE, "nowhere", service())
    assert message == 'namespaces "nowhere" not found'
    object_ = service()
    object_["metadata"]["namespace"] = "kube-system"
    failure(400, "BadRequest", made.create, SERVICE, "default", object_)
    made.create(SERVICE, "kube-system", object_)
    made.create(SERVICE, "default", service())
    failure(403, "Forbidden", made.delete, NAMESPACE, "", "default")


def test_a_name_is_taken_once(made: Registry) -> None:
    made.create(SERVICE, "default", service())
    message = failure(409, "AlreadyExists", made.create, SERVICE, "default", service())
    assert message == 'services "web" already exists'


def test_updates_need_the_latest_version(made: Registry) -> None:
    old = made.create(SERVICE, "default", service())
    stale = {"metadata": dict(old.metadata), "spec": old.spec | {"sessionAffinity": "ClientIP"}}
    made.patch(SERVICE, "default", "web", MERGE, {"metadata": {"labels": {"a": "b"}}})
    message = failure(409, "Conflict", made.update, SERVICE, "default", "web", stale)
    assert "the object has been modified" in message
    del stale["metadata"]["resourceVersion"]
    assert made.update(SERVICE, "default", "web", stale).spec["sessionAffinity"] == "ClientIP"


def test_an_update_of_another_uid_is_refused(made: Registry) -> None:
    made.create(SERVICE, "default", service())
    patch = {"metadata": {"uid": "another", "labels": {"a": "b"}}}
    failure(409, "Conflict", made.patch, SERVICE, "default", "web", MERGE, patch)


def test_an_update_that_changes_nothing_is_no_version(made: Registry) -> None:
    old = made.create(SERVICE, "default", service())
    version = made.store.version
    assert made.update(SERVICE, "default", "web", service()) is old
    assert made.store.version == version


def test_generation_counts_changes_of_the_spec(made: Registry) -> None:
    def generation(change: dict[str, Any], **keywords: Any) -> int:
        stored = made.patch(DEPLOYMENT, "default", "web", MERGE, change, **keywords)
        return int(stored.metadata["generation"])

    made.create(DEPLOYMENT, "default", deployment())
    assert generation({"metadata": {"labels": {"a": "b"}}}) == 1
    assert generation({"status": {"replicas": 1}}, subresource="status") == 1
    assert generation({"spec": {"replicas": 5}}) == 2


def test_status_is_written_through_its_subresource_only(made: Registry) -> None:
    made.create(POD, "default", pod())
    change = {"status": {"phase": "Running"}, "spec": {"hostname": "x"}}
    stored = made.patch(POD, "default", "a", MERGE, change, subresource="status")
    assert stored.status["phase"] == "Running"
    assert "hostname" not in stored.spec
    assert made.patch(POD, "default", "a", MERGE, {"status": {"phase": "Failed"}}) is stored


def test_a_pod_with_a_node_is_given_time(made: Registry) -> None:
    made.create(POD, "default", pod(nodeName="node1"))
    marked = made.delete(POD, "default", "a")
    assert marked.metadata["deletionGracePeriodSeconds"] == 30
    assert made.get(POD, "default", "a").terminating
    assert made.delete(POD, "default", "a", DeleteOptions(grace_s=60)) is marked, "never longer"
    assert (
        made.delete(POD, "default", "a", DeleteOptions(grace_s=5)).metadata[
            "deletionGracePeriodSeconds"
        ]
        == 5
    )
    made.delete(POD, "default", "a", DeleteOptions(grace_s=0))
    failure(404, "NotFound", made.get, POD, "default", "a")


def test_a_pod_without_a_node_goes_at_once(made: Registry) -> None:
    made.create(POD, "default", pod())
    made.delete(POD, "default", "a")
    failure(404, "NotFound", made.get, POD, "default", "a")


def test_delete_of_another_uid_is_refused(made: Registry) -> None:
    made.create(SERVICE, "default", service())
    options = DeleteOptions(uid="another")
    failure(409, "Conflict", made.delete, SERVICE, "default", "web", options)


def test_finalizers_hold_an_object(made: Registry) -> None:
    object_ = service()
    object_["metadata"]["finalizers"] = ["example.com/wait"]
    made.create(SERVICE, "default", object_)
    assert made.delete(SERVICE, "default", "web").terminating
    made.patch(SERVICE, "default", "web", MERGE, {"metadata": {"finalizers": None}})
    failure(404, "NotFound", made.get, SERVICE, "default", "web")


def test_events_are_kept_in_bounds(made: Registry) -> None:
    for number in range(EVENT.limit + 10):
        made.create(EVENT, "default", {"metadata": {"name": f"e{number}"}})
    events = made.store.objects(EVENT)
    assert len(events) == EVENT.limit
    assert made.store.get(EVENT, "default", "e9") is None
    assert made.store.get(EVENT, "default", f"e{EVENT.limit + 9}")


@pytest.mark.parametrize("word", ["svc", "service", "services", "Service"])
def test_kinds_have_many_names(word: str) -> None:
    assert find_kind(word) is SERVICE


def test_kinds_are_told_apart() -> None:
    assert len({(kind.api_version, kind.name) for kind in KINDS}) == len(KINDS)
    assert len({(kind.group, kind.version, kind.plural) for kind in KINDS}) == len(KINDS)
