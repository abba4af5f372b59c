"""From hook to hook, there and back, by the programs themselves.

Between the hooks is the kernel's stack, which is asked where it would send a packet. What XDP does
not finish goes on to TC; what a socket's program leaves as it is meets the programs where its
packets leave.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from ebpf_lb.datapath.dry_run import packet
from ebpf_lb.datapath.dry_run.at_socket import at_socket
from ebpf_lb.datapath.dry_run.packet import End, Ends
from ebpf_lb.datapath.dry_run.sandbox import NEXT, SHOT, Outcome, Sandbox
from ebpf_lb.datapath.layout import Reason, Verdict
from ebpf_lb.model.values import Protocol

_ENDED = (Verdict.DROP, Verdict.REJECT)


class NoPrograms(Exception):
    """There are none of ours where the client's packets pass (the interface's name), or nobody
    knows where that is ("")."""


class Place(NamedTuple):
    """An interface, whose our programs at it are ("pod", "uplink", "loopback"), and whether ours is
    at its XDP hook, too."""

    interface: str
    ifindex: int
    role: str
    xdp: bool = False


Route = Callable[[bytes], Place | None]
"""By which interface the stack sends to an address; None: it keeps the packet, or has no way."""


class Socket(NamedTuple):
    """One of the node's own that asks. `leaves`: where its packets leave, which may be loopback;
    `source`: which address the stack gives it on the way to another; `taken`: a process of the node
    listens on the very address that is asked."""

    leaves: Route
    source: Callable[[bytes], bytes]
    taken: bool


class Hop(NamedTuple):
    """One program's work. `kind`: "TC", "XDP" or "socket"."""

    at: str
    before: Ends
    after: Ends
    outcome: Outcome
    kind: str = "TC"

    @property
    def dropped(self) -> bool:
        return self.outcome.returned == SHOT

    @property
    def goes_on(self) -> bool:
        """To the stack, or to whatever is behind the hook."""
        return self.outcome.returned == NEXT

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
    """Takes made packets of one connection."""

    def __init__(self, sandbox: Sandbox, protocol: Protocol, route: Route) -> None:
        self.sandbox = sandbox
        self.family = sandbox.view.family
        self.protocol = protocol
        self.route = route

    def hop(
        self, place: Place, way: str, frame: bytes, came_by: int, *, opens: bool = False
    ) -> Hop:
        before = packet.read_ends(self.family, frame)
        program = f"{place.role}_{way}"
        outcome = self.sandbox.run(program, frame, place.ifindex, came_by, opens=opens)
        after = packet.read_ends(self.family, outcome.frame)
        return Hop(f"{place.interface}, {way}", before, after, outcome)

    def enters(self, place: Place, frame: bytes, *, opens: bool = False) -> list[Hop]:
        """By XDP, where it is, and by TC if that lets it go on."""
        hops = []
        if place.xdp:
            before = packet.read_ends(self.family, frame)
            outcome = self.sandbox.run_xdp(frame, place.ifindex, opens=opens)
            after = packet.read_ends(self.family, outcome.frame)
            hops.append(Hop(f"{place.interface}, XDP", before, after, outcome, "XDP"))
            if not hops[-1].goes_on:
                return hops
        hops.append(self.hop(place, "ingress", frame, place.ifindex, opens=opens))
        return hops

    def from_afar(self, entry: Place, ends: Ends) -> list[Hop]:
        """Where it comes in, and where it leaves."""
        hops = self.enters(entry, packet.opening(self.family, self.protocol, ends), opens=True)
        last = hops[-1]
        leaves = self.route(last.after.destination[0])
        if last.goes_on and leaves is not None and leaves.role:
            untouched = last.after == ends
            frame = last.outcome.frame
            hops.append(self.hop(leaves, "egress", frame, entry.ifindex, opens=untouched))
        return hops

    def from_here(self, entry: Place, ends: Ends) -> list[Hop]:
        """Where the node's own packet leaves."""
        frame = packet.opening(self.family, self.protocol, ends)
        return [self.hop(entry, "egress", frame, 0, opens=True)]

    def named(self, socket: Socket, ends: Ends) -> tuple[Hop, End | None]:
        """What becomes of an address at the socket that names it, and from whom it has answers."""
        found = at_socket(self.sandbox).connect(self.protocol, ends.destination, taken=socket.taken)
        refused = any(one.verdict in _ENDED for one in found.reasons)
        source = ends.source
        if found.backend is not None:
            source = socket.source(found.backend[0]), ends.source[1]
        before = Ends(source, ends.destination)
        after = Ends(source, found.backend or ends.destination)
        outcome = Outcome(SHOT if refused else NEXT, b"", found.reasons)
        return Hop("the node's own socket", before, after, outcome, "socket"), found.heard

    def back(self, entry: Place | None, seen: Ends) -> list[Hop]:
        """The answer's way. `entry`: where it leaves the node; None: it is for the node itself."""
        frame = packet.answer(self.family, self.protocol, seen)
        enters = self.route(seen.destination[0])
        hops = []
        if enters is not None and enters.role:
            hops += self.enters(enters, frame)
            frame = hops[-1].outcome.frame
            if not hops[-1].goes_on:
                return hops
        if entry is not None:
            came_by = enters.ifindex if enters is not None else 0
            hops.append(self.hop(entry, "egress", frame, came_by))
        return hops


