"""Which endpoints are asked, from where: EndpointSlices written by hand, and real connections.

The rules one by one are in tests/unit/plan; here they are followed to the packet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from ebpf_lb.lab.objects.pod_life import PodLife
from tests.lab.conftest import Room
from tests.support.checker import Dropped, Outcome, Reaches, Refused, expect
from tests.support.manifests import Manifest, cluster_ip, deployment, pod, service

FIRST = 40  # the Services' numbers
NODES = ("node1", "node2", "node3")  # in zone-a, zone-b, zone-c; the pods a, b, c run there
OTHER_PORT = 8080

READY = {"ready": True, "serving": True, "terminating": False}
STARTING = {"ready": False, "serving": False, "terminating": False}
WAITING = {"ready": False, "serving": True, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
LEFT = {"ready": False, "serving": False, "terminating": True}
UNSAID: dict[str, bool] = {}


@dataclass(frozen=True)
class End:
    """An endpoint: which pod, and what its slice says of it."""

    pod: str
    conditions: Mapping[str, bool] | None = None
    hints: Mapping[str, Any] | None = None

    def entry(self, address: str, node: str) -> Manifest:
        entry: Manifest = {"addresses": [address], "nodeName": node}
        if self.conditions is not None:
            entry["conditions"] = dict(self.conditions)
        if self.hints is not None:
            entry["hints"] = dict(self.hints)
        return entry


def zone(letter: str) -> dict[str, Any]:
    return {"forZones": [{"name": f"zone-{letter}"}]}


def node(number: int, letter: str) -> dict[str, Any]:
    return {**zone(letter), "forNodes": [{"name": f"node{number}"}]}


Answers = tuple[str, str, str]


@dataclass(frozen=True)
class Case:
    """Slices (the port of their "http", and who is in them), and who answers on each node: pods'
    letters, "refused" or "dropped"; one word: the same on all. `outside`: who answers to a client
    there, by each node's port."""

    slices: tuple[tuple[int, tuple[End, ...]], ...]
    answers: Answers
    spec: tuple[tuple[str, Any], ...] = ()
    outside: Answers | None = None


def case(*ends: End, to: str | Answers, **spec: Any) -> Case:
    return several((80, ends), to=to, **spec)


def several(*slices: tuple[int, tuple[End, ...]], to: str | Answers, **spec: Any) -> Case:
    return Case(slices, (to, to, to) if isinstance(to, str) else to, tuple(spec.items()))


def exposed(
    *ends: End, others: tuple[End, ...] = (), to: str | Answers, outside: Answers, **spec: Any
) -> Case:
    """By external policy Local, with a node port; `others` have OTHER_PORT."""
    slices = ((80, ends), (OTHER_PORT, others))
    made = several(*slices, to=to, type="NodePort", externalTrafficPolicy="Local", **spec)
    return replace(made, outside=outside)


