"""Connections and datagrams, as packets have made them known."""

from __future__ import annotations

from dataclasses import dataclass

from tests.datapath.judge import End, Reading
from tests.support.packets import SCTP, TCP


@dataclass
class Flow:
    """A translated connection. `seen`: the client as its backend sees it; of_node: it is a process
    of this very node, which must receive its answers where it would have asked; of_xdp: the stack
    sees nothing of it, as long as it lives."""

    protocol: int
    client: End
    vip: End
    backend: End
    seen: End
    masqueraded: bool
    bridged: bool = False
    of_node: bool = False
    of_xdp: bool = False
    answered: bool = False
    ended: bool = False

    @property
    def firm(self) -> bool:
        """Must the programs know it? Others may have made room for new ones."""
        return self.answered and not self.ended

    @property
    def forward(self) -> tuple[int, End, End]:
        return (self.protocol, self.client, self.vip)

    @property
    def back(self) -> tuple[int, End, End]:
        return (self.protocol, self.backend, self.seen)


@dataclass(frozen=True)
class Datagram:
    """What its first fragment told: its ports, and its identification as it went on (None: that
    was not seen)."""

    source_port: int
    destination_port: int
    identification: bytes | None


def datagram_of(found: Reading) -> tuple[bytes, bytes, bytes, int]:
    """What a datagram's fragments have in common."""
    return found.source, found.destination, found.identification, found.protocol


def ends_flow(frame: bytes, found: Reading) -> bool:
    """FIN or RST; SCTP: ABORT or SHUTDOWN COMPLETE."""
    if found.transport is None:
        return False
    if found.protocol == TCP:
        return bool(frame[found.transport + 13] & 5)
    return found.protocol == SCTP and frame[found.transport + 12] in (6, 14)
