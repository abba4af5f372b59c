"""What /healthz and /livez answer."""

import json
from datetime import UTC, datetime

import pytest

from ebpf_lb.agent.servers.healthz import LONGEST_WAIT_S, Health


class Node:
    """A node whose state the tests turn."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waiting: float | None = None
        self.complete = True
        self.eligible = True
        self.health = Health(
            lambda: self.waiting,
            lambda: self.complete,
            lambda: self.eligible,
            lambda: self.now,
            lambda: datetime.fromtimestamp(self.now, UTC),
        )

    @property
    def statuses(self) -> tuple[int, int]:
        return self.health.healthz().status, self.health.livez().status


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.mark.rule("HE-5")
def test_all_is_well(node: Node) -> None:
    assert node.statuses == (200, 200)
    assert json.loads(node.health.healthz().body) == {
        "lastUpdated": "1970-01-01 00:16:40+00:00",
        "currentTime": "1970-01-01 00:16:40+00:00",
        "nodeEligible": True,
    }
    assert set(json.loads(node.health.livez().body)) == {"lastUpdated", "currentTime"}


@pytest.mark.rule("HE-5", "HE-6")
def test_balancers_are_sent_away_from_a_node_that_goes_but_it_is_not_restarted(node: Node) -> None:
    node.eligible = False
    assert node.statuses == (503, 200)
    assert json.loads(node.health.healthz().body)["nodeEligible"] is False


def test_not_ready_before_the_maps_are_filled(node: Node) -> None:
    node.complete = False
    assert node.statuses == (503, 200)


@pytest.mark.rule("HE-5")
def test_a_change_that_waits_too_long(node: Node) -> None:
    assert node.statuses == (200, 200)
    node.waiting = node.now
    node.now += LONGEST_WAIT_S - 1
    assert node.statuses == (200, 200)
    node.now += 1
    assert node.statuses == (503, 503)
    body = json.loads(node.health.healthz().body)
    assert body["lastUpdated"] < body["currentTime"]
    node.waiting = None
    assert node.statuses == (200, 200)
