"""The scenarios: each a folder in catalog/, with `manifests.yaml` and `scenario.yaml`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ebpf_lb.errors import UserError

_FOLDER = Path(__file__).with_name("catalog")
ADDRESSES = ("clusterIP", "nodePort", "loadBalancer", "externalIP")
OUTCOMES = ("answered", "refused", "silent")


class NoSuchScenarioError(UserError):
    """There is no scenario of this name."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A lesson and the connection that shows it.

    client: who connects: client, nodeN, or pod/NAME. service, address: whom it asks, and by which
    of its addresses (ADDRESSES). node: whose nodePort; the way to an external address is pinned to
    it ("" : the cloud decides). connections: how many, one after the other; the first is drawn.
    outcome: how the lesson ends (OUTCOMES). nodes: how many the lab must have.
    """

    name: str
    title: str
    lesson: str
    client: str
    service: str
    address: str
    outcome: str
    node: str = ""
    protocol: str = "TCP"
    request: str = "clientip"
    connections: int = 1
    nodes: int = 1

    @property
    def manifests(self) -> Path:
        return _FOLDER / self.name / "manifests.yaml"

    @property
    def namespace(self) -> str:
        """Its own in the cluster."""
        return f"scenario-{self.name}"

    @property
    def question(self) -> str:
        """`client asks nodePort of Service web on node2`."""
        who = self.client.replace("/", " ")
        kind = {"loadBalancer": "load balancer", "externalIP": "external IP"}
        where = {"nodePort": " on ", "clusterIP": ""}.get(self.address, " by way of ")
        place = f"{where}{self.node}" if self.node else ""
        return f"{who} asks Service {self.service} by {kind.get(self.address, self.address)}{place}"


def names() -> list[str]:
    return sorted(folder.name for folder in _FOLDER.iterdir() if folder.is_dir())


def load(name: str) -> Scenario:
    """Raises NoSuchScenarioError."""
    if name not in names():
        raise NoSuchScenarioError(
            f"there is no scenario {name!r}: `ebpf-lb lab scenario list` names {', '.join(names())}"
        )
    stored: dict[str, Any] = yaml.safe_load((_FOLDER / name / "scenario.yaml").read_text())
    return Scenario(name=name, **stored)
