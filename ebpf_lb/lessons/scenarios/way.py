"""From captured frames to the way of a connection's packets: pure, and knowing nothing of what
ought to happen.

Which of the frames show one packet, identity.py finds out.
"""

from dataclasses import dataclass

from ebpf_lb.lessons.scenarios import identity
from ebpf_lb.lessons.scenarios.frames import Endpoint, Packet
from ebpf_lb.lessons.scenarios.recording import Connection, Drop, Frame, Machine, Recording


@dataclass(frozen=True, slots=True)
class Tap:
    """A packet at an interface. outgoing: leaving the machine by it, else coming in.

    on_wire: seen only at the wire's other end: at this machine, XDP came before any tap.
    """

    machine: str
    interface: str
    outgoing: bool
    packet: Packet
    on_wire: bool = False

    @property
    def place(self) -> tuple[str, str, bool]:
        return self.machine, self.interface, self.outgoing


@dataclass(frozen=True, slots=True)
class Change:
    """Between two taps, a machine wrote another address or port. field: source or destination."""

    field: str
    before: Endpoint
    after: Endpoint


@dataclass(frozen=True, slots=True)
class Way:
    """All places where one packet was seen, in their order. towards_service: the client sent it,
    else it came back. repeats: it came by again, as in a routing loop, which is left out. stack:
    (machine, hook, packet) of the nodes' stacks that it passed; None where nobody looked."""

    towards_service: bool
    taps: tuple[Tap, ...]
    repeats: bool = False
    stack: tuple[tuple[str, str, Packet], ...] | None = None

    @property
    def name(self) -> str:
        return self.taps[0].packet.name

    def changes(self, index: int) -> tuple[Change, ...]:
        """What was rewritten before the tap with this index; that tap's machine did it."""
        if index == 0:
            return ()
        before, after = self.taps[index - 1].packet, self.taps[index].packet
        return tuple(
            Change(field, old, new)
            for field, old, new in (
                ("source", before.source, after.source),
                ("destination", before.destination, after.destination),
            )
            if old != new
        )

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal for packets that went the same way and were rewritten at the same places."""
        return (
            self.towards_service,
            *((tap.place, *(c.field for c in self.changes(i))) for i, tap in enumerate(self.taps)),
        )


@dataclass(frozen=True, slots=True)
class Story:
    """A connection: the client's first packet, the first that came back, and all others."""

    connection: Connection
    machines: tuple[Machine, ...]
    wires: tuple[tuple[tuple[str, str], tuple[str, str]], ...]
    ways: tuple[Way, ...]
    first: Way | None = None
    answer: Way | None = None
    others: tuple[Way, ...] = ()
    drops: tuple[Drop, ...] = ()

    def owner(self, address: str) -> str:
        """The machine that has an address; "" if none has, as with a Service's."""
        return next((m.name for m in self.machines if address in m.addresses), "")

    @property
    def at_socket(self) -> Change | None:
        """The destination that the client's packets have from their very beginning, where it is
        not the one that the client asked for: its node changed it when it connected."""
        if self.first is None:
            return None
        sent = self.first.taps[0].packet.destination
        asked = self.connection.asked
        return None if sent == asked else Change("destination", asked, sent)

    @property
    def backend(self) -> str:
        """The machine where the first packet was taken in; "" if it was nowhere. One that came to
        a node's own address as the client had sent it, and was not answered, was not."""
        if self.first is None:
            return ""
        last = self.first.taps[-1]
        if self.connection.outcome == "silent" and last.packet.destination == self.connection.asked:
            return ""
        there = self.owner(last.packet.destination.address)
        return last.machine if not last.outgoing and there == last.machine else ""

    @property
    def strays(self) -> tuple[Way, ...]:
        """Later packets that went another way than the first of their direction."""
        known = {way.shape for way in (self.first, self.answer) if way}
        return tuple(way for way in self.others if way.shape not in known)


