"""What the page is told of recorded connections, and what it may ask for."""

from dataclasses import replace
from typing import Any

import pytest

from ebpf_lb.lessons.scenarios import way
from ebpf_lb.lessons.scenarios.frames import Endpoint
from ebpf_lb.lessons.web import actions, trace
from tests.unit.lessons_scenarios.recorded_frames import recorded

ASKED = {"client": "node1", "address": "FD00:10:96::9", "port": 80, "protocol": "TCP"}


def told(name: str) -> dict[str, Any]:
    return trace.tell(way.tell(recorded(name)), "web")


def rewritings(one: dict[str, Any]) -> list[tuple[str, str]]:
    return [(tap["machine"], r["name"]) for tap in one["taps"] for r in tap["rewritings"]]


def test_rewritings_of_request_and_answer_have_their_names() -> None:
    story = told("cross-node-snat-ipv4")
    request, answer = story["ways"]
    assert (request["towards"], answer["towards"]) == (True, False)
    assert rewritings(request) == [("node2", "DNAT"), ("node2", "SNAT")]
    assert rewritings(answer) == [("node2", "SNAT undone"), ("node2", "DNAT undone")]
    assert story["answered"]
    assert "<svg" in story["drawing"] and "node2 rewrites" in story["drawing"]


def test_what_is_lost_has_an_end_and_no_answer() -> None:
    story = told("etp-local-drop")
    [request] = story["ways"]
    assert "nobody saw it after that" in request["end"]
    assert not story["answered"]


def test_a_long_answer_is_cut() -> None:
    recording = recorded("cross-node-snat-ipv4")
    page = "<html>\n" + "<p>not found</p>\n" * 20
    told_all = way.tell(replace(recording, connection=replace(recording.connection, text=page)))
    outcome = trace.tell(told_all, "web")["outcome"]
    assert "<html> <p>not found" in outcome and len(outcome) < 100


def test_a_question_is_read() -> None:
    question = trace.read(ASKED)
    assert question.client == "node1"
    assert question.asked == Endpoint("fd00:10:96::9", 80)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"protocol": "ICMP"}, "protocol must be one of TCP, UDP, SCTP"),
        ({"address": "evil.example"}, "address must be an IP address"),
        ({"port": 65536}, "port must be a number from 0 to 65535"),
        ({"port": True}, "port must be a number"),
        ({"client": ""}, "client must be a name"),
        ({"client": ["node1"]}, "client must be a name"),
    ],
)
def test_nonsense_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(actions.BadRequestError, match=says):
        trace.read(ASKED | change)
