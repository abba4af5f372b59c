"""Endpoints objects instead of EndpointSlices."""

import json
from collections.abc import Iterator

import pytest

from ebpf_lb.lab.cluster import Lab
from tests.lab.conftest import Room
from tests.support.checker import Reaches, ReachesCount, Refused, expect
from tests.support.manifests import cluster_ip, deployment, service

NODE = "node2"
STATUS = (
    "import urllib.request as r; print(r.urlopen('http://127.0.0.1:10249/status').read().decode())"
)


@pytest.fixture
def by_endpoints(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A node whose agent reads Endpoints objects."""

    def restart() -> None:
        lab.stop_agent(NODE)
        lab.start_agent(NODE)
        lab.wait_for_agents(only=NODE)

    with monkeypatch.context() as patch:
        patch.setenv("EBPF_LB_ENDPOINTS_SOURCE", "endpoints")
        restart()
    yield NODE
    restart()


@pytest.mark.rule("EP-1")
def test_endpoints_objects_are_followed(room: Room, by_endpoints: str) -> None:
    """Objects of the lab's own controller hold one family, a Service's first: IPv4."""
    room.apply(deployment("web", replicas=3), service("web", number=70))
    status = room.lab.exec(by_endpoints, ["python3", "-c", STATUS], check=True).stdout
    assert json.loads(status)["endpointsSource"] == "endpoints"
    target = f"{cluster_ip(70, 'ipv4')}:80/tcp"
    expect(room.lab, by_endpoints, target, Reaches(set(room.pods("web"))))
    for replicas in (1, 0, 2):
        room.apply(deployment("web", replicas=replicas))
        outcome = ReachesCount(replicas) if replicas else Refused()
        expect(room.lab, by_endpoints, target, outcome)
