"""verdicts.yaml as values: its cells, and the objects that each of them speaks of."""

import copy
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Json = dict[str, Any]

FILE = Path(__file__).with_name("verdicts.yaml")
ENDPOINTS = {"none": (), "far": ("far",), "near": ("near",), "both": ("near", "far")}
POLICIES = ("Cluster", "Local")


class Outcome(NamedTuple):
    """kind: answered, refused or dropped. as_node: the pods that see the node as their client."""

    kind: str
    pods: frozenset[str] = frozenset()
    as_node: frozenset[str] = frozenset()


class Cell(NamedTuple):
    """`endpoints`: a key of ENDPOINTS."""

    destination: str
    policy: str
    client: str
    endpoints: str


@cache
def content() -> Json:
    loaded: Json = yaml.safe_load(FILE.read_text())
    return loaded


@cache
def cells() -> dict[Cell, Outcome]:
    """AssertionError where a cell stands there twice."""
    found: dict[Cell, Outcome] = {}
    for row in content()["table"]:
        for cell in _cells_of(row):
            assert cell not in found, f"{cell} stands in two rows"
            found[cell] = outcome(row[cell.endpoints])
    return found


def _cells_of(row: Json) -> Iterator[Cell]:
    for destination in row["to"]:
        for policy in POLICIES if row["policy"] == "any" else (row["policy"],):
            for client in row["from"]:
                for endpoints in ENDPOINTS:
                    yield Cell(destination, policy, client, endpoints)


def outcome(text: str) -> Outcome:
    """A cell's words."""
    if text in ("refused", "dropped"):
        return Outcome(text)
    words = [part.strip() for part in text.split(",")]
    as_node = {word.removesuffix(" as node") for word in words if word.endswith(" as node")}
    pods = {word.removesuffix(" as node") for word in words}
    assert pods <= {"near", "far"}, f"{text!r}: who is that?"
    return Outcome("answered", frozenset(pods), frozenset(as_node))


def of_version(addresses: list[str], version: int) -> str:
    return next(a for a in addresses if ip_address(a).version == version)


def objects(cell: Cell) -> dict[str, Json]:
    """The Service and its EndpointSlices, by a name of their place."""
    service = copy.deepcopy(content()["service"])
    service["spec"] |= {
        "internalTrafficPolicy": cell.policy,
        "externalTrafficPolicy": cell.policy,
    }
    [port] = service["spec"]["ports"]
    pods = content()["pods"]
    return {"service": service} | {
        f"slice {version}": {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": "default",
                "name": f"web-{version}",
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "addressType": f"IPv{version}",
            "ports": [{"name": "http", "protocol": "TCP", "port": port["targetPort"]}],
            "endpoints": [
                {
                    "addresses": [of_version(pods[name]["addresses"], version)],
                    "nodeName": pods[name]["node"],
                    "conditions": {"ready": True},
                }
                for name in ENDPOINTS[cell.endpoints]
            ],
        }
        for version in (4, 6)
    }


def address_of_pod(name: str, version: int) -> str:
    return of_version(content()["pods"][name]["addresses"], version)


def destination(cell: Cell, version: int) -> tuple[str, int]:
    """Address and port."""
    where = content()["destinations"][cell.destination]
    return of_version(where["addresses"], version), where["port"]


def client(cell: Cell, version: int) -> str:
    """Its address."""
    return of_version(content()["clients"][cell.client], version)
