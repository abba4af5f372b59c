"""What is masqueraded, where only one of its two changes is seen: it enters and the stack does not
send it on, or it comes to a hook by which it leaves without having entered."""

from __future__ import annotations

from tests.datapath import judge
from tests.datapath.judge import NEXT, Change, End, Reading
from tests.datapath.reference.hooks import FROM_NODE, INGRESS, Observed, Ruling
from tests.datapath.reference.known import Known


def half(known: Known, hook: str, sent: bytes, found: Reading | None, got: Observed) -> Ruling:
    """A packet that was counted as masqueraded and as nothing else."""
    fate = "half"
    ends = known.ends(sent, found) if found else None
    if found is None or ends is None or got.verdict != NEXT:
        return Ruling(f"masqueraded, verdict {got.verdict}", fate)
    source, destination = ends
    fault = "masqueraded, and it is of no such flow"
    for flow in [f for f in known.flows.values() if f.protocol == found.protocol and f.masqueraded]:
        if hook in INGRESS and (flow.backend, flow.seen) == ends:
            changes = [Change(destination=flow.client), *_ported(destination, flow.client, got)]
        elif hook not in INGRESS and flow.backend == destination:
            changes = [Change(source=flow.seen, identification=_identification(got, found))]
            if source.address != flow.client.address:
                continue
        else:
            continue
        faults = [judge.wrong_rewrite(sent, got.frame, change) for change in changes]
        fault = "" if "" in faults else faults[0]
        if not fault:
            break
    hidden = any(p == found.protocol for p, _, _ in known.unseen)
    return Ruling("" if hidden and hook not in FROM_NODE else fault, fate, fragment=found.fragment)


def _ported(seen: End, client: End, got: Observed) -> list[Change]:
    """The stack may know the client by the port that the backend sees as well."""
    return [Change(destination=End(client.address, seen.port))]


def _identification(got: Observed, found: Reading) -> bytes | None:
    after = judge.read(got.frame)
    return after.identification if after and found.fragment else None
