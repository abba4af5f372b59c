"""Replies, whose source becomes again who was asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.datapath import judge
from tests.datapath.judge import NEXT, REDIRECT, Change, End, Reading
from tests.datapath.reference.flows import Flow, ends_flow
from tests.datapath.reference.hooks import (
    FROM_NODE,
    INGRESS,
    LOOPBACK_OUT,
    UPLINK_IN,
    Observed,
    Ruling,
)
from tests.datapath.reference.known import Known
from tests.datapath.reference.ways import BY_LOOPBACK, wrong_by_way


def restored(known: Known, hook: str, sent: bytes, found: Reading, got: Observed) -> Ruling:
    candidates = known.candidates(hook, sent, found) + _hidden(known, sent, found, got)
    fault = "restored, but it is not a flow's reply"
    ends = known.ends(sent, found)
    for flow in candidates:
        change = Change(flow.vip, None if ends and ends[1] == flow.client else flow.client)
        fault = _wrong_way_back(known, hook, sent, got, change, flow)
        if not fault:
            ended = flow.ended or ends_flow(sent, found)
            after = replace(flow, answered=True, ended=ended)
            return Ruling("", "restored", after, found.fragment)
    return Ruling(fault, "restored")


def wrong_inwards(
    known: Known, hook: str, flow: Flow, got: Observed, wrong: Callable[[bytes | None], str]
) -> str:
    """An answer to a process of the node's is received where that would have asked: there, or by
    other MAC addresses. `wrong`: what is wrong about the frame with these."""
    macs = known.node.way(flow.vip.address)
    ways = [macs[6:] + macs[:6] if macs else BY_LOOPBACK]
    if hook == UPLINK_IN and known.node.route(flow.vip.address).device == "up0":
        ways = [b""]
    if known.node.strange(flow.client.address):
        ways += [BY_LOOPBACK]
    if got.verdict == NEXT:
        return wrong(None) if b"" in ways else "not received where the VIP was spoken to"
    faults = [wrong(way) for way in ways if way and got.verdict == REDIRECT]
    return "" if "" in faults else " or ".join(faults) or "kept from the stack"


def _hidden(known: Known, sent: bytes, found: Reading, got: Observed) -> list[Flow]:
    """The flow of which only this reply was seen."""
    ends, after = known.ends(sent, found), judge.read(got.frame)
    if ends is None or after is None:
        return []
    client = End(after.destination, after.destination_port)
    vip = End(after.source, after.source_port)
    if (found.protocol, client, vip) not in known.unseen:
        return []
    masqueraded = ends[1].address in known.node.own
    of_node = known.unseen[found.protocol, client, vip] in FROM_NODE
    return [Flow(found.protocol, client, vip, *ends, masqueraded, of_node=of_node)]


def _wrong_way_back(
    known: Known, hook: str, sent: bytes, got: Observed, change: Change, flow: Flow
) -> str:
    if flow.masqueraded and not flow.of_node and hook in INGRESS:
        return wrong_by_way(known, sent, got, change, flow.client.address, 1)
    pretended = flow.of_node and flow.client.address not in known.node.own
    if pretended and hook == UPLINK_IN and got.verdict == REDIRECT:
        fault = wrong_by_way(known, sent, got, change, flow.client.address, 1)
        if not fault:  # sent on to whom the node pretended to be
            return ""
    if flow.masqueraded and flow.of_node and hook in (*INGRESS, LOOPBACK_OUT):
        return wrong_inwards(
            known,
            hook,
            flow,
            got,
            lambda macs: judge.wrong_rewrite(sent, got.frame, replace(change, macs=macs)),
        )
    if got.verdict != NEXT:
        return "kept from the stack"
    return judge.wrong_rewrite(sent, got.frame, change)
