"""The three-way merge of apply."""

from typing import Any

import pytest

from ebpf_lb.apiserver.kinds import DEPLOYMENT, SERVICE
from ebpf_lb.lab.objects.merge import three_way_merge

Json = dict[str, Any]


@pytest.mark.parametrize(
    ("last", "live", "wanted", "result"),
    [
        ({}, {"a": 1}, {"a": 2}, {"a": 2}),
        ({}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}),  # what others set stays
        ({"a": 1}, {"a": 1}, {"b": 2}, {"b": 2}),  # what we set goes
        ({"a": 1}, {"a": 5}, {"a": 1}, {"a": 1}),  # ours again, though changed meanwhile
        ({"a": 1}, {}, {}, {}),  # gone already
        (
            {"m": {"x": 1, "y": 2}},
            {"m": {"x": 1, "y": 2, "z": 3}},
            {"m": {"x": 1}},
            {"m": {"x": 1, "z": 3}},
        ),
        ({"m": {"x": 1}}, {"m": {"x": 1, "z": 3}}, {}, {}),
        ({}, {"a": 1}, {"a": None}, {}),  # null asks for the default
        ({"l": [1]}, {"l": [1, 2]}, {"l": [3]}, {"l": [3]}),  # lists without a key as a whole
    ],
)
def test_fields(last: Json, live: Json, wanted: Json, result: Json) -> None:
    assert three_way_merge(last, live, wanted, None) == result


def merged_ports(last: list[Json], live: list[Json], wanted: list[Json]) -> Any:
    def as_service(ports: list[Json]) -> Json:
        return {"spec": {"ports": ports}}

    merged = three_way_merge(as_service(last), as_service(live), as_service(wanted), SERVICE.schema)
    return merged["spec"]["ports"]


def test_ports_keep_what_the_server_gave_them() -> None:
    live = [{"port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": 30080}]
    assert merged_ports([{"port": 80}], live, [{"port": 80, "targetPort": 8080}]) == [
        live[0] | {"targetPort": 8080}
    ]


def test_ports_come_and_go() -> None:
    live = [
        {"port": 80, "protocol": "TCP"},
        {"port": 443, "protocol": "TCP"},
        {"port": 443, "protocol": "UDP"},
    ]
    last = [{"port": 80}, {"port": 443}]
    assert merged_ports(last, live, [{"port": 81}, {"port": 443}]) == [
        {"port": 81},
        {"port": 443, "protocol": "TCP"},
        {"port": 443, "protocol": "UDP"},  # somebody else's
    ]


def test_containers() -> None:
    def as_deployment(*containers: Json) -> Json:
        return {"spec": {"template": {"spec": {"containers": list(containers)}}}}

    merged = three_way_merge(
        as_deployment({"name": "a", "image": "1", "args": ["x"]}),
        as_deployment(
            {"name": "a", "image": "1", "args": ["x"], "imagePullPolicy": "Always"},
            {"name": "sidecar"},
        ),
        as_deployment({"name": "a", "image": "2"}),
        DEPLOYMENT.schema,
    )
    assert merged == as_deployment(
        {"name": "a", "image": "2", "imagePullPolicy": "Always"}, {"name": "sidecar"}
    )
