"""From hook to hook, there and back, by the programs themselves.

Between the hooks is the kernel's stack, which is asked where it would send a packet.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from ebpf_lb.datapath.dry_run import packet
from ebpf_lb.datapath.dry_run.packet import Ends
from ebpf_lb.datapath.dry_run.sandbox import Outcome, Sandbox
from ebpf_lb.datapath.layout import Reason, Verdict
from ebpf_lb.model.values import Protocol

_NEXT, _SHOT = 0xFFFFFFFF, 2  # TC_ACT_UNSPEC, TC_ACT_SHOT
_ENDED = (Verdict.DROP, Verdict.REJECT)


class Place(NamedTuple):
    """An interface, and whose our programs at it are: "pod", "uplink" or "loopback"."""

    interface: str
    ifindex: int
    role: str


Route = Callable[[bytes], Place | None]
"""By which interface the stack sends to an address; None: it keeps the packet, or has no way."""


class Hop(NamedTuple):
    """One program's work. `ends`: before and after it."""

    at: str
    before: Ends
    after: Ends
    outcome: Outcome

    @property
    def dropped(self) -> bool:
        return self.outcome.returned == _SHOT

    @property
    def goes_on(self) -> bool:
        """To the stack, or to whatever is behind the hook."""
        return self.outcome.returned == _NEXT

    @property
    def why(self) -> Reason | None:
        """Why the packet ends here; None where it goes on."""
        ended = [one for one in self.outcome.reasons if one.verdict in _ENDED]
        return ended[-1] if ended else None


@dataclass(slots=True)
class Journey:
    """`verdict`: forward, reject, drop or pass. `reason`: None where nothing was counted."""

    verdict: str
    reason: Reason | None
    seen: Ends
    there: list[Hop] = field(default_factory=list)
    back: list[Hop] = field(default_factory=list)

    @property
    def lost(self) -> Hop | None:
        """Where the answer ends before it gets to the client."""
        return next((hop for hop in self.back if hop.dropped or hop.why), None)

    @property
    def heard(self) -> Ends | None:
        """The ends of the answer as the client gets it."""
        return self.back[-1].after if self.back else None


class _Traveller:
    def __init__(self, sandbox: Sandbox, protocol: Protocol, entry: Place, route: Route) -> None:
        self.sandbox = sandbox
        self.family = sandbox.view.family
        self.protocol = protocol
        self.entry = entry
        self.route = route

    def hop(
        self, place: Place, way: str, frame: bytes, came_by: int, *, opens: bool = False
    ) -> Hop:
        before = packet.read_ends(self.family, frame)
        program = f"{place.role}_{way}"
        outcome = self.sandbox.run(program, frame, place.ifindex, came_by, opens=opens)
        after = packet.read_ends(self.family, outcome.frame)
        return Hop(f"{place.interface}, {way}", before, after, outcome)

    def there(self, ends: Ends, own: bool) -> Journey:
        frame = packet.opening(self.family, self.protocol, ends)
        came_by = 0 if own else self.entry.ifindex
        first = self.hop(self.entry, "egress" if own else "ingress", frame, came_by, opens=True)
        there = [first]
        leaves = self.route(first.after.destination[0])
        if first.goes_on and not own and leaves is not None and leaves.role:
            untouched = first.after == ends
            there.append(self.hop(leaves, "egress", first.outcome.frame, came_by, opens=untouched))
        last = there[-1]
        if (why := last.why) is not None or last.dropped:
            verdict = "drop" if last.dropped else "reject"
            return Journey(verdict, why, last.after, there)
        counted = [one for hop in there for one in hop.outcome.reasons]
        if last.after == ends and last.goes_on:
            return Journey("pass", counted[0] if counted else None, last.after, there)
        return Journey("forward", counted[0] if counted else None, last.after, there)

    def back(self, seen: Ends, own: bool) -> list[Hop]:
        frame = packet.answer(self.family, self.protocol, seen)
        enters = self.route(seen.destination[0])
        hops = []
        if enters is not None and enters.role:
            hops.append(self.hop(enters, "ingress", frame, enters.ifindex))
            frame = hops[-1].outcome.frame
            if not hops[-1].goes_on:
                return hops
        if not own:
            came_by = enters.ifindex if enters is not None else 0
            hops.append(self.hop(self.entry, "egress", frame, came_by))
        return hops


def travel(
    sandbox: Sandbox,
    protocol: Protocol,
    ends: Ends,
    entry: Place,
    route: Route,
    *,
    own: bool = False,
) -> Journey:
    """A new connection's first packet, and the answer to it.

    entry: where the client's packets come to this node; of the node's `own` packets, where they
    leave it. There must be programs of ours.
    """
    sandbox.begin(ends.source[0])
    traveller = _Traveller(sandbox, protocol, entry, route)
    journey = traveller.there(ends, own)
    if journey.verdict == "forward":
        journey.back = traveller.back(journey.seen, own)
    return journey
