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
    if not known.opens(sent, found) or known.is_an_answer(hook, found):
        return ruling("refused, and it opened nothing")
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
