"""Each departure from kube-proxy is needed: a script shows it where netfilter's rules lack it."""

from __future__ import annotations

import pytest

from ebpf_lb.model.values import Family
from tests.capabilities import DATAPATH, IPV6, NFTABLES, RAW_SOCKETS, needs
from tests.differential.compare import Peers
from tests.differential.departures import ALL, DEPARTURES
from tests.differential.netfilter import Netfilter
from tests.differential.script import (
    BACKEND,
    CLIENT,
    Endpoints,
    Forge,
    Open,
    Say,
    Script,
    handshake,
)  # fmt: skip

pytestmark = needs(*DATAPATH, NFTABLES, IPV6, RAW_SOCKETS)

SHOWN_BY: dict[str, Script] = {
    "VE-10": (Open("pod1", "open clusterIP"),),
    "VE-13": (Endpoints("open", ("pod2",)), Open("client1", "open nodePort")),
    "VE-16": (Endpoints("open", ("far2",)), Open("far1", "open clusterIP")),
    "VE-17": (Endpoints("local", ("far2",)), Open("far1", "local externalIP")),
    "CO-1": (
        Open("client1", "open externalIP"), Endpoints("open", ("far1",)), Say(0, CLIENT, "ACK"),
    ),
    "CO-7": (
        Endpoints("open", ("far1",)), *handshake("client1", "open nodePort"),
        Forge(0, BACKEND, "ACK"),
    ),
}  # fmt: skip


def test_each_is_shown() -> None:
    assert SHOWN_BY.keys() == DEPARTURES.keys()


@pytest.mark.rule("VE-10", "VE-13", "VE-16", "VE-17", "CO-1", "CO-7")
@pytest.mark.parametrize("rule", DEPARTURES)
def test_kube_proxy_does_otherwise(peers: Peers, family: Family, rule: str) -> None:
    script = SHOWN_BY[rule]
    as_kube_proxy = peers.but(netfilter=Netfilter(peers.theirs, ALL - {rule}))
    assert as_kube_proxy.difference(family, script)
    assert not (found := peers.difference(family, script)), f"\n{found}"
