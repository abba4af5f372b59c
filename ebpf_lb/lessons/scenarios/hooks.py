"""Which hook rewrote an address: as far as the captured packets tell, and no further."""

from ebpf_lb.lessons.scenarios import words
from ebpf_lb.lessons.scenarios.frames import Endpoint, Packet
from ebpf_lb.lessons.scenarios.way import Change, Story, Way

_UNKNOWN = ""


def hook(story: Story, way: Way, number: int, change: Change) -> str:
    """Who did what changed before the tap of this number: `at TC egress of eth0`. "" if unknown."""
    if number == 0:
        return "at the socket, by connect()"
    before, after = way.taps[number - 1], way.taps[number]
    if before.on_wire or after.on_wire:
        return f"at XDP of {words.interface(story, before)}"
    ingress = f"at TC ingress of {words.interface(story, before)}"
    egress = f"at TC egress of {words.interface(story, after)}"
    if not before.outgoing and not after.outgoing:
        return ingress  # from a bridge's port to the bridge: no other hook is in between
    if before.outgoing:
        return egress
    if way.stack is None:
        return _UNKNOWN
    inside = [(at, packet) for machine, at, packet in way.stack if machine == after.machine]
    if not inside:
        return f"{ingress}, past the stack"
    at_first = _field(inside[0][1], change.field)
    at_last = _field(inside[-1][1], change.field)
    if inside[0][0] == "prerouting" and at_first != change.before:
        return ingress
    if at_last != change.before:
        return "by the kernel's netfilter"
    return egress if inside[-1][0] == "postrouting" else _UNKNOWN


def _field(packet: Packet, field: str) -> Endpoint:
    return packet.source if field == "source" else packet.destination
