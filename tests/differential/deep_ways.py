"""The same on the ways past the stack, for `make test-deep`: each has programs of its own to load.

What these ways pass by (docs/host-routing.md) is left out of the scripts: filters, what connection
tracking thinks of a segment, and how the CNI masquerades what a pod sends to another host.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ebpf_lb.model.values import Family
from tests.capabilities import DATAPATH, IPV6, NFTABLES, RAW_SOCKETS, needs
from tests.differential import compare
from tests.differential.agent import BY_XDP, PAST_STACK
from tests.differential.compare import Peers
from tests.differential.script import Filter, Forge
from tests.differential.test_scripts import SCRIPTS

pytestmark = needs(*DATAPATH, NFTABLES, IPV6, RAW_SOCKETS)

_STACKS = ("pod1 asks host2", "segments that open nothing")
NAMES = [
    name
    for name, script in SCRIPTS.items()
    if not any(isinstance(step, Filter | Forge) for step in script) and name not in _STACKS
]


@pytest.fixture(scope="module", params=(PAST_STACK, BY_XDP), ids=lambda way: way.replace(" ", "-"))
def on_its_way(request: pytest.FixtureRequest) -> Iterator[Peers]:
    with compare.peers("ways", request.param) as made:
        yield made


@pytest.mark.parametrize("name", NAMES)
def test_neighbours_hear_the_same(on_its_way: Peers, family: Family, name: str) -> None:
    found, heard = on_its_way.compare(family, SCRIPTS[name])
    assert not found, f"\n{found}"
    assert heard