def _journey(ends: Ends, there: list[Hop]) -> Journey:
    """What the hops amount to. `ends`: as they were before the first one."""
    last = there[-1]
    if (why := last.why) is not None or last.dropped:
        reject = last.kind == "socket" or not last.dropped
        return Journey("reject" if reject else "drop", why, last.after, there)
    counted = [one for hop in there for one in hop.outcome.reasons]
    verdict = "pass" if last.after == ends and last.goes_on else "forward"
    return Journey(verdict, counted[0] if counted else None, last.after, there)


def travel(
    sandbox: Sandbox,
    protocol: Protocol,
    ends: Ends,
    entry: Place | None,
    route: Route,
    *,
    own: bool = False,
) -> Journey:
    """A new connection's first packet, and the answer to it.

    entry: where the client's packets come to this node; of the node's `own` packets, where they
    leave it. NoPrograms, Unavailable.
    """
    if entry is None or not entry.role:
        raise NoPrograms(entry.interface if entry else "")
    sandbox.begin(ends.source[0])
    traveller = _Traveller(sandbox, protocol, route)
    there = traveller.from_here(entry, ends) if own else traveller.from_afar(entry, ends)
    journey = _journey(ends, there)
    if journey.verdict == "forward":
        journey.back = traveller.back(None if own else entry, journey.seen)
    return journey


def travel_from_socket(
    sandbox: Sandbox, protocol: Protocol, ends: Ends, socket: Socket, route: Route
) -> Journey:
    """Likewise, where the programs at the node's own sockets come first."""
    sandbox.begin(ends.source[0], sandbox.own_source())
    traveller = _Traveller(sandbox, protocol, route)
    hop, heard = traveller.named(socket, ends)
    if hop.dropped:
        return _journey(ends, [hop])
    if hop.after.destination == ends.destination:
        entry = socket.leaves(ends.destination[0])
        journey = travel(sandbox, protocol, ends, entry, route, own=True)
        journey.there.insert(0, hop)
        return journey
    leaves = socket.leaves(hop.after.destination[0])
    there = [hop, *(traveller.from_here(leaves, hop.after) if leaves and leaves.role else ())]
    journey = _journey(hop.before, there)
    if journey.verdict == "forward":
        journey.back = traveller.back(None, journey.seen)
        if heard is not None and all(one.goes_on for one in journey.back):
            before = Ends(hop.after.destination, hop.before.source)
            after = Ends(heard, hop.before.source)
            outcome = Outcome(NEXT, b"", [])
            journey.back.append(Hop("the node's own socket", before, after, outcome, "socket"))
    return journey
