"""The two kinds of patches."""

from typing import Any

import pytest

from ebpf_lb.apiserver.errors import StatusError
from ebpf_lb.apiserver.kinds import DEPLOYMENT, POD, SERVICE
from ebpf_lb.apiserver.patch import merge_patch, strategic_merge

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
