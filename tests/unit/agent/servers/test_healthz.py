"""What /healthz, /livez and /readyz answer."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from ebpf_lb.agent.servers.healthz import LONGEST_WAIT_S, Health, Starting


class Node:
    """A node whose state the tests turn."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waiting_since: float | None = None
        self.waiting_for: Sequence[str] = ()
        self.complete = True
        self.eligible = True
        self.problems: Sequence[str] = ()
        self.left_out: Sequence[str] = ()
        self.hook_problems: Sequence[str] = ()
        self.health = Health(self, lambda: self.now, lambda: datetime.fromtimestamp(self.now, UTC))

    @property
    def statuses(self) -> tuple[int, int, int]:
        health = self.health
        return health.healthz().status, health.livez().status, health.readyz().status

    @property
    def ready(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.health.readyz().body)
        return found


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.mark.rule("HE-5")
def test_all_is_well(node: Node) -> None:
    assert node.statuses == (200, 200, 200)
    assert json.loads(node.health.healthz().body) == {
        "lastUpdated": "1970-01-01 00:16:40+00:00",
        "currentTime": "1970-01-01 00:16:40+00:00",
        "nodeEligible": True,
    }
    assert set(json.loads(node.health.livez().body)) == {"lastUpdated", "currentTime"}


@pytest.mark.rule("HE-5", "HE-6")
def test_balancers_are_sent_away_from_a_node_that_goes_but_it_is_not_restarted(node: Node) -> None:
    node.eligible = False
    assert node.statuses == (503, 200, 200)
    assert json.loads(node.health.healthz().body)["nodeEligible"] is False


def test_not_ready_before_the_maps_are_filled(node: Node) -> None:
    node.complete = False
    node.waiting_for = ["the API server's list of services"]
    assert node.statuses == (503, 200, 503)
    assert json.loads(node.health.livez().body)["waitingFor"] == node.waiting_for
    assert node.ready["waitingFor"] == node.waiting_for


def test_alive_from_the_first_moment() -> None:
    health = Health(Starting("the programs to be loaded"), lambda: 0.0)
    assert (health.livez().status, health.healthz().status, health.readyz().status) == (
        200,
        503,
        503,
    )
    assert json.loads(health.livez().body)["waitingFor"] == ["the programs to be loaded"]


@pytest.mark.rule("HE-5")
def test_a_change_that_waits_too_long(node: Node) -> None:
    assert node.statuses == (200, 200, 200)
    node.waiting_since = node.now
    node.now += LONGEST_WAIT_S - 1
    assert node.statuses == (200, 200, 200)
    node.now += 1
    assert node.statuses == (503, 503, 503)
    body = json.loads(node.health.healthz().body)
    assert body["lastUpdated"] < body["currentTime"]
    node.waiting_since = None
    assert node.statuses == (200, 200, 200)


def test_a_node_that_is_cut_off_goes_on_but_is_not_ready(node: Node) -> None:
    node.problems = ["The node is cut off from the API server …"]
    assert node.statuses == (200, 200, 503)
    assert node.ready["problems"] == node.problems


def test_what_is_left_out_is_said_and_bounded(node: Node) -> None:
    """No tenant's Service holds up a rollout, or makes the answer large."""
    node.left_out = [f"Service port tenant/{number} is not programmed." for number in range(999)]
    assert node.statuses[2] == 200
    said = node.ready["leftOut"]
    assert len(said) == 21 and said[-1].startswith("And 979 more")


def test_what_others_did_at_our_hooks_is_said(node: Node) -> None:
    """It may do no harm, so it makes no node unready."""
    assert "hookProblems" not in json.loads(node.health.healthz().body)
    node.hook_problems = ["eth0, ingress: the program other runs before ours (tcx, 1); …"]
    assert node.statuses == (200, 200, 200)
    assert json.loads(node.health.healthz().body)["hookProblems"] == node.hook_problems
    assert node.ready["hookProblems"] == node.hook_problems


def test_answers_are_counted(node: Node) -> None:
    node.health.livez()
    node.health.livez()
    node.complete = False
    node.health.healthz()
    assert node.health.answers == {("livez", 200): 2, ("healthz", 503): 1}