CASES = {
    "ready": case(End("a", READY), End("b", STARTING), End("c", WAITING), to="a"),
    "unsaid-is-ready": case(End("a"), End("b", UNSAID), End("c", STARTING), to="ab"),
    "nobody": case(End("a", STARTING), End("b", WAITING), End("c", LEFT), to="refused"),
    "leaving-only": case(End("a", LEAVING), End("b", LEFT), End("c", WAITING), to="a"),
    "ready-before-leaving": case(End("a", LEAVING), End("b", READY), to="b"),
    "local": case(
        End("a", READY), End("b", READY), to=("a", "b", "dropped"), internalTrafficPolicy="Local"
    ),
    "local-falls-back-alone": case(
        End("a", READY), End("b", LEAVING), End("c", STARTING),
        to=("a", "b", "dropped"), internalTrafficPolicy="Local",
    ),
    "twice-in-slices": several(
        (80, (End("a", LEAVING), End("b", LEAVING))), (80, (End("a", READY),)), to="a"
    ),
    "ports-by-name": several(
        (80, (End("a", READY),)), (OTHER_PORT, (End("other", READY),)), to="ao"
    ),
    "zones": case(
        *(End(each, READY, zone(each)) for each in "abc"), End("other", STARTING),
        to=("a", "b", "c"),
    ),
    "zone-without-any": case(
        End("a", READY, zone("a")), End("b", READY, zone("b")), End("c", READY, zone("b")),
        to=("a", "bc", "abc"),
    ),
    "hint-missing": case(
        End("a", READY, zone("a")), End("b", READY, zone("b")), End("c", READY), to="abc"
    ),
    "zones-not-for-leaving": case(
        End("a", LEAVING, zone("a")), End("b", LEAVING, zone("b")), to="ab"
    ),
    "nodes-before-zones": case(
        End("a", READY, node(2, "a")), End("b", READY, node(1, "b")), End("c", READY, node(1, "c")),
        to=("bc", "a", "c"),
    ),
    # the cluster's set and a node's own fall back independently of each other
    "outside-falls-back-alone": exposed(
        End("a", READY), End("b", LEAVING), End("c", STARTING), to="a",
        outside=("a", "b", "dropped"),
    ),
    "both-fall-back": exposed(
        End("a", LEAVING), End("b", LEFT), End("c", WAITING), to="a",
        outside=("a", "dropped", "dropped"),
    ),
    "inside-and-outside-local": exposed(
        End("a", READY), End("b", LEAVING), End("c", LEAVING),
        to=("a", "b", "c"), outside=("a", "b", "c"), internalTrafficPolicy="Local",
    ),
    "ready-before-leaving-on-a-node": exposed(
        End("a", LEAVING), End("b", READY), others=(End("other", READY),), to="ob",
        outside=("o", "b", "dropped"),
    ),
    "nobody-for-outside": exposed(
        End("a", STARTING), End("b", LEFT), to="refused",
        outside=("refused", "refused", "refused"),
    ),
    "hints-not-for-outside": exposed(
        End("a", READY, zone("b")), End("b", READY, zone("b")), End("c", READY, zone("c")),
        to=("abc", "ab", "c"), outside=("a", "b", "c"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def room(shared_room: Room) -> Room:
    """The pods, and a Service without a selector for each case."""
    names = dict(zip("abc", NODES, strict=True))
    shared_room.apply(
        *(deployment(name, node=node) for name, node in names.items()),
        deployment("other", node="node1", port=OTHER_PORT),
    )
    objects = []
    for number, (name, each) in enumerate(CASES.items(), FIRST):
        objects.append(service(name, number=number, protocols=("TCP",), **dict(each.spec)))
        objects[-1]["spec"]["ports"][0]["name"] = "http"
        if each.outside:
            objects[-1]["spec"]["ports"][0]["nodePort"] = node_port(name)
        del objects[-1]["spec"]["selector"]
        for family in ("ipv4", "ipv6"):
            objects += slices(shared_room, name, each, family)
    shared_room.apply(*objects)
    return shared_room


def node_port(name: str) -> int:
    return 31300 + list(CASES).index(name)


def slices(room: Room, name: str, each: Case, family: str) -> list[Manifest]:
    def entry(end: End) -> Manifest:
        (pod,) = room.pods(end.pod).values()
        address = next(a for a in pod.addresses if (":" in a) == (family == "ipv6"))
        return end.entry(address, NODES["abc".find(end.pod)] if end.pod in "abc" else "node1")

    return [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{name}-{family}-{index}",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": {"ipv4": "IPv4", "ipv6": "IPv6"}[family],
            "ports": [{"name": "http", "protocol": "TCP", "port": port}],
            "endpoints": [entry(end) for end in ends],
        }
        for index, (port, ends) in enumerate(each.slices)
    ]


def at(address: str, port: int = 80) -> str:
    return f"[{address}]:{port}/tcp" if ":" in address else f"{address}:{port}/tcp"


def outcome(room: Room, word: str) -> Outcome:
    if word == "refused":
        return Refused(tries=2)
    if word == "dropped":
        return Dropped(tries=2)
    apps = ["other" if letter == "o" else letter for letter in word]
    return Reaches({name for app in apps for name in room.pods(app)})


@pytest.mark.rule(
    "EP-2", "EP-6", "EP-8", "EP-9", "EP-10", "EP-11", "EP-12", "EP-13", "KI-6", "KI-7"
)
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("name", list(CASES))
def test_who_answers(room: Room, name: str, family: str) -> None:
    """Two nodes' pods and the third node itself ask."""
    target = at(cluster_ip(FIRST + list(CASES).index(name), family))
    sources = (room.pod("a"), room.pod("b"), "node3")
    for source, word in zip(sources, CASES[name].answers, strict=True):
        expect(room.lab, source, target, outcome(room, word))


@pytest.mark.rule("EP-8", "EP-9", "EP-10", "VE-6")
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("name", [name for name, each in CASES.items() if each.outside])
def test_who_answers_outside(room: Room, name: str, family: str) -> None:
    for where, word in zip(NODES, CASES[name].outside or (), strict=True):
        addresses = room.lab.node(where).addresses
        [address] = [each for each in addresses if (":" in each) == (family == "ipv6")]
        expect(room.lab, "client", at(address, node_port(name)), outcome(room, word))


@pytest.mark.rule("KI-5")
def test_addresses_that_are_not_ready_but_published(shared_room: Room) -> None:
    """publishNotReadyAddresses, as the cluster's own controller makes slices of it, switched live:
    pods are used before they are ready, and while they terminate."""
    room, number = shared_room, FIRST + len(CASES)
    room.apply(
        *(pod(f"early-{n}", "early", node=f"node{n}") for n in (1, 2)),
        deployment("asking", node="node1"),
    )
    lives = [PodLife(room.lab.client, room.namespace, f"early-{n}") for n in (1, 2)]

    def reached(publish: bool, outcome: Outcome) -> None:
        room.apply(service("early", number=number, publishNotReadyAddresses=publish))
        for family in ("ipv4", "ipv6"):
            for source in (room.pod("asking"), "node3"):
                expect(room.lab, source, at(cluster_ip(number, family)), outcome)

    reached(False, Reaches({"early-1", "early-2"}))
    for life in lives:
        life.set_ready(False)
    reached(False, Refused(tries=2))
    reached(True, Reaches({"early-1", "early-2"}))
    reached(False, Refused(tries=2))
    lives[0].set_ready(True)
    reached(False, Reaches({"early-1"}))
    reached(True, Reaches({"early-1", "early-2"}))
    # one that terminates is one of those published, not only the last resort
    lives[0].terminate()
    reached(True, Reaches({"early-1", "early-2"}))
