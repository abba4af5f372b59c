"""The stories in lives/*.yaml as values, and the objects of each of their moments."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.scenarios.verdicts import content, of_version

Json = dict[str, Any]

FOLDER = Path(__file__).with_name("lives")
STATES = {
    "ready": {"ready": True, "serving": True, "terminating": False},
    "unready": {"ready": False, "serving": False, "terminating": False},
    "terminating": {"ready": False, "serving": True, "terminating": True},
}
PROTOCOLS = ("TCP", "UDP")
VERBS = {"ask": PROTOCOLS, "open": ("TCP",), "talk": ("TCP",), "close": ("TCP",), "reset": ("TCP",)}
"""What clients do, and by which protocols."""


@dataclass(frozen=True)
class Moment:
    """pods: pod -> state, a key of STATES. maps: the Service's sets, by name, as pods."""

    pods: dict[str, str]
    maps: dict[str, list[str]]


@dataclass(frozen=True)
class Question:
    """who: alice and bob keep their ports, anybody has a new one each time. answer: a pod, or
    refused or dropped; "" where nothing is asked. verb: one of VERBS."""

    who: str
    client: str
    destination: str
    answer: str = ""
    verb: str = "ask"

    @property
    def connection(self) -> tuple[str, str, str]:
        """Which of the connections that are kept."""
        return self.who, self.client, self.destination

    @property
    def tries(self) -> int:
        return 8 if self.who == "anybody" else 1


@dataclass(frozen=True)
class Life:
    name: str
    rules: tuple[str, ...]
    protocol: str
    policy: str
    affinity: bool
    steps: tuple[Moment | Question, ...]

    def moments(self) -> Iterator[tuple[Moment, list[Question]]]:
        """Each with what is asked meanwhile."""
        found: list[tuple[Moment, list[Question]]] = []
        for step in self.steps:
            if isinstance(step, Moment):
                found.append((step, []))
            else:
                found[-1][1].append(step)
        yield from found

    def spec(self) -> Json:
        """What the Service has of its own."""
        affinity: Json = {}
        if self.affinity:
            affinity = {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
            }
        return {"externalTrafficPolicy": self.policy} | affinity

    def objects(self, moment: Moment) -> dict[str, Json]:
        """The Service of verdicts.yaml and its slices, by a name of their place."""
        service = copy.deepcopy(content()["service"])
        service["spec"] |= self.spec()
        [port] = service["spec"]["ports"]
        port["protocol"] = self.protocol
        pods = content()["pods"]
        return {"service": service} | {
            f"slice {version}": slice_of(
                "web",
                moment,
                version,
                port["targetPort"],
                {
                    name: (of_version(pod["addresses"], version), pod["node"])
                    for name, pod in pods.items()
                },
                self.protocol,
            )
            for version in (4, 6)
        }


def slice_of(
    service: str,
    moment: Moment,
    version: int,
    port: int,
    pods: dict[str, tuple[str, str]],
    protocol: str,
) -> Json:
    """An EndpointSlice that says of the pods (name -> address, node) what the moment says."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default",
            "name": f"{service}-{version}",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": f"IPv{version}",
        "ports": [{"name": "http", "protocol": protocol, "port": port}],
        "endpoints": [
            {"addresses": [pods[name][0]], "nodeName": pods[name][1], "conditions": STATES[state]}
            for name, state in moment.pods.items()
        ],
    }


def read(path: Path) -> Life:
    """AssertionError for what is not a life."""
    raw = yaml.safe_load(path.read_text())
    protocol = raw.get("protocol", "UDP")
    assert protocol in PROTOCOLS, protocol
    steps = tuple(_step(step, protocol) for step in raw["steps"])
    return Life(
        path.stem, tuple(raw["rules"]), protocol, raw["policy"], raw.get("affinity", False), steps
    )


def _step(step: Json, protocol: str) -> Moment | Question:
    if "pods" in step:
        assert step.keys() == {"pods", "maps"} and step["maps"].keys() == {"cluster", "local"}
        assert set(step["pods"]) <= {"near", "far"} and set(step["pods"].values()) <= set(STATES)
        return Moment(step["pods"], step["maps"])
    [verb] = step.keys() & VERBS.keys()
    assert protocol in VERBS[verb], step
    words = {verb, "from", "to"} | (set() if verb in ("close", "reset") else {"answer"})
    assert step.keys() == words, step
    assert step.get("answer", "near") in ("near", "far", "refused", "dropped"), step
    assert (step[verb] == "anybody") <= (verb == "ask"), f"{step}: nobody keeps that"
    return Question(step[verb], step["from"], step["to"], step.get("answer", ""), verb)


LIVES = [read(path) for path in sorted(FOLDER.glob("*.yaml"))]
