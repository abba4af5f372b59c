"""The oracle, which reads docs/semantics.md, agrees with every cell of verdicts.yaml."""

import itertools

import pytest

from tests.oracle.oracle import AS_BUILT, Client, ClientKind, Destination, Kind, Node, verdict
from tests.scenarios import verdicts
from tests.scenarios.verdicts import Cell, Outcome, address_of_pod, cells

KINDS = {
    "pod": ClientKind.LOCAL_POD,
    "node": ClientKind.NODE,
    "pod elsewhere": ClientKind.REMOTE_POD,
    "outside": ClientKind.OUTSIDE,
}
THIS_NODE = Node("node1", addresses=("172.30.0.11", "fd30::11"))
WORDS = {Kind.BACKENDS: "answered", Kind.REJECT: "refused", Kind.DROP: "dropped"}


def judged(cell: Cell, version: int) -> Outcome:
    """The oracle's word, in the table's words."""
    address, port = verdicts.destination(cell, version)
    asker = Client(KINDS[cell.client], verdicts.client(cell, version))
    found = verdict(
        verdicts.objects(cell).values(),
        THIS_NODE,
        asker,
        Destination(address, port, "TCP"),
        departures=AS_BUILT,
    )
    pods = {address_of_pod(name, version): name for name in ("near", "far")}
    as_node = () if cell.client == "node" else found.masquerade
    return Outcome(
        WORDS[found.kind],
        frozenset(pods[address] for address, _ in found.backends),
        frozenset(pods[address] for address, _ in as_node),
    )


@pytest.mark.parametrize("version", [4, 6])
def test_every_cell(version: int) -> None:
    assert {cell: judged(cell, version) for cell in cells()} == cells()


def test_nothing_is_left_out() -> None:
    """Every destination, policy, client and set of endpoints meet in one cell."""
    file = verdicts.content()
    everything = itertools.product(
        file["destinations"], verdicts.POLICIES, file["clients"], verdicts.ENDPOINTS
    )
    assert set(cells()) == {Cell(*words) for words in everything}
