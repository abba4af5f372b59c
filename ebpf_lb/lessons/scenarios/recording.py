"""What was captured of a connection, where, and what the client says of it: all that a drawing is
made from. A recording can be kept as JSON."""

from dataclasses import asdict, dataclass
from typing import Any, Self

from ebpf_lb.lessons.scenarios.frames import Endpoint


@dataclass(frozen=True, slots=True)
class Machine:
    """Something with a network namespace. kind: client, router, node or pod; node: a pod's."""

    name: str
    kind: str
    addresses: tuple[str, ...] = ()
    node: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame at a machine's interface. outgoing: seen as it left (after the egress programs of
    TC), else as it came (before those of ingress). other_host: its MAC address was not this
    interface's. number: its place among all frames of the machine, in the order of its taps."""

    machine: str
    interface: str
    outgoing: bool
    other_host: bool
    time_ns: int
    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Sight:
    """A packet in a machine's own network stack, from its IP header on. hook: netfilter's name of
    the place, prerouting or postrouting."""

    machine: str
    hook: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Connection:
    """What the client did. outcome: answered, refused, silent (nothing in time), unreachable or
    broken; text: the answer."""

    protocol: str  # TCP, UDP or SCTP
    machine: str
    source_port: int
    asked: Endpoint
    request: str
    outcome: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Drop:
    """Packets that a node's programs dropped or refused meanwhile, as they counted them themselves:
    the reason's name in bpf/ground/reason.h, and its sentence."""

    machine: str
    reason: str
    sentence: str
    packets: int


@dataclass(frozen=True, slots=True)
class Recording:
    """wires: pairs of (machine, interface) that are the two ends of one wire. stack: what the
    nodes' stacks saw, in their order; None where nobody looked."""

    connection: Connection
    machines: tuple[Machine, ...]
    wires: tuple[tuple[tuple[str, str], tuple[str, str]], ...]
    frames: tuple[Frame, ...]
    drops: tuple[Drop, ...] = ()
    stack: tuple[Sight, ...] | None = None

    def other_end(self, machine: str, interface: str) -> tuple[str, str] | None:
        for wire in self.wires:
            if (machine, interface) in wire:
                return wire[1] if wire[0] == (machine, interface) else wire[0]
        return None

    def to_json(self) -> dict[str, Any]:
        frames = [{**asdict(frame), "data": frame.data.hex()} for frame in self.frames]
        stack = [{**asdict(sight), "data": sight.data.hex()} for sight in self.stack or ()]
        return {
            **asdict(self), "frames": frames, "stack": None if self.stack is None else stack
        }  # fmt: skip

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        asked = Endpoint(**stored["connection"]["asked"])
        machines = ({**m, "addresses": tuple(m["addresses"])} for m in stored["machines"])
        return cls(
            Connection(**{**stored["connection"], "asked": asked}),
            tuple(Machine(**machine) for machine in machines),
            tuple(((a[0], a[1]), (b[0], b[1])) for a, b in stored["wires"]),
            tuple(
                Frame(**{**frame, "data": bytes.fromhex(frame["data"])})
                for frame in stored["frames"]
            ),
            tuple(Drop(**drop) for drop in stored["drops"]),
            None
            if (stack := stored.get("stack")) is None
            else tuple(Sight(**{**each, "data": bytes.fromhex(each["data"])}) for each in stack),
        )
