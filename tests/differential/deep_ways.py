"""The same on other ways through a node, for `make test-deep`: past the stack, by XDP, and with
pods on a bridge. Each has programs or wires of its own.

What the first two pass by (docs/host-routing.md) is left out of their scripts: filters, what
connection tracking thinks of a segment, and how the CNI masquerades what a pod sends to another
host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from ebpf_lb.model.values import Family
from tests.capabilities import (
    BRIDGE_NETFILTER,
    CGROUP2,
    DATAPATH,
    IPV6,
    NFTABLES,
    RAW_SOCKETS,
    needs,
)
from tests.differential import compare
from tests.differential.agent import BY_XDP, PAST_STACK, STACK
from tests.differential.compare import Peers, minimal
from tests.differential.random_scripts import orderly_scripts, scripts
from tests.differential.script import Endpoints, Filter, Forge, Script
from tests.differential.test_scripts import SCRIPTS
from tests.support.chance import times

pytestmark = needs(*DATAPATH, CGROUP2, NFTABLES, IPV6, RAW_SOCKETS, BRIDGE_NETFILTER)

_STACKS = ("pod1 asks host2", "segments that open nothing")


@dataclass(frozen=True)
class Way:
    """`peers`, by this way."""

    peers: Peers
    by_stack: bool

    def plays(self, name: str) -> bool:
        script = SCRIPTS[name]
        stacks = any(isinstance(step, Filter | Forge) for step in script)
        return self.by_stack or (name not in _STACKS and not stacks)

    def of(self, script: Script) -> Script:
        """What can be compared of it."""
        if self.by_stack:
            return script
        return tuple(
            step
            for step in script
            if not isinstance(step, Filter | Forge)
            and not (isinstance(step, Endpoints) and "host2" in step.pods)
        )


@pytest.fixture(
    scope="module",
    params=[(PAST_STACK, False), (BY_XDP, False), (STACK, True), (PAST_STACK, True)],
    ids=["past-the-stack", "by-XDP", "on-a-bridge", "on-a-bridge-past-the-stack"],
)
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    by, bridged = request.param
    with compare.peers("ways", by, bridged=bridged) as made:
        yield Way(made, by == STACK)


@pytest.mark.parametrize("name", SCRIPTS)
def test_neighbours_hear_the_same(way: Way, family: Family, name: str) -> None:
    if not way.plays(name):
        return
    found, heard = way.peers.compare(family, SCRIPTS[name])
    assert not found, f"\n{found}"
    assert heard


@settings(
    max_examples=times(10),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(orderly=orderly_scripts(), script=scripts())
def test_nor_does_a_script_by_chance(
    way: Way, family: Family, orderly: Script, script: Script
) -> None:
    played = script if way.by_stack else way.of(orderly)
    if way.peers.difference(family, played):
        least = minimal(way.peers, family, played)
        raise AssertionError(f"{least}\n{way.peers.difference(family, least)}")
