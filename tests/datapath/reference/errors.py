"""ICMP errors about translated packets."""

from __future__ import annotations

from dataclasses import replace

from tests.datapath import judge
from tests.datapath.judge import NEXT, REDIRECT, Change, End, Quotation, Reading
from tests.datapath.reference.back import wrong_inwards
from tests.datapath.reference.flows import Flow
from tests.datapath.reference.hooks import FROM_NODE, INGRESS, POD_OUT, Observed, Ruling
from tests.datapath.reference.known import Known
from tests.datapath.reference.ways import BY_LOOPBACK


def error(known: Known, hook: str, sent: bytes, outer: Reading, got: Observed) -> Ruling:
    quoted = judge.read_quotation(sent, outer)
    if quoted is None:
        return Ruling("translated as an ICMP error that it is not", "error")
    if outer.destination != quoted.source.address:
        return Ruling("translated, although not told to whom it quotes", "error")
    turned = (quoted.protocol, quoted.destination, quoted.source)
    fault = "an error about no flow of ours was translated"
    flow = known.flows.get(turned)
    if flow is not None and hook != POD_OUT:
        ends = (flow.backend, flow.seen)
        towards = flow.backend.address if flow.masqueraded else None
        fault = _wrong_error(known, hook, sent, outer, got, quoted, ends, towards)
        if fault and flow.of_node and hook in INGRESS:
            # no such error comes from outside; where it leaves it is as good as one about another's
            # that pretends to be the node
            alike = [f for f in known.flows.values() if _between_alike(f, flow)]
            each = [(f.backend, f.seen) for f in alike]
            faults = [_wrong_error(known, hook, sent, outer, got, quoted, e, towards) for e in each]
            fault = "" if "" in faults else fault
        if fault and flow.masqueraded and hook in INGRESS and got.verdict == NEXT:
            # the stack does not send it on
            between = [(flow.backend, end) for end in between_hooks(flow)]
            fault = _half(sent, outer, got, quoted, between)
        if not fault:
            return Ruling("", "error")
    left = _leaves(known, hook, sent, outer, got, quoted)
    if left == "":
        return Ruling("", "error")
    fault = left or fault
    for flow in known.replies.get(turned, []):
        ends = (flow.client, flow.vip)
        inside = flow.masqueraded and hook in (*INGRESS, *(FROM_NODE if flow.of_node else ()))
        towards = flow.client.address if inside else None
        if towards and flow.of_node:
            fault = _wrong_error_to_node(known, hook, sent, outer, got, quoted, flow)
        else:
            fault = _wrong_error(known, hook, sent, outer, got, quoted, ends, towards)
        if fault and flow.masqueraded and hook in INGRESS and got.verdict == NEXT:
            between = [(end, flow.backend) for end in between_hooks(flow)]
            fault = _half(sent, outer, got, quoted, between)
        if not fault:
            break
    if fault and _of_unseen(known, quoted, got):
        fault = ""
    return Ruling(fault, "error")


def _of_unseen(known: Known, quoted: Quotation, got: Observed) -> bool:
    """Is it about a flow that began where only half of what became of it was seen? How its backend
    knows the client is not known then."""
    outer = judge.read(got.frame)
    after = judge.read_quotation(got.frame, outer) if outer else None
    if after is None or after.protocol != quoted.protocol:
        return False
    ends = {quoted.source, quoted.destination, after.source, after.destination}
    addresses = {end.address for end in ends}
    return any(
        protocol == quoted.protocol
        and client.address in addresses
        and (client in ends or vip in ends)
        for protocol, client, vip in known.unseen
    )


def between_hooks(flow: Flow) -> list[End]:
    """As whom the stack may know a masqueraded client."""
    return [flow.client, End(flow.client.address, flow.seen.port)]


def _between_alike(one: Flow, other: Flow) -> bool:
    same = (one.protocol, one.client, one.backend) == (other.protocol, other.client, other.backend)
    return same and one.masqueraded and not one.of_node


def _half(
    sent: bytes,
    outer: Reading,
    got: Observed,
    quoted: Quotation,
    between: list[tuple[End, End]],
) -> str:
    """Translated where it entered, to one of these source and destination of the quotation."""
    if got.verdict != NEXT:
        return "an error was kept from the stack"
    faults = [judge.wrong_error(sent, got.frame, *_changes(outer, quoted, e)) for e in between]
    return "" if "" in faults else faults[0]


def _leaves(
    known: Known, hook: str, sent: bytes, outer: Reading, got: Observed, quoted: Quotation
) -> str | None:
    """Of an error that comes to a hook by which it leaves, as the stack knows the flow."""
    if hook in INGRESS:
        return None
    faults = []
    for flow in known.flows.values():
        if not flow.masqueraded or flow.protocol != quoted.protocol:
            continue
        for end in between_hooks(flow):
            if (quoted.source, quoted.destination) == (flow.backend, end):
                faults.append(_half(sent, outer, got, quoted, [(flow.backend, flow.seen)]))
            if (quoted.source, quoted.destination) == (end, flow.backend):
                faults.append(_half(sent, outer, got, quoted, [(flow.client, flow.vip)]))
    return None if not faults else "" if "" in faults else faults[0]


def _changes(outer: Reading, quoted: Quotation, ends: tuple[End, End]) -> tuple[Change, Change]:
    """What is to become of an error and of its quotation, whose source and destination become
    `ends`."""
    source, destination = ends
    return (
        Change(destination if outer.source == quoted.destination.address else None, source),
        Change(source, destination),
    )


def _wrong_error(
    known: Known,
    hook: str,
    sent: bytes,
    outer: Reading,
    got: Observed,
    quoted: Quotation,
    ends: tuple[End, End],
    towards: bytes | None,
) -> str:
    """towards: for whom it is sent out directly; None: by the stack."""
    change, inner = _changes(outer, quoted, ends)
    if towards is None:
        if got.verdict != NEXT:
            return "an error was kept from the stack"
        return judge.wrong_error(sent, got.frame, change, inner)
    if got.verdict != REDIRECT:
        return "an error was handed on to the stack"
    ways = [known.node.way(towards) or None]
    if hook in FROM_NODE and (known.node.strange(towards) or known.node.strange(outer.source)):
        ways.append(BY_LOOPBACK)
    hops = int(hook in INGRESS)
    faults = [
        judge.wrong_error(sent, got.frame, replace(change, hops=hops, macs=macs), inner)
        for macs in ways
    ]
    return "" if "" in faults else faults[0]


def _wrong_error_to_node(
    known: Known,
    hook: str,
    sent: bytes,
    outer: Reading,
    got: Observed,
    quoted: Quotation,
    flow: Flow,
) -> str:
    change, inner = _changes(outer, quoted, (flow.client, flow.vip))

    def wrong(macs: bytes | None) -> str:
        return judge.wrong_error(sent, got.frame, replace(change, macs=macs), inner)

    # a router's word is taken where it comes in
    if outer.source == quoted.destination.address:
        return wrong_inwards(known, hook, flow, got, wrong)
    return wrong(None) if got.verdict == NEXT else "an error was kept from the stack"
