"""The three kinds of patches."""

from typing import Any

import pytest

from ebpf_lb.lab.apiserver.errors import StatusError
from ebpf_lb.lab.apiserver.kinds import DEPLOYMENT, POD, SERVICE
from ebpf_lb.lab.apiserver.patch import json_patch, merge_patch, strategic_merge

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": 1}, {"a": 1}, {"e": 1, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge(target: Json, patch: Json, result: Json) -> None:
    assert merge_patch(target, patch) == result


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([{"op": "add", "path": "/b", "value": 2}], {"a": [1, 2], "b": 2}),
        ([{"op": "add", "path": "/a/1", "value": 9}], {"a": [1, 9, 2]}),
        ([{"op": "add", "path": "/a/-", "value": 9}], {"a": [1, 2, 9]}),
        ([{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ([{"op": "replace", "path": "/a", "value": 1}], {"a": 1}),
        ([{"op": "move", "from": "/a/0", "path": "/b"}], {"a": [2], "b": 1}),
        ([{"op": "copy", "from": "/a", "path": "/x~1y"}], {"a": [1, 2], "x/y": [1, 2]}),
        ([{"op": "test", "path": "/a/0", "value": 1}], {"a": [1, 2]}),
    ],
)
def test_json_patch(operations: list[Json], result: Json) -> None:
    document = {"a": [1, 2]}
    assert json_patch(document, operations) == result
    assert document == {"a": [1, 2]}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/a/0", "value": 7},
        {"op": "remove", "path": "/nothing"},
        {"op": "replace", "path": "/nothing", "value": 1},
        {"op": "add", "path": "/a/7", "value": 1},
        {"op": "fly", "path": "/a"},
        {"path": "/a"},
    ],
)
def test_json_patch_that_does_not_fit(operation: Json) -> None:
    with pytest.raises(StatusError) as caught:
        json_patch({"a": [1, 2]}, [operation])
    assert caught.value.code == 422


DNS = [
    {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
    {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    {"name": "metrics", "port": 9153},
]


def ports(patch: Any) -> list[Json]:
    merged = strategic_merge({"spec": {"ports": DNS}}, {"spec": {"ports": patch}}, SERVICE.schema)
    result: list[Json] = merged["spec"]["ports"]
    return result


def test_ports_merge_by_number_and_protocol() -> None:
    result = ports([{"port": 53, "protocol": "UDP", "targetPort": 5353}, {"port": 80}])
    assert result == [DNS[0] | {"targetPort": 5353}, DNS[1], DNS[2], {"port": 80}]


def test_a_port_without_protocol_is_tcp() -> None:
    assert ports([{"port": 9153, "protocol": "TCP", "targetPort": 1}])[2]["targetPort"] == 1
    assert ports([{"port": 53, "targetPort": 1}])[1]["targetPort"] == 1


def test_items_are_deleted_and_lists_replaced() -> None:
    assert ports([{"port": 53, "$patch": "delete"}]) == [DNS[0], DNS[2]]
    assert ports([{"$patch": "replace"}, {"port": 1}]) == [{"port": 1}]


def test_an_item_without_its_key_is_refused() -> None:
    with pytest.raises(StatusError, match="merge key: port"):
        ports([{"name": "dns"}])


def test_order_as_kubectl_asks_for() -> None:
    merged = strategic_merge(
        {"spec": {"ports": DNS}},
        {
            "spec": {
                "$setElementOrder/ports": [{"port": 80}, {"port": 9153}, {"port": 53}],
                "ports": [{"port": 80}],
            }
        },
        SERVICE.schema,
    )
    assert [port["port"] for port in merged["spec"]["ports"]] == [80, 9153, 53, 53]
    assert "$setElementOrder/ports" not in merged["spec"]


def test_lists_without_a_key_are_replaced() -> None:
    merged = strategic_merge(
        {"spec": {"externalIPs": ["192.0.2.1"]}},
        {"spec": {"externalIPs": ["192.0.2.2"]}},
        SERVICE.schema,
    )
    assert merged["spec"]["externalIPs"] == ["192.0.2.2"]


def test_containers_and_conditions() -> None:
    before = {
        "spec": {"template": {"spec": {"containers": [{"name": "a", "image": "1", "args": ["x"]}]}}}
    }
    change = {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "2"}]}}}}
    merged = strategic_merge(before, change, DEPLOYMENT.schema)
    containers = merged["spec"]["template"]["spec"]["containers"]
    assert containers == [{"name": "a", "image": "2", "args": ["x"]}]
    conditions = [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}]
    merged = strategic_merge(
        {"status": {"conditions": conditions}},
        {"status": {"conditions": [{"type": "Ready", "status": "False"}]}},
        POD.schema,
    )
    assert [c["status"] for c in merged["status"]["conditions"]] == ["False", "True"]


def test_sets_and_directives() -> None:
    before = {"metadata": {"finalizers": ["a", "b"], "labels": {"x": "1", "y": "2"}}}
    merged = strategic_merge(
        before,
        {
            "metadata": {
                "$deleteFromPrimitiveList/finalizers": ["a"],
                "finalizers": ["c"],
                "labels": {"$patch": "replace", "z": "3"},
            }
        },
        SERVICE.schema,
    )
    assert merged == {"metadata": {"finalizers": ["b", "c"], "labels": {"z": "3"}}}
    retained = strategic_merge(
        {"strategy": {"type": "RollingUpdate", "rollingUpdate": {}}},
        {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}},
        None,
    )
    assert retained == {"strategy": {"type": "Recreate"}}
