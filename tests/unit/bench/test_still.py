"""The API server in which nothing happens serves what agents read, in pages."""

from __future__ import annotations

import json
from typing import Any

from ebpf_lb.kube import resources
from tests.bench.still import Still

NODE = "node1"


def listed(still: Still, path: str, limit: int) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    query = {"limit": str(limit)}
    while True:
        status, body = still.answer(path, query)
        page = json.loads(body)
        assert status == 200 and len(page["items"]) <= limit
        items += page["items"]
        if "continue" not in page["metadata"]:
            return items
        query["continue"] = page["metadata"]["continue"]


def test_what_it_lists_is_what_agents_plan_with() -> None:
    still = Still(5, 10, NODE, ["192.0.2.1"])
    wanted = ((resources.SERVICES, 5), (resources.ENDPOINT_SLICES, 10), (resources.node(NODE), 1))
    for resource, number in wanted:
        parsed = [resource.parse(one) for one in listed(still, resource.path, 3)]
        assert len({one.key for one in parsed}) == number
        assert all(one.value is not None and not one.problems for one in parsed)
    assert listed(still, resources.SERVICE_CIDRS.path, 3) == []
    assert still.answer("/api/v1/endpoints", {})[0] == 404
