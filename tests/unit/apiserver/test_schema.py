"""What fields objects have: types, and names that are not theirs."""

from typing import Any

import pytest

from ebpf_lb.apiserver.errors import StatusError
from ebpf_lb.apiserver.kinds import DEPLOYMENT, KINDS, POD, SERVICE, Kind
from ebpf_lb.apiserver.registry import refuse_unknown
from ebpf_lb.apiserver.schema import ListOf, Struct, UnknownField, WrongType, child, decode
from tests.unit.apiserver.cluster import deployment, registry, service

Json = dict[str, Any]


def unknown(kind: Kind, object_: Json) -> list[UnknownField]:
    found: list[UnknownField] = []
    decode(object_, kind.schema, found)
    return found


@pytest.mark.parametrize(
    ("kind", "object_", "field", "meant"),
    [
        (SERVICE, {"spec": {"ports": [{"port": 80, "targetport": 1}]}}, "spec.ports[0].targetport",
         "targetPort"),
        (SERVICE, {"spec": {"Selector": {"a": "b"}}}, "spec.Selector", "selector"),
        (SERVICE, {"metdata": {"name": "x"}}, "metdata", "metadata"),
        (SERVICE, {"spec": {"sessionAffinityConfig": {"clientIP": {"timeout": 1}}}},
         "spec.sessionAffinityConfig.clientIP.timeout", "timeoutSeconds"),
        (DEPLOYMENT, {"spec": {"template": {"spec": {"containers": [{}, {"imgae": "x"}]}}}},
         "spec.template.spec.containers[1].imgae", "image"),
        (POD, {"spec": {"colour": "blue"}}, "spec.colour", ""),
    ],
)  # fmt: skip
def test_unknown_fields(kind: Kind, object_: Json, field: str, meant: str) -> None:
    assert unknown(kind, object_) == [UnknownField(field, meant)]


def test_free_keys_and_what_only_upstream_reads_are_known() -> None:
    pod = {
        "metadata": {"labels": {"any.thing/x": "1"}, "annotations": {"targetport": "x"}},
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
                    "readinessProbe": {"httpGet": {"port": "http", "path": "/"}},
                    "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
                    "securityContext": {"capabilities": {"drop": ["ALL"]}},
                }
            ],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
            "tolerations": [{"operator": "Exists"}],
        },
    }
    assert unknown(POD, pod) == []


def test_nulls_and_unknown_fields_are_left_out() -> None:
    given = {"spec": {"clusterIP": None, "nothing": 1, "selector": {"a": "b", "c": None}}}
    assert decode(given, SERVICE.schema, []) == {"spec": {"selector": {"a": "b"}}}
    assert given["spec"]["nothing"] == 1, "a copy"


@pytest.mark.parametrize(
    ("spec", "field", "hint"),
    [
        ({"ports": [{"port": "80"}]}, "spec.ports[0].port", "must be a whole number, not string"),
        ({"ports": [{"port": True}]}, "spec.ports[0].port", "must be a whole number, not bool"),
        ({"ports": [{"port": 1.5}]}, "spec.ports[0].port", "must be a whole number, not number"),
        ({"ports": [None]}, "spec.ports[0]", "must be an object, not null"),
        ({"ports": {}}, "spec.ports", "must be a list, not object"),
        ({"selector": {"a": 1}}, "spec.selector.a", "must be a string, not number"),
        ({"publishNotReadyAddresses": "yes"}, "spec.publishNotReadyAddresses",
         "must be true or false, not string"),
    ],
)  # fmt: skip
def test_wrong_types(spec: Json, field: str, hint: str) -> None:
    with pytest.raises(WrongType) as caught:
        decode({"spec": spec}, SERVICE.schema, [])
    assert (caught.value.field, caught.value.hint) == (field, hint)


def test_numbers_or_names() -> None:
    for target in (80, "http"):
        decode({"spec": {"ports": [{"port": 1, "targetPort": target}]}}, SERVICE.schema, [])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource)
def test_every_kind_has_a_schema(kind: Kind) -> None:
    def walk(struct: Struct, seen: set[str]) -> None:
        seen.add(struct.model)
        for field in struct.fields.values():
            inner = field.items if isinstance(field, ListOf) else field
            if isinstance(inner, Struct) and inner.model not in seen:
                walk(inner, seen)

    assert {"apiVersion", "kind", "metadata"} <= kind.schema.fields.keys()
    walk(kind.schema, set())


def test_lists_that_merge() -> None:
    pod = child(POD.schema, "spec")
    assert isinstance(pod, Struct)
    keys = {
        name: field.merge_key for name, field in pod.fields.items() if isinstance(field, ListOf)
    }
    assert keys["containers"] == keys["volumes"] == ("name",)
    assert keys["tolerations"] == ()


# --- what the server does with it


def test_a_strict_request_is_refused_and_others_lose_the_field() -> None:
    made = registry()
    typed = service(selectr={"a": "b"})
    assert "selectr" not in made.create(SERVICE, "default", typed).spec
    with pytest.raises(StatusError) as caught:
        made.create(SERVICE, "default", service("other", selectr={}), on_unknown=refuse_unknown)
    assert caught.value.code == 400
    assert 'unknown field "spec.selectr" (did you mean "selector"?)' in caught.value.message
    assert made.store.get(SERVICE, "default", "other") is None


def test_a_strict_patch_is_refused() -> None:
    made = registry()
    made.create(DEPLOYMENT, "default", deployment())
    change = {"spec": {"replcas": 2}}
    for type_ in ("application/merge-patch+json", "application/strategic-merge-patch+json"):
        with pytest.raises(StatusError, match=r'unknown field "spec.replcas" .*"replicas"'):
            made.patch(DEPLOYMENT, "default", "web", type_, change, on_unknown=refuse_unknown)
