"""What is wrong on either side is found: by the first script, or by one of a few by chance."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, Phase, find, settings

from ebpf_lb.model.values import Family
from ebpf_lb.plan.forwarding import Backend, Forwarding, FrontendFlag, FrontendKind
from tests.capabilities import CGROUP2, DATAPATH, IPV6, NFTABLES, RAW_SOCKETS, needs
from tests.differential.cluster import State
from tests.differential.compare import Peers, minimal
from tests.differential.departures import ALL
from tests.differential.netfilter import Netfilter
from tests.differential.play import Proxy
from tests.differential.random_scripts import scripts
from tests.differential.script import (
    BACKEND,
    CLIENT,
    Endpoints,
    Open,
    Say,
    Script,
    Swap,
    handshake,
)  # fmt: skip

pytestmark = needs(*DATAPATH, CGROUP2, NFTABLES, IPV6, RAW_SOCKETS)

SCRIPTS: tuple[Script, ...] = (
    (Endpoints("open", ("far1",)), *handshake("client1", "open nodePort"), Say(0, CLIENT)),
    (Endpoints("open", ("pod1",)), *handshake("pod1", "open clusterIP")),
    (Open("pod1", "open clusterIP", "UDP"), Open("client2", "open balancer", "TCP")),
    (
        Endpoints("local", ("far1",)), Open("client1", "local balancer"),
        Open("pod1", "local nodePort"),
    ),
    (
        Endpoints("local", ("pod2",)), Open("client2", "local balancer"),
        Open("client2", "local nodePort"),
    ),
    (
        Endpoints("open", ("pod2",)), Open("pod1", "open clusterIP", "UDP", 30001), Say(0, BACKEND),
        Endpoints("open", ("far1",)), Say(0, CLIENT),
    ),
    (
        Endpoints("open", ("pod2",)), Open("client1", "open nodePort", "UDP", 30001),
        Endpoints("local", ("pod2",)), Swap(), Say(0, CLIENT),
    ),
)  # fmt: skip

# each finds its place in the rules, or the test fails
IN_THE_RULES: dict[str, tuple[str, str]] = {
    "nothing is masqueraded": (r"\n    masquerade\n", "\n"),
    "hairpins are not masqueraded": (r"(chain endpoint-.*\{\n).*jump mark-for-masquerade\n", r"\1"),
    "another port": (r":8080\n", ":8081\n"),
    "no answer to who is refused": (r"goto reject-chain", "drop"),
    "an answer to who is dropped": (r"goto drop-chain", "goto reject-chain"),
    "no source ranges": (r"ip6? saddr != \{ [^}]* \} drop", "continue"),
    "the mark is for all": (r"(chain outer-.* \{\n)", r"\1    jump mark-for-masquerade\n"),
}  # fmt: skip


@dataclass
class Twisted:
    """A proxy that is told of other Services than there are."""

    proxy: Proxy
    twist: Callable[[Forwarding], Forwarding]

    def begin(self, family: Family) -> None:
        self.proxy.begin(family)

    def program(self, state: State, plan: Sequence[Forwarding]) -> None:
        self.proxy.program(state, [self.twist(one) for one in plan])


def _other_port(one: Forwarding) -> Forwarding:
    return replace(one, cluster=tuple(Backend(b.address, 8081, b.local) for b in one.cluster))


def _flags(one: Forwarding, wrong: FrontendFlag) -> Forwarding:
    return replace(one, frontends=tuple(f._replace(flags=f.flags & ~wrong) for f in one.frontends))


IN_THE_PLAN: dict[str, Callable[[Forwarding], Forwarding]] = {
    "another port": _other_port,
    "all backends are here": lambda one: replace(
        one, cluster=tuple(Backend(b.address, b.port, True) for b in one.cluster)
    ),
    "policy Local is not kept": lambda one: _flags(one, FrontendFlag.LOCAL),
    "no source ranges": lambda one: _flags(one, FrontendFlag.SOURCE_RANGES),
    "dropped is refused": lambda one: replace(one, has_any=bool(one.local)),
    "no nodePorts": lambda one: replace(
        one, frontends=tuple(f for f in one.frontends if f.kind is not FrontendKind.NODE_PORT)
    ),
}


def _found(peers: Peers, family: Family) -> bool:
    return any(peers.difference(family, script) for script in SCRIPTS)


def test_nothing_is_found_where_nothing_is_wrong(peers: Peers, family: Family) -> None:
    for script in SCRIPTS:
        assert not (found := peers.difference(family, script)), f"\n{found}"


@pytest.mark.parametrize("fault", IN_THE_PLAN)
def test_what_is_wrong_with_us_is_found(peers: Peers, family: Family, fault: str) -> None:
    assert _found(peers.but(agent=Twisted(peers.agent, IN_THE_PLAN[fault])), family)


@pytest.mark.parametrize("fault", IN_THE_RULES)
def test_what_is_wrong_with_netfilter_is_found(peers: Peers, family: Family, fault: str) -> None:
    pattern, instead = IN_THE_RULES[fault]
    changed = 0

    def tamper(rules: str) -> str:
        nonlocal changed
        rules, number = re.subn(pattern, instead, rules)
        changed += number
        return rules

    assert _found(peers.but(netfilter=Netfilter(peers.theirs, ALL, tamper)), family)
    assert changed


def test_a_fault_is_found_by_chance_and_told_in_few_steps(peers: Peers) -> None:
    broken = peers.but(agent=Twisted(peers.agent, _other_port))
    found = find(
        scripts(),
        lambda script: bool(broken.difference(Family.IPV4, script)),
        settings=settings(
            max_examples=50,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )
    least = minimal(broken, Family.IPV4, found)
    assert len(least) == 2 and isinstance(least[0], Endpoints) and isinstance(least[1], Open)
