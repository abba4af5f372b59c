"""Packets that were answered: whether that was owed to them."""

from __future__ import annotations

from tests.datapath import judge
from tests.datapath.judge import REDIRECT, Reading
from tests.datapath.reference.hooks import POD_OUT, Observed, Ruling
from tests.datapath.reference.known import Known


def refused(
    known: Known, hook: str, sent: bytes, found: Reading, got: Observed, claim: str
) -> Ruling:
    def ruling(fault: str) -> Ruling:
        return Ruling(fault, "refused")

    service = known.service(found)
    if hook == POD_OUT or got.verdict != REDIRECT:
        return ruling(f"refused, verdict {got.verdict}")
    if claim == "UNSERVED_PORT":
        if found.destination not in known.cluster_ips or service is not None:
            return ruling("refused as a port that nobody serves")
    elif service is None or known.policy(hook, found, service)[0] != "NO_ENDPOINTS":
        return ruling("refused for want of endpoints")
    ends = known.ends(sent, found)
    if ends is not None:
        flow = known.flows.get((found.protocol, *ends))
        if flow is not None and flow.firm:
            return ruling("refused a known flow")
    return ruling(judge.wrong_answer(sent, got.frame))


def hops(frame: bytes, found: Reading) -> int:
    """The hop limit of a packet."""
    return frame[judge.LINK + (8 if found.version == 4 else 7)]


def expired(hook: str, sent: bytes, found: Reading | None, got: Observed) -> Ruling:
    """Its sender was told that its hops end here."""
    fate = "expired"
    if hook == POD_OUT or found is None:
        return Ruling(f"expired at {hook}", fate)
    if hops(sent, found) > 1:
        return Ruling("told that its hops end here, and there were more", fate)
    return Ruling(judge.wrong_answer(sent, got.frame, judge.TIME_EXCEEDED), fate)