def tell(recording: Recording) -> Story:
    """The connection's way through the machines. Without its first packet, nothing was sent."""
    packets = [
        (frame, packet)
        for frame in recording.frames
        if (packet := Packet.parse_frame(frame.data)) is not None
    ]
    connection = recording.connection
    known = identity.known(connection, packets)
    groups: dict[tuple[object, ...], list[tuple[Frame, Packet]]] = {}
    for frame, packet in packets:
        if (same := known.identify(packet)) is not None:
            groups.setdefault(same, []).append((frame, packet))
    sights: dict[tuple[object, ...], tuple[tuple[str, str, Packet], ...]] = {}
    for sight in recording.stack or ():
        inside = Packet.parse(sight.data)
        if inside is not None and (same := known.identify(inside)) is not None:
            place = (sight.machine, sight.hook, inside)
            sights[same] = (*sights.get(same, ()), place)
    ways = []
    for same, seen in groups.items():
        if taps := _taps(seen, recording):
            kept, repeats = _first_round(taps)
            stack = sights.get(same, ()) if recording.stack is not None else None
            way = Way(same[0] == "towards", kept, repeats, stack)
            ways.append((seen[0][0].time_ns, way))
    ordered = [way for _, way in sorted(ways, key=lambda pair: pair[0])]
    first = next((way for way in ordered if way.towards_service), None)
    answer = next((way for way in ordered if not way.towards_service), None)
    others = tuple(way for way in ordered if way is not first and way is not answer)
    return Story(
        connection,
        recording.machines,
        recording.wires,
        tuple(ordered),
        first,
        answer,
        others,
        recording.drops,
    )


# --- where a packet was, in order


def _taps(seen: list[tuple[Frame, Packet]], recording: Recording) -> list[Tap]:
    """The taps in their order. Pods come last among equal times: a frame that a program hands to a
    pod (bpf_redirect_peer) keeps the time at which it came to the node."""
    kinds = {machine.name: machine.kind for machine in recording.machines}
    seen = _without_floods(seen, recording)
    seen.sort(key=lambda one: (one[0].time_ns, kinds[one[0].machine] == "pod", one[0].number))
    taps = [
        Tap(frame.machine, frame.interface, frame.outgoing, packet)
        for frame, packet in seen
        if frame.interface != "lo"
    ]
    return _without_switch(taps, recording)


def _without_floods(
    seen: list[tuple[Frame, Packet]], recording: Recording
) -> list[tuple[Frame, Packet]]:
    """Without what a bridge sent to everybody, since it did not know where the address is, and
    what arrived at somebody else's interface: that frame and the one sent to it."""
    unwanted: set[int] = set()
    for at, (frame, packet) in enumerate(seen):
        if frame.outgoing or not frame.other_host:
            continue
        wire = recording.other_end(frame.machine, frame.interface)
        if wire is None or _is_port(frame.machine, frame.interface, recording):
            continue  # a bridge's port, where every frame is for somebody else
        unwanted.add(at)
        for other, (sent, before) in enumerate(seen):
            ends = (sent.machine, sent.interface) == wire and sent.outgoing
            if ends and before.endpoints == packet.endpoints:
                unwanted.add(other)
    return [one for at, one in enumerate(seen) if at not in unwanted]


def _is_port(machine: str, interface: str, recording: Recording) -> bool:
    """Whether it is this end of a wire that may belong to a bridge: the router's, and the nodes'
    ends of their pods' wires."""
    other = recording.other_end(machine, interface)
    kinds = {m.name: m.kind for m in recording.machines}
    if other is None:
        return False
    return kinds[machine] == "router" or (kinds[machine] == "node" and kinds[other[0]] == "pod")


def _without_switch(taps: list[Tap], recording: Recording) -> list[Tap]:
    """The router's ports are only wires, and left out; but where the machine at the wire's other
    end did not see the packet as it was there, the port's tap stands for what it got or sent."""
    routers = {machine.name for machine in recording.machines if machine.kind == "router"}
    kept: list[Tap] = []
    for at, tap in enumerate(taps):
        end = recording.other_end(tap.machine, tap.interface)
        if tap.machine not in routers or end is None:
            kept.append(tap)
            continue
        neighbour = at + 1 if tap.outgoing else at - 1
        if 0 <= neighbour < len(taps):
            near = taps[neighbour]
            theirs = (near.machine, near.interface, near.outgoing) == (*end, not tap.outgoing)
            if theirs and near.packet.endpoints == tap.packet.endpoints:
                continue
        kept.append(Tap(*end, not tap.outgoing, tap.packet, on_wire=True))
    return kept


def _first_round(taps: list[Tap]) -> tuple[tuple[Tap, ...], bool]:
    """Up to where a packet comes to a place for the second time: sent again, or in a loop."""
    places = set()
    for at, tap in enumerate(taps):
        if tap.place in places:
            return tuple(taps[:at]), True
        places.add(tap.place)
    return tuple(taps), False
