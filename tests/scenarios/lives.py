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
PROTOCOL = "UDP"


@dataclass(frozen=True)
class Moment:
    """pods: pod -> state, a key of STATES. maps: the Service's sets, by name, as pods."""

    pods: dict[str, str]
    maps: dict[str, list[str]]


@dataclass(frozen=True)
class Question:
    """who: alice and bob keep their ports, anybody has a new one each time. answer: a pod, or
    refused or dropped."""

    who: str
    client: str
    destination: str
    answer: str

    @property
    def tries(self) -> int:
        return 8 if self.who == "anybody" else 1


@dataclass(frozen=True)
class Life:
    name: str
    rules: tuple[str, ...]
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
        port["protocol"] = PROTOCOL
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
            )
            for version in (4, 6)
        }


def slice_of(
    service: str, moment: Moment, version: int, port: int, pods: dict[str, tuple[str, str]]
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
        "ports": [{"name": "http", "protocol": PROTOCOL, "port": port}],
        "endpoints": [
            {"addresses": [pods[name][0]], "nodeName": pods[name][1], "conditions": STATES[state]}
            for name, state in moment.pods.items()
        ],
    }


def read(path: Path) -> Life:
    """AssertionError for what is not a life."""
    raw = yaml.safe_load(path.read_text())
    steps: list[Moment | Question] = []
    for step in raw["steps"]:
        if "pods" in step:
            assert step.keys() == {"pods", "maps"} and step["maps"].keys() == {"cluster", "local"}
            assert set(step["pods"]) <= {"near", "far"} and set(step["pods"].values()) <= set(
                STATES
            )
            steps.append(Moment(step["pods"], step["maps"]))
        else:
            assert step.keys() == {"ask", "from", "to", "answer"}, step
            assert step["answer"] in ("near", "far", "refused", "dropped"), step
            steps.append(Question(step["ask"], step["from"], step["to"], step["answer"]))
    return Life(
        path.stem, tuple(raw["rules"]), raw["policy"], raw.get("affinity", False), tuple(steps)
    )


LIVES = [read(path) for path in sorted(FOLDER.glob("*.yaml"))]
