"""The oracle, which reads docs/semantics.md, agrees with every cell of verdicts.yaml, and with all
answers in lives/*.yaml."""

import itertools
from collections import Counter
from collections.abc import Iterable

import pytest

from tests.oracle.oracle import (
    AS_BUILT,
    Client,
    ClientKind,
    Destination,
    Json,
    Kind,
    Node,
    cluster_set,
    endpoints_of,
    local_set,
    verdict,
)
from tests.scenarios import verdicts
from tests.scenarios.lives import LIVES, Life, Moment
from tests.scenarios.verdicts import Cell, Outcome, address_of_pod, cells

KINDS = {
    "pod": ClientKind.LOCAL_POD,
    "node": ClientKind.NODE,
    "pod elsewhere": ClientKind.REMOTE_POD,
    "outside": ClientKind.OUTSIDE,
}
THIS_NODE = Node("node1", addresses=("172.30.0.11", "fd30::11"))
WORDS = {Kind.BACKENDS: "answered", Kind.REJECT: "refused", Kind.DROP: "dropped"}


def judged(objects: Iterable[Json], cell: Cell, version: int, protocol: str = "TCP") -> Outcome:
    """The oracle's word, in the table's words."""
    address, port = verdicts.destination(cell, version)
    asker = Client(KINDS[cell.client], verdicts.client(cell, version))
    found = verdict(
        objects, THIS_NODE, asker, Destination(address, port, protocol), departures=AS_BUILT
    )
    as_node = () if cell.client == "node" else found.masquerade
    return Outcome(
        WORDS[found.kind],
        frozenset(name_of(address, version) for address, _ in found.backends),
        frozenset(name_of(address, version) for address, _ in as_node),
    )


def name_of(address: str, version: int) -> str:
    return {address_of_pod(name, version): name for name in ("near", "far")}[address]


@pytest.mark.parametrize("version", [4, 6])
def test_every_cell(version: int) -> None:
    found = {cell: judged(verdicts.objects(cell).values(), cell, version) for cell in cells()}
    assert found == cells()


def test_nothing_is_left_out() -> None:
    """Every destination, policy, client and set of endpoints meet in one cell."""
    file = verdicts.content()
    everything = itertools.product(
        file["destinations"], verdicts.POLICIES, file["clients"], verdicts.ENDPOINTS
    )
    assert set(cells()) == {Cell(*words) for words in everything}


def sets(life: Life, moment: Moment, version: int) -> dict[str, list[str]]:
    """What the rules of usable endpoints make of a moment."""
    service, *slices = life.objects(moment).values()
    [port] = service["spec"]["ports"]
    endpoints = endpoints_of(service, port, slices, THIS_NODE, version)
    used = {
        "cluster": cluster_set(endpoints, THIS_NODE),
        "local": local_set(endpoints) if life.policy == "Local" else [],
    }
    return {name: [name_of(e.address, version) for e in found] for name, found in used.items()}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name)
def test_a_life(life: Life, version: int) -> None:
    """Each answer is one that a new connection may have at that moment: who is kept, is kept at a
    pod that serves. But what is open goes on with the pod that it began with."""
    began: dict[tuple[str, str, str], str] = {}
    for moment, questions in life.moments():
        assert sets(life, moment, version) == moment.maps, moment
        objects = list(life.objects(moment).values())
        for asked in questions:
            if asked.verb in ("close", "reset"):
                del began[asked.connection]
            elif asked.verb == "talk":
                assert asked.answer == began[asked.connection], (moment, asked)
            else:
                cell = Cell(asked.destination, life.policy, asked.client, "")
                found = judged(objects, cell, version, life.protocol)
                allowed = found.pods if found.kind == "answered" else {found.kind}
                assert asked.answer in allowed, (moment, asked)
            if asked.verb == "open":
                assert asked.connection not in began, (moment, asked)
                if asked.answer in ("near", "far"):
                    began[asked.connection] = asked.answer


def test_there_are_lives() -> None:
    told = Counter(life.protocol for life in LIVES)
    assert told["UDP"] >= 6 and told["TCP"] >= 6
