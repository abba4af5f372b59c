"""The rules that we compare with are kube-proxy's: neighbours of a node hear the same of both.

So what tests/differential finds holds beside the real one, too: the same scripts, without any of
our departures from it (tests/differential/departures.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ebpf_lb.model.values import Family
from tests.bench.places import kube_proxy_program
from tests.capabilities import CGROUP2, DATAPATH, IPV6, NFTABLES, RAW_SOCKETS, needs
from tests.differential.compare import Peers
from tests.differential.kube_proxy import rules_and_kube_proxy
from tests.differential.test_scripts import SCRIPTS

# Whom ICMP refuses while it connects by TCP hears of it when it asks again, a second later.
IN_TIME = ("the node itself, refused", "the node's own connections and their Services")
NAMES = [name for name in SCRIPTS if name not in IN_TIME]

pytestmark = needs(*DATAPATH, CGROUP2, NFTABLES, IPV6, RAW_SOCKETS)


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    with rules_and_kube_proxy("real", kube_proxy_program()) as made:
        yield made


@pytest.mark.parametrize("family", list(Family), ids=lambda family: family.directory)
@pytest.mark.parametrize("name", NAMES)
def test_neighbours_hear_the_same(peers: Peers, family: Family, name: str) -> None:
    found, heard = peers.compare(family, SCRIPTS[name])
    assert not found, f"\n{found}"
    assert heard
