"""Scripts by chance. Steps make sense in any order and number, so that a script that shows a
difference can be made shorter by leaving out any of them."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.differential.play import COMPLAINTS
from tests.differential.script import (
    BACKEND,
    CLIENT,
    ENDS,
    NODE,
    SEGMENTS,
    Complain,
    Endpoints,
    Filter,
    Forge,
    Open,
    Say,
    Script,
    Step,
    Swap,
    handshake,
)  # fmt: skip

CLIENTS = ("pod1", "client1", "client2", "far1", NODE)
PODS = ("pod1", "pod2", "far1", "far2", "host2")
TARGETS = (
    "open clusterIP", "open nodePort", "open balancer", "open externalIP", "open otherPort",
    "local clusterIP", "local nodePort", "local balancer", "local externalIP", "inner clusterIP",
    "pod2", "far1", "host2", "client2", "hostPort",
)  # fmt: skip
FILTERED = ("pod1", "client1", "far1")
_FLOWS = st.integers(0, 3)
_PORTS = st.sampled_from((0, 0, 0, 30001, 30001, 30080))
_SERVICES = st.sampled_from(("open", "local", "inner"))
_ENDPOINTS = st.builds(
    Endpoints, _SERVICES, st.one_of(st.just(()), st.tuples(st.sampled_from(PODS)))
)
_OPENS = st.builds(
    Open,
    st.sampled_from(CLIENTS),
    st.sampled_from(TARGETS),
    st.sampled_from(("TCP", "UDP")),
    _PORTS,
    st.booleans(),
)
_STEPS: st.SearchStrategy[Step] = st.one_of(
    _OPENS,
    st.builds(Say, _FLOWS, st.sampled_from(ENDS), st.sampled_from(SEGMENTS)),
    st.builds(Say, _FLOWS, st.sampled_from(ENDS), st.just("data"), st.booleans()),
    st.builds(Forge, _FLOWS, st.sampled_from(ENDS), st.sampled_from(SEGMENTS)),
    st.builds(Complain, _FLOWS, st.sampled_from(ENDS), st.sampled_from(COMPLAINTS), st.booleans()),
    _ENDPOINTS,
    st.just(Swap()),
    st.builds(Filter, st.sampled_from(FILTERED)),
)


@st.composite
def _conversation(draw: st.DrawFn) -> Script:
    """One that goes on as most do, up to some point."""
    opened = draw(_OPENS)
    if opened.protocol == "UDP":
        return (opened, Say(-1, BACKEND), Say(-1, CLIENT), Say(-1, BACKEND))
    whole = handshake(opened.client, opened.target, -1, opened.port)
    return (*whole, Say(-1, CLIENT), Say(-1, BACKEND))[: draw(st.integers(1, 5))]


def without_echoes(script: Script) -> Script:
    """Without what is still said of UDP questions whose endpoints may have left, until the client
    speaks again: that is nobody's any more, and what the CNI's masquerading makes of it for clients
    outside follows from which connections the kernel's own tracking knows."""
    kept: list[Step] = []
    asked: list[
        tuple[bool, bool]
    ] = []  # each connection: is it UDP, and may its endpoint have left?
    for step in script:
        if isinstance(step, Open):
            asked.append((step.protocol == "UDP", False))
        elif isinstance(step, Endpoints | Swap):
            asked = [(udp, udp) for udp, _ in asked]
        elif isinstance(step, Say | Forge | Complain) and asked:
            number = step.flow % len(asked)
            udp, left = asked[number]
            if left and not (isinstance(step, Say) and step.end == CLIENT):
                continue
            asked[number] = (udp, False)
        kept.append(step)
    return tuple(kept)


def without_strays(script: Script) -> Script:
    """Without what is said of a connection whose SYN the node's filter has dropped, until the
    client asks again: there the rules that we compare with are not kube-proxy's
    (test_departures.py)."""
    kept: list[Step] = []
    filtered: set[str] = set()
    clients: list[str] = []  # each connection's, "" of those that no filter looks at
    lost: list[bool] = []
    for step in script:
        if isinstance(step, Filter):
            filtered ^= {step.whose}
        elif isinstance(step, Open):
            clients.append(step.client if step.protocol == "TCP" else "")
            lost.append(clients[-1] in filtered)
        elif isinstance(step, Say | Forge | Complain) and clients:
            number = step.flow % len(clients)
            if isinstance(step, Say) and (step.end, step.segment) == (CLIENT, "SYN"):
                lost[number] &= clients[number] in filtered
            elif lost[number]:
                continue
        kept.append(step)
    return tuple(kept)


def _begins() -> st.SearchStrategy[Script]:
    """The Services have endpoints to begin with."""
    return st.tuples(*(
        st.builds(Endpoints, st.just(service), st.tuples(st.sampled_from(PODS)))
        for service in ("open", "local", "inner")
    ))  # fmt: skip


def _made_of(parts: st.SearchStrategy[Script]) -> st.SearchStrategy[Script]:
    return st.builds(
        lambda begin, parts: (*begin, *(step for part in parts for step in part)),
        _begins(),
        st.lists(parts, min_size=1, max_size=8),
    )


def scripts() -> st.SearchStrategy[Script]:
    parts = st.one_of(_conversation(), st.tuples(_STEPS))
    return _made_of(parts).map(without_echoes).map(without_strays)


def orderly_scripts() -> st.SearchStrategy[Script]:
    """Nothing that the kernel's connection tracking would call out of place, or drop."""
    complaints = st.builds(
        Complain, _FLOWS, st.sampled_from(ENDS), st.sampled_from(COMPLAINTS), st.booleans()
    )
    parts = st.one_of(
        _conversation(), _conversation(), st.tuples(st.one_of(complaints, _ENDPOINTS))
    )
    return _made_of(parts).map(without_echoes)
