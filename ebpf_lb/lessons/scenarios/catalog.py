"""The scenarios: folders with `manifests.yaml` and `scenario.yaml`, in catalog/ or your own."""

import re
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from ebpf_lb.errors import UserError

_FOLDER = Path(__file__).with_name("catalog")
ADDRESSES = ("clusterIP", "nodePort", "loadBalancer", "externalIP")
OUTCOMES = ("answered", "refused", "silent")


class NoSuchScenarioError(UserError):
    """There is no scenario of this name."""


class BadScenarioError(UserError):
    """A folder that does not hold one."""


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
    folder: Path = _FOLDER

    @property
    def manifests(self) -> Path:
        return self.folder / self.name / "manifests.yaml"

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
    """One of the catalog's, by its name; or your own, by its folder. NoSuchScenarioError,
    BadScenarioError."""
    folder = Path(name)
    if name in names():
        folder = _FOLDER / name
    elif not folder.is_dir():
        raise NoSuchScenarioError(
            f"there is no scenario {name!r}: `ebpf-lb lab scenario list` names "
            f"{', '.join(names())}; name one of your own by its folder"
        )
    return _read(folder.resolve())


def _read(folder: Path) -> Scenario:
    if not re.fullmatch("[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?", folder.name):
        raise BadScenarioError(
            f"{folder.name!r} cannot be a namespace's name: give the scenario's folder one of "
            "lower-case letters, digits and hyphens"
        )
    file = folder / "scenario.yaml"
    if not (folder / "manifests.yaml").is_file():
        raise BadScenarioError(f"{folder} has no manifests.yaml with the scenario's objects")
    try:
        stored = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise BadScenarioError(f"{folder} has no scenario.yaml") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadScenarioError(f"{file} cannot be read: {error}") from error
    return Scenario(name=folder.name, folder=folder.parent, **_checked(file, stored))


def _checked(file: Path, stored: Any) -> dict[str, Any]:
    known = {one.name: one for one in fields(Scenario) if one.name not in ("name", "folder")}
    if not isinstance(stored, dict):
        raise BadScenarioError(f"{file} is not a mapping with {', '.join(known)}")
    for key, value in stored.items():
        if key not in known:
            raise BadScenarioError(f"{file}: {key!r} is not known; known are {', '.join(known)}")
        if type(value) is not known[key].type:
            wanted = "a number" if known[key].type is int else "a text"
            raise BadScenarioError(f"{file}: {key} must be {wanted}")
    for key, one in known.items():
        if key not in stored and one.default is MISSING:
            raise BadScenarioError(f"{file}: {key} is missing")
    for key, words in (("address", ADDRESSES), ("outcome", OUTCOMES)):
        if stored[key] not in words:
            raise BadScenarioError(f"{file}: {key} must be one of {', '.join(words)}")
    return stored
