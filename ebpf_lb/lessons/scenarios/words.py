"""What text and drawing both say of a story."""

from ebpf_lb.lessons.scenarios.way import Change, Story, Tap, Way


def interface(story: Story, tap: Tap) -> str:
    """An interface as people know it: a node's end of a pod's wire by the pod's name, since its own
    is a number."""
    for wire in story.wires:
        if (tap.machine, tap.interface) in wire:
            [other] = [end for end in wire if end != (tap.machine, tap.interface)]
            if any(m.name == other[0] and m.kind == "pod" for m in story.machines):
                return f"veth {other[0].rpartition('/')[2]}"
    return tap.interface


def heading(way: Way) -> str:
    """`the SYN, from client to web-1`."""
    begin, end = way.taps[0].machine, way.taps[-1].machine
    if begin == end and len(way.taps) == 1:
        return f"{_packet_name(way)}, from {begin}"
    return f"{_packet_name(way)}, from {begin} to {end}"


def request(way: Way) -> str:
    """`the SYN`, of what the client sends."""
    return _packet_name(way)


def _packet_name(way: Way) -> str:
    name = way.name
    return f"the {name}" if way.towards_service else f"the answer, {_article(name)} {name}"


def _article(word: str) -> str:
    return "an" if word[0] in "AEIOR" else "a"  # an RST, an ICMP unreachable


def rewritings(story: Story, way: Way, number: int) -> tuple[Change, ...]:
    """What was rewritten before a tap, at the client's socket before the first one."""
    if number == 0 and way is story.first and story.at_socket:
        return (story.at_socket,)
    return way.changes(number)


def rewriter(story: Story, way: Way, number: int) -> str:
    """Who did it, and where that is not one of TC's hooks."""
    tap = way.taps[number]
    if number == 0:
        return f"{tap.machine} rewrites at the socket"
    if tap.on_wire or way.taps[number - 1].on_wire:
        return f"{tap.machine} rewrites at XDP"
    return f"{tap.machine} rewrites"


def translation(way: Way, change: Change) -> str:
    """DNAT, SNAT, or which of them an answer undoes: its source is what the request's destination
    was, and the other way round."""
    name = "DNAT" if (change.field == "destination") == way.towards_service else "SNAT"
    return name if way.towards_service else f"{name} undone"


def end(story: Story, way: Way) -> str:
    """Why the way ends where it does, if it did not arrive; "" if it did."""
    last = way.taps[-1]
    if way.repeats:
        return f"it came by {last.machine} again: it went round in circles, or was sent again"
    arrived = not last.outgoing and story.owner(last.packet.destination.address) == last.machine
    unheard = way is story.first and story.connection.outcome == "silent"
    if arrived and not unheard:
        return ""
    where = f"{interface(story, last)} of {last.machine}"
    if last.outgoing:
        return f"it left by {where}, and nobody saw it after that"
    return f"it came in by {where}, and nobody saw it after that: it ended in {last.machine}"


def outcome(story: Story) -> str:
    """What the client says of it."""
    connection = story.connection
    match connection.outcome:
        case "answered":
            return f"answered “{connection.text}” to “{connection.request}”"
        case "silent":
            return "no answer, the client gave up waiting"
        case "refused":
            return "refused at once"
    return f"{connection.outcome} ({connection.text})"


def remarks(story: Story) -> list[str]:
    """Sentences about what the ways do not show by themselves."""
    return [text for text in (_seen_as(story), _counted(story), _others(story)) if text]


def _seen_as(story: Story) -> str:
    """Whom the backend took for its client; "" where nobody did."""
    if story.first is None or not story.backend:
        return ""
    seen = story.first.taps[-1].packet.source
    owner, client = story.owner(seen.address), story.connection.machine
    whose = ", its own address" if owner == client else f", an address of {owner}" if owner else ""
    return f"To {story.backend} the client was {seen}{whose}."


def _counted(story: Story) -> str:
    """What the programs of the machine where the packet ended have counted meanwhile."""
    way = story.answer or story.first
    if way is None or not end(story, way):
        return ""
    machine = way.taps[-1].machine
    counted = [c for c in story.drops if c.machine == machine]
    told = ", ".join(f"{c.reason} ({c.sentence})" for c in counted)
    return f"The programs of {machine} counted meanwhile: {told}." if told else ""


def _others(story: Story) -> str:
    """What is not drawn."""
    count, strays = len(story.others), len(story.strays)
    if not count:
        return ""
    packets = f"{count} more packet{'s' if count > 1 else ''} of this connection"
    if not strays:
        return f"{packets} went the same ways and were rewritten alike."
    return f"{packets}, {strays} of them by another way."
