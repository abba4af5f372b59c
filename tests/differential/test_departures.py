"""Each departure from kube-proxy is needed: a script shows it where netfilter's rules lack it."""

from __future__ import annotations

import pytest

from ebpf_lb.model.values import Family
from tests.capabilities import CGROUP2, DATAPATH, IPV6, NFTABLES, RAW_SOCKETS, needs
from tests.differential.compare import Peers
from tests.differential.departures import ALL, DEPARTURES
from tests.differential.netfilter import Netfilter
from tests.differential.script import (
    BACKEND,
    CLIENT,
    Endpoints,
    Filter,
    Forge,
    Open,
    Say,
    Script,
    handshake,
)  # fmt: skip

pytestmark = needs(*DATAPATH, CGROUP2, NFTABLES, IPV6, RAW_SOCKETS)

SHOWN_BY: dict[str, Script] = {
    "VE-8": (
        Endpoints("open", ("far1",)), Open("client1", "open otherPort"), Say(0, CLIENT, "ACK"),
    ),
    "VE-10": (Open("pod1", "open clusterIP"),),
    "VE-13": (Endpoints("open", ("pod2",)), Open("client1", "open nodePort")),
    "VE-16": (Endpoints("open", ("far2",)), Open("far1", "open clusterIP")),
    "VE-17": (Endpoints("local", ("far2",)), Open("far1", "local externalIP")),
    "CO-1": (
        Open("client1", "open externalIP"), Endpoints("open", ("far1",)), Say(0, CLIENT, "ACK"),
    ),
    "CO-15": (
        Endpoints("open", ("far1",)), Open("client1", "open nodePort", "UDP", 30001),
        Say(0, BACKEND), Endpoints("open", ()), Say(0, CLIENT),
    ),
    "CO-28": (
        Endpoints("open", ("far1",)), *handshake("client1", "open nodePort", 0, 30001),
        Say(0, CLIENT, "RST"), Open("client1", "open nodePort", "TCP", 30001),
    ),
    "CO-7": (
        Endpoints("open", ("far1",)), *handshake("client1", "open nodePort"),
        Forge(0, BACKEND, "ACK"),
    ),
}  # fmt: skip


def test_each_is_shown() -> None:
    assert SHOWN_BY.keys() == DEPARTURES.keys()


@pytest.mark.rule("CO-8")
@pytest.mark.parametrize("target", ["open nodePort", "open clusterIP"])
def test_what_follows_a_syn_that_a_filter_drops(peers: Peers, family: Family, target: str) -> None:
    """It meets the filter, too, and after it the backend: as with kube-proxy, which takes it for a
    connection. Rules that leave to the stack what opens nothing cannot know that it was one."""
    script = (
        Endpoints("open", ("far1",)), Filter("client1"), Open("client1", target), Say(0, CLIENT),
        Filter("client1"), Say(0, CLIENT),
    )  # fmt: skip
    as_kube_proxy = peers.but(netfilter=Netfilter(peers.theirs, ALL - {"CO-1"}))
    assert not (found := as_kube_proxy.difference(family, script)), f"\n{found}"


@pytest.mark.rule("VE-8", "VE-10", "VE-13", "VE-16", "VE-17", "CO-1", "CO-7", "CO-15", "CO-28")
@pytest.mark.parametrize("rule", DEPARTURES)
def test_kube_proxy_does_otherwise(peers: Peers, family: Family, rule: str) -> None:
    script = SHOWN_BY[rule]
    as_kube_proxy = peers.but(netfilter=Netfilter(peers.theirs, ALL - {rule}))
    assert as_kube_proxy.difference(family, script)
    assert not (found := peers.difference(family, script)), f"\n{found}"
