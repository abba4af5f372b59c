"""ICMP errors about translated packets."""

from __future__ import annotations

from dataclasses import replace

from tests.datapath import judge
from tests.datapath.judge import NEXT, REDIRECT, Change, End, Quotation, Reading
from tests.datapath.reference.back import wrong_inwards
from tests.datapath.reference.flows import Flow
from tests.datapath.reference.hooks import FROM_NODE, POD_OUT, Observed, Ruling
from tests.datapath.reference.known import Known
from tests.datapath.reference.ways import BY_LOOPBACK


def error(known: Known, hook: str, sent: bytes, outer: Reading, got: Observed) -> Ruling:
    quoted = judge.read_quotation(sent, outer)
    if quoted is None:
        return Ruling("translated as an ICMP error that it is not", "error")
    turned = (quoted.protocol, quoted.destination, quoted.source)
    fault = "an error about no flow of ours was translated"
    flow = known.flows.get(turned)
    if flow is not None and hook != POD_OUT:
        ends = (flow.backend, flow.seen)
        towards = flow.backend.address if flow.masqueraded else None
        fault = _wrong_error(known, hook, sent, outer, got, quoted, ends, towards)
        if not fault:
            return Ruling("", "error")
    for flow in known.replies.get(turned, []):
        ends = (flow.client, flow.vip)
        towards = flow.client.address if flow.masqueraded and hook != POD_OUT else None
        if towards and flow.of_node:
            fault = _wrong_error_to_node(known, hook, sent, outer, got, quoted, flow)
        else:
            fault = _wrong_error(known, hook, sent, outer, got, quoted, ends, towards)
        if not fault:
            break
    return Ruling(fault, "error")


def _changes(outer: Reading, quoted: Quotation, ends: tuple[End, End]) -> tuple[Change, Change]:
    """What is to become of an error and of its quotation, whose source and destination become
    `ends`."""
    source, destination = ends
    outside = Change(
        destination if outer.source == quoted.destination.address else None,
        source if outer.destination == quoted.source.address else None,
    )
    return outside, Change(source, destination)


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
    faults = [
        judge.wrong_error(sent, got.frame, replace(change, hops=1, macs=macs), inner)
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
