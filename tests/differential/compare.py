"""The same script on two nodes, and the first step of which their neighbours hear otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ebpf_lb.model.values import Family
from tests.differential.agent import STACK, agent
from tests.differential.netfilter import Netfilter
from tests.differential.play import Player, Proxy
from tests.differential.script import Script
from tests.differential.wire import Wire, one_cpu, wired


@dataclass(frozen=True)
class Peers:
    """Two nodes that are alike but for who serves Services on them. names: of who does."""

    ours: Wire
    theirs: Wire
    agent: Proxy
    netfilter: Proxy
    names: tuple[str, str] = ("ebpf-lb", "netfilter")

    def but(self, **proxies: Proxy) -> Peers:
        return replace(self, **proxies)

    def difference(self, family: Family, script: Script) -> str:
        """What was done and heard, up to where it differs; "" where it does not."""
        return self.compare(family, script)[0]

    def compare(self, family: Family, script: Script) -> tuple[str, int]:
        """The difference, and how many packets neighbours have heard."""
        one = Player(self.ours, self.agent, family)
        other = Player(self.theirs, self.netfilter, family)
        told: list[str] = []
        packets = 0
        for step in script:
            told.append(str(step))
            heard, expected = one.take(step), other.take(step)
            if heard != expected:
                told += [
                    f"  by {name}: {_said(each)}"
                    for name, each in zip(self.names, (heard, expected), strict=True)
                ]
                return "\n".join(told), packets
            packets += len(heard)
            told += [f"  {line}" for line in heard]
        return "", packets


def minimal(peers: Peers, family: Family, script: Script) -> Script:
    """Without any one of its steps it would show no difference."""
    at = 0
    while at < len(script):
        fewer = (*script[:at], *script[at + 1 :])
        if peers.difference(family, fewer):
            script = fewer
        else:
            at += 1
    return script


def _said(lines: list[str]) -> str:
    return "; ".join(lines) or "nothing"


@contextmanager
def peers(name: str, way: str = STACK, *, bridged: bool = False) -> Iterator[Peers]:
    """What does not go by the stack is unknown to the kernel's connection tracking, and so are ICMP
    errors about it: a filter on its states would drop them."""
    filtered = way == STACK
    with (
        wired(f"{name}-a", filtered=filtered, bridged=bridged) as ours,
        wired(f"{name}-b", filtered=filtered, bridged=bridged) as theirs,
        agent(ours, name, way) as ebpf,
        one_cpu(),
    ):
        yield Peers(ours, theirs, ebpf, Netfilter(theirs))
