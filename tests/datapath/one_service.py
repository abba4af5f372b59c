"""A NodePort with a client outside, and connections through it, packet by packet."""

from __future__ import annotations

from dataclasses import dataclass

from ebpf_lb.model.values import Protocol
from ebpf_lb.plan.forwarding import FrontendKind
from tests.datapath.kernel import Kernel, Result
from tests.datapath.node import STACK, World
from tests.datapath.words import (
    state_of,
)
from tests.support.packets import ACK, SCTP, TCP, UDP, Packet

INIT, INIT_ACK, COOKIE_ECHO, COOKIE_ACK, SCTP_DATA, ABORT = (
    bytes([kind, 0, 0, 4]) for kind in (1, 2, 10, 11, 0, 6)
)


@dataclass
class Service:
    """A NodePort whose backend is at first one, then perhaps another; its client is outside.

    masqueraded: the backends are on another node.
    """

    kernel: Kernel
    ifindex: int
    world: World
    masqueraded: bool
    protocol: Protocol

    def __post_init__(self) -> None:
        self.serve(1)

    def backend(self, number: int) -> str:
        base = self.world.remote_pod if self.masqueraded else self.world.local_pod
        head, separator = base[: base.rfind(":" if ":" in base else ".") + 1], number + 6
        return f"{head}{separator}"

    def serve(self, *numbers: int, name: str = "web", port: int = 30080) -> None:
        """From now on the Service has these backends."""
        backends = [(self.backend(number), 80) for number in numbers]
        self.kernel.service(
            self.world.node,
            port,
            backends if self.masqueraded else [],
            local=[] if self.masqueraded else backends,
            protocol=self.protocol,
            kind=FrontendKind.NODE_PORT,
            name=name,
        )

    def client(self, port: int = 40000, **fields: object) -> Packet:
        payload = {TCP: b"", UDP: b"question", SCTP: INIT}[self.protocol]
        packet = Packet(
            self.world.client, self.world.node, port, 30080, self.protocol, payload=payload
        )
        return packet.but(**fields)

    def ask(self, packet: Packet) -> Result:
        return STACK.through(self._run, "uplink_ingress", packet)

    def _run(self, name: str, packet: Packet | bytes) -> Result:
        return self.kernel.run(name, packet, self.ifindex)

    def answer(self, packet: Packet) -> Result:
        """`packet` is the backend's."""
        if self.masqueraded:
            return STACK.through(self._run, "uplink_ingress", packet)
        return self._run("uplink_egress", packet)

    def established(self, port: int = 40000) -> Connection:
        """A connection whose ends have shown that they talk."""
        began = self.client(port)
        there = self.ask(began)
        connection = Connection(self, began, there.packet)
        if self.protocol == TCP:
            self.answer(there.packet.reply())
            connection.there(flags=ACK, acknowledged=began.sequence + 1)
        elif self.protocol == UDP:
            connection.back()
            connection.there()
            connection.back()
        else:
            connection.back(payload=INIT_ACK)
            connection.there(payload=COOKIE_ECHO)
            connection.back(payload=COOKIE_ACK)
        return connection

    def states(self) -> set[int]:
        return {state_of(word) for word, _ in self.kernel.flows()}

    @property
    def state(self) -> int:
        """Of the only flow, which its signpost has as well."""
        (state,) = self.states()
        return state


@dataclass
class Connection:
    """`began`: the client's first packet; `first`: as the backend got it."""

    service: Service
    began: Packet
    first: Packet

    def _fields(self, fields: dict[str, object]) -> dict[str, object]:
        default: dict[str, object] = {} if self.began.protocol == UDP else {"flags": ACK}
        if self.began.protocol == SCTP:
            default["payload"] = SCTP_DATA
        return default | fields

    def there(self, **fields: object) -> Result:
        return self.service.ask(self.began.but(**self._fields(fields)))

    def back(self, **fields: object) -> Result:
        return self.service.answer(self.first.reply(**self._fields(fields)))

    @property
    def lives(self) -> bool:
        """With the backend that it began with, seen from there as it began."""
        there = self.there()
        back = self.back()
        ends = (there.packet.source, there.packet.source_port, there.packet.destination)
        return (
            not there.dropped
            and ends == (self.first.source, self.first.source_port, self.first.destination)
            and back.packet.source == self.began.destination
            and (back.packet.destination, back.packet.destination_port)
            == (self.began.source, self.began.source_port)
        )
