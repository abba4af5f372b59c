"""Which hook rewrote what, in recordings made by hand."""

import dataclasses
import json

import pytest

from ebpf_lb.lessons.scenarios import hooks
from ebpf_lb.lessons.scenarios.recording import Recording, Sight
from ebpf_lb.lessons.scenarios.way import tell
from tests.unit.lessons_scenarios.recorded_frames import Made, recorded, syn

CLIENT, ASKED = "172.31.0.2:40000", "172.30.0.12:30000"
NODE, POD = "172.30.0.12:40000", "10.244.1.2:80"


def across(*inside: tuple[str, str, str]) -> Recording:
    """In and out by node2's eth0 with both addresses rewritten; what its stack saw in between."""
    made = Made(ASKED)
    made.at("client eth0 out", syn(CLIENT, ASKED))
    made.at("node2 eth0 in", syn(CLIENT, ASKED))
    made.at("node2 eth0 out", syn(NODE, POD))
    made.at("node1 eth0 in", syn(NODE, POD))
    sights = [Sight("node2", at, syn(a, b).frame()[14:]) for at, a, b in inside]
    other = Sight("node2", "prerouting", syn(CLIENT, ASKED, sequence=1 << 30).frame()[14:])
    return made.recording(stack=(other, *sights))


def told(recording: Recording) -> dict[str, str]:
    """Field -> hook, of all that was rewritten on the client's way."""
    story = tell(recording)
    assert story.first is not None
    return {
        change.field: hooks.hook(story, story.first, number, change)
        for number in range(len(story.first.taps))
        for change in story.first.changes(number)
    }


@pytest.mark.parametrize(
    ("inside", "destination", "source"),
    [
        ([], "at TC ingress of eth0, past the stack", "at TC ingress of eth0, past the stack"),
        (
            [("prerouting", CLIENT, POD), ("postrouting", CLIENT, POD)],
            "at TC ingress of eth0",
            "at TC egress of eth0",
        ),
        (
            [("prerouting", CLIENT, POD), ("postrouting", NODE, POD)],
            "at TC ingress of eth0",
            "by the kernel's netfilter",
        ),
        (
            [("prerouting", CLIENT, ASKED), ("postrouting", NODE, POD)],
            "by the kernel's netfilter",
            "by the kernel's netfilter",
        ),
        ([("prerouting", NODE, POD)], "at TC ingress of eth0", "at TC ingress of eth0"),
        ([("prerouting", CLIENT, POD)], "at TC ingress of eth0", ""),  # lost by the log
    ],
    ids=["redirected", "both-ends", "masquerade", "kube-proxy", "ingress", "half-seen"],
)
def test_between_two_interfaces_the_stack_tells(
    inside: list[tuple[str, str, str]], destination: str, source: str
) -> None:
    assert told(across(*inside)) == {"destination": destination, "source": source}


def test_where_nobody_looked_nothing_is_claimed() -> None:
    recording = dataclasses.replace(across(), stack=None)
    assert told(recording) == {"destination": "", "source": ""}


def test_from_a_pods_wire_to_the_bridge_there_is_one_hook_only() -> None:
    assert told(recorded("hostnames")) == {"destination": "at TC ingress of veth asker"}


def test_what_the_stack_saw_is_kept_as_json() -> None:
    recording = across(("prerouting", CLIENT, POD))
    assert Recording.from_json(json.loads(json.dumps(recording.to_json()))) == recording
    assert Recording.from_json(recorded("hostnames").to_json()).stack is None
