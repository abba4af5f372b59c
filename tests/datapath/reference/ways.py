"""How a packet goes on that need not, or may not, go through the stack."""

from __future__ import annotations

from dataclasses import replace

from tests.datapath import judge
from tests.datapath.judge import REDIRECT, Change
from tests.datapath.reference.hooks import Observed
from tests.datapath.reference.known import Known

BY_LOOPBACK = bytes(12)  # the MAC addresses of what loopback receives


def wrong_by_way(
    known: Known, sent: bytes, got: Observed, change: Change, destination: bytes, hops: int
) -> str:
    """Sent out directly."""
    macs = known.node.way(destination)
    if got.verdict != REDIRECT:
        return "handed on to the stack"
    if macs is None and not known.node.strange(destination):
        return "sent where there is no way"
    change = replace(change, macs=macs or None, hops=hops)
    return judge.wrong_rewrite(sent, got.frame, change)
