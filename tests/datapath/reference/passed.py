"""Packets that were let pass: whether nothing should have been done with them."""

from __future__ import annotations

from tests.datapath import judge
from tests.datapath.judge import NEXT, Quotation, Reading
from tests.datapath.reference.hooks import (
    INGRESS,
    POD_OUT,
    UPLINK_IN,
    UPLINK_OUT,
    Observed,
    Ruling,
)
from tests.datapath.reference.known import Known
from tests.support.packets import ICMP, ICMPV6


def passed(known: Known, hook: str, sent: bytes, found: Reading | None, got: Observed) -> Ruling:
    if (got.verdict, got.frame) != (NEXT, sent):
        return Ruling(f"touched, verdict {got.verdict}, counted as {got.counted}", "passed")
    if "NEW" in got.counted:
        return Ruling("counted as new, and passed", "passed")
    if found is None or not found.whole:
        fine = set(got.counted) <= {"TRUNCATED", "HEADER_CHAIN"}
        return Ruling("" if fine else f"passed, counted as {got.counted}", "passed")
    if got.counted:
        return Ruling(f"can be read, but counted as {got.counted}", "passed")
    return Ruling(_missed(known, hook, sent, found), "passed")


def _missed(known: Known, hook: str, sent: bytes, found: Reading) -> str:
    """What should have been done with a packet that passed."""
    ours = found.destination in known.ours
    if not known.is_for_us(hook, sent):
        return ""
    quoted = judge.read_quotation(sent, found)
    if quoted is not None:
        return _missed_error(known, hook, found, quoted)
    ends = known.ends(sent, found)
    if ends is None:
        return ""  # a later fragment, whose first was not seen
    flow = known.flows.get((found.protocol, *ends))
    if hook != POD_OUT and ours:
        if flow is not None and flow.firm:
            return "a known flow's packet passed untranslated"
        error = found.protocol in (ICMP, ICMPV6) and is_icmp_error(sent, found)
        others = known.replies.get((found.protocol, *ends))
        if hook in INGRESS and others and not known.candidates(hook, sent, found):
            return ""  # to a client who has such an address: restored where it leaves to him
        service = known.service(found)
        strange = not known.opens(sent, found) or known.is_an_answer(hook, found)
        if strange or (found.protocol, ends[0], ends[1]) in known.passing:
            return ""
        if service is not None and not known.candidates(hook, sent, found):
            return "a Service's packet passed untranslated"
        if found.destination in known.cluster_ips and not error:
            return "passed for a ClusterIP, and nobody counted it"
    here = hook in (POD_OUT, UPLINK_OUT) or ours
    # the stack knows a masqueraded client by one of two ports, where they differ
    certain = [
        f
        for f in known.candidates(hook, sent, found)
        if ends[1] == f.seen or f.client.port == f.seen.port
    ]
    if here and any(f.firm for f in certain):
        return "a reply was not restored"
    return ""


def _missed_error(known: Known, hook: str, outer: Reading, quoted: Quotation) -> str:
    if not quoted.whole or outer.destination != quoted.source.address:
        return ""
    if hook not in (POD_OUT, UPLINK_OUT) and outer.destination not in known.ours:
        return ""
    if hook == UPLINK_IN and known.node.strange(outer.source):
        return ""  # about what XDP has sent on: there is no way from there
    turned = (quoted.protocol, quoted.destination, quoted.source)
    flow = known.flows.get(turned)
    if flow is not None and flow.firm and hook != POD_OUT:
        return "an error about a known flow's reply passed as it was"
    for flow in known.replies.get(turned, []):
        if flow.firm and (hook not in INGRESS or flow.masqueraded):
            return "an error about a known flow's packet passed as it was"
    return ""


def is_redirect(frame: bytes, found: Reading) -> bool:
    """That tells of another router."""
    assert found.transport is not None
    return frame[found.transport] == (5 if found.version == 4 else 137)


def is_icmp_error(frame: bytes, found: Reading) -> bool:
    assert found.transport is not None
    kind = frame[found.transport]
    return kind in (3, 4, 5, 11, 12) if found.version == 4 else kind < 128 or kind == 137
