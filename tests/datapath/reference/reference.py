"""Whether a program might do that with a packet: who is asked about which claim."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from tests.datapath import judge
from tests.datapath.judge import NEXT, REDIRECT, SHOT
from tests.datapath.reference.back import restored
from tests.datapath.reference.drops import BEFORE_ANYTHING, dropped
from tests.datapath.reference.errors import error
from tests.datapath.reference.half import half
from tests.datapath.reference.hooks import UPLINK_IN, Observed, Ruling
from tests.datapath.reference.known import Known
from tests.datapath.reference.passed import passed
from tests.datapath.reference.refusals import refused
from tests.datapath.reference.there import translated


@dataclass
class Reference(Known):
    """A load balancer, in what it knows and what it owes each packet."""

    def judge(self, hook: str, sent: bytes, got: Observed) -> Ruling:
        """Whether a program at this hook might do that with a packet. Changes nothing."""
        found = judge.read(sent)
        drops = [reason for reason in got.counted if reason in self.drops]
        masqueraded = got.counted["MASQUERADED"]
        if masqueraded > 1:
            return Ruling(f"counted as {got.counted}", "?")
        got = replace(got, counted=got.counted - Counter(MASQUERADED=1))
        if masqueraded and not got.counted:
            return half(self, hook, sent, found, got)
        if got.verdict == SHOT:
            if len(drops) != 1 or got.counted[drops[0]] != 1:
                return Ruling(f"dropped, counted as {got.counted}", "dropped")
            if drops[0] in BEFORE_ANYTHING and len(got.counted) > 1:
                return Ruling(f"dropped, counted as {got.counted}", "dropped")
            ruling = dropped(self, hook, sent, found, drops[0])
            passing = {"NEW", "ESTABLISHED", "REPLY"}
            if found is None or set(got.counted) - {*drops, *passing}:
                return ruling
            ends = self.ends(sent, found)
            begun = "NEW" in got.counted and ends is not None
            return replace(
                ruling,
                fragment=found.fragment and bool(got.counted["ESTABLISHED"] + got.counted["REPLY"]),
                unseen=(found.protocol, *ends) if begun and ends else None,
                hook=hook,
            )
        if drops:
            return Ruling(f"counted as dropped for {drops}, but it was not", "?")
        if got.verdict not in (NEXT, REDIRECT):
            return Ruling(f"verdict {got.verdict}", "?")
        claims = set(got.counted) - {"NEW"}
        if "XDP" in claims:  # of those sent on, how many by XDP
            claims.remove("XDP")
            if (
                hook != UPLINK_IN
                or got.verdict != REDIRECT
                or not claims <= {"ESTABLISHED", "REPLY"}
            ):
                return Ruling(f"counted as {got.counted}", "?")
            if found is None or found.fragment or judge.may_be_partial(sent, found):
                return Ruling("XDP has finished what it cannot", "?")
        if any(count != 1 for count in got.counted.values()) or len(claims) > 1:
            return Ruling(f"counted as {got.counted}", "?")
        if found is None or not claims or claims & {"TRUNCATED", "HEADER_CHAIN"}:
            return passed(self, hook, sent, found, got)
        claim = claims.pop()
        if "NEW" in got.counted and claim != "ESTABLISHED":
            return Ruling(f"counted as {got.counted}", "?")
        if claim == "ESTABLISHED":
            return translated(self, hook, sent, found, got)
        if claim == "REPLY":
            return restored(self, hook, sent, found, got)
        if claim == "ICMP_ERROR":
            return error(self, hook, sent, found, got)
        if claim in ("NO_ENDPOINTS", "UNSERVED_PORT"):
            return refused(self, hook, sent, found, got, claim)
        return Ruling(f"counted as {claim}", "?")
