"""The programs in the kernel do what every cell of tests/scenarios/verdicts.yaml says."""

from collections.abc import Iterator

import pytest

from tests.datapath.chain import Chain
from tests.oracle.oracle import Client, Destination, Kind
from tests.oracle.situations import NODE_ADDRESSES, Situation
from tests.scenarios import verdicts
from tests.scenarios.test_by_oracle import KINDS, THIS_NODE
from tests.scenarios.verdicts import ENDPOINTS, POLICIES, Cell, address_of_pod, cells

WORDS = {Kind.BACKENDS: "answered", Kind.REJECT: "refused", Kind.DROP: "dropped"}
CONNECTIONS = 24  # that one of two pods is never chosen by chance: once in eight million


def fault(chain: Chain, cell: Cell, version: int, ports: Iterator[int]) -> str:
    """What is wrong with a cell; "" if nothing is."""
    expected = cells()[cell]
    client = Client(KINDS[cell.client], verdicts.client(cell, version))
    destination = Destination(*verdicts.destination(cell, version), "TCP")
    pods = {address_of_pod(name, version): name for name in ("near", "far")}
    seen = set()
    for attempt in range(CONNECTIONS if len(expected.pods) > 1 else 2):
        answer = chain.send(client, destination, next(ports), xdp=attempt % 2 == 1)
        if answer.fault or WORDS.get(answer.kind) != expected.kind:
            return f"{answer} instead of {expected}"
        if answer.backend is None:
            continue
        pod = pods[answer.backend[0]]
        seen.add(pod)
        as_node = pod in expected.as_node
        sources = NODE_ADDRESSES if as_node or cell.client == "node" else (client.address,)
        if answer.source not in sources:
            return f"{pod} saw {answer.source} as its client"
    return "" if seen == expected.pods else f"{sorted(seen)} answered instead of {expected}"


@pytest.mark.rule(
    "VE-1", "VE-2", "VE-3", "VE-4", "VE-5", "VE-6", "VE-7", "VE-13", "VE-15", "VE-16", "VE-17"
)
def test_every_cell(chain: Chain) -> None:
    ports, wrong = iter(range(1024, 65536)), {}
    for policy in POLICIES:
        for endpoints in ENDPOINTS:
            some = [cell for cell in cells() if cell[1::2] == (policy, endpoints)]
            chain.become(Situation(verdicts.objects(some[0]), THIS_NODE))
            for cell in some:
                for version in (4, 6):
                    if found := fault(chain, cell, version, ports):
                        wrong["-".join((*cell, f"IPv{version}"))] = found
    assert not wrong


def test_a_cell_that_says_something_else_is_noticed(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell("NodePort", "Local", "outside", "far")
    chain.become(Situation(verdicts.objects(cell), THIS_NODE))
    assert not fault(chain, cell, 4, iter(range(1024, 2048)))
    for wrong in ("refused", "far", "near"):
        table = {**cells(), cell: verdicts.outcome(wrong)}
        monkeypatch.setattr("tests.datapath.test_verdict_table.cells", lambda table=table: table)
        assert fault(chain, cell, 4, iter(range(2048, 3072)))
