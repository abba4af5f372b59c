"""Packets that were dropped: whether that was owed to them."""

from __future__ import annotations

from tests.datapath import judge
from tests.datapath.judge import Reading
from tests.datapath.reference.hooks import POD_OUT, UPLINK_IN, Ruling
from tests.datapath.reference.known import Known
from tests.datapath.reference.passed import is_redirect
from tests.datapath.reference.refusals import hops
from tests.support.packets import SCTP, TCP

DROPS_OF_POLICY = {"NO_LOCAL_ENDPOINTS", "SOURCE_RANGE"}
BEFORE_ANYTHING = DROPS_OF_POLICY | {"LATER_FRAGMENT", "UNANSWERABLE", "NO_SNAT_SOURCE"}

QUOTED_BYTES = 96  # by an ICMP error of ours, at most


def dropped(known: Known, hook: str, sent: bytes, found: Reading | None, reason: str) -> Ruling:
    def ruling(fine: bool) -> Ruling:
        return Ruling("" if fine else f"dropped for {reason}", f"dropped: {reason}")

    if found is None:
        return ruling(reason == "REWRITE_FAILED")
    service = known.service(found)
    if reason == "REDIRECT":
        return ruling(_quotes_a_flow(known, sent, found) and is_redirect(sent, found))
    if reason == "HOP_LIMIT":  # an error about what XDP has sent on; of others the stack tells
        fits = hook == UPLINK_IN and hops(sent, found) <= 1
        return ruling(fits and _quotes_a_flow(known, sent, found))
    if reason in DROPS_OF_POLICY:
        return ruling(
            service is not None
            and hook != POD_OUT
            and known.opens(sent, found)
            and known.policy(hook, found, service)[0] == reason
        )
    if reason == "LATER_FRAGMENT":
        return ruling(found.transport is None and found.destination in known.cluster_ips)
    if reason == "NO_ROUTE":
        # to nowhere, or back to somebody nobody has a way to
        ends = {found.source, found.destination}
        clients = {f.client.address for f in known.candidates(hook, sent, found)}
        quoted = judge.read_quotation(sent, found)
        if quoted is not None:
            turned = (quoted.protocol, quoted.destination, quoted.source)
            clients |= {f.client.address for f in known.replies.get(turned, [])}
        return ruling(
            any(known.node.strange(a) or known.node.way(a) is None for a in clients | ends)
        )
    if reason == "NO_SNAT_SOURCE":
        return ruling(service is not None and known.node.strange(found.source))
    if reason == "UNANSWERABLE":
        return ruling(found.destination in known.ours and hook != POD_OUT)
    if reason == "SCTP_FRAGMENT":
        return ruling(found.protocol == SCTP and found.fragment)
    # headers that contradict each other, or a refusal that would not hold them
    told = {TCP: 20, SCTP: 12}.get(found.protocol, 8)
    bulky = found.transport is not None and found.transport - judge.LINK + told > QUOTED_BYTES
    return ruling(reason == "REWRITE_FAILED" and (not found.whole or bulky))


def _quotes_a_flow(known: Known, sent: bytes, found: Reading) -> bool:
    quoted = judge.read_quotation(sent, found)
    if quoted is None:
        return False
    if found.destination != quoted.source.address:
        return False
    turned = (quoted.protocol, quoted.destination, quoted.source)
    between = [
        f
        for f in known.flows.values()
        if f.protocol == quoted.protocol
        and {f.backend, f.client} == {quoted.source, quoted.destination}
    ]
    return bool(known.flows.get(turned) or known.replies.get(turned) or between or known.unseen)
