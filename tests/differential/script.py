"""Scripts: what ends, strangers and the cluster do, one step after another.

A step names connections by number and ends by their part, never by what a proxy makes of them: an
end that answers sends to whom it has heard from. So one script fits whatever the proxy has chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

CLIENT, BACKEND = "client", "backend"
NODE = "node"
"""The client that is a process of the node: a real socket (own.py)."""
ENDS = (CLIENT, BACKEND)
SEGMENTS = ("SYN", "SYN-ACK", "ACK", "data", "FIN", "RST")


@dataclass(frozen=True)
class Open:
    """A client's first packet. port: of the client; 0 for one that nobody has used. connected:
    of UDP by a process of the node, whether its socket is."""

    client: str
    target: str
    protocol: str = "TCP"
    port: int = 0
    connected: bool = True


@dataclass(frozen=True)
class Say:
    """A segment, or a datagram, of a connection; of SCTP, the chunk that has its part. large: UDP
    in fragments."""

    flow: int
    end: str
    segment: str = "data"
    large: bool = False


@dataclass(frozen=True)
class Forge:
    """The same by somebody else, who does not know where the connection's numbers are."""

    flow: int
    end: str
    segment: str


@dataclass(frozen=True)
class Complain:
    """An ICMP error about what an end was last sent: by the end, or by a router before it."""

    flow: int
    end: str
    about: str = "port"
    router: bool = False


@dataclass(frozen=True)
class Endpoints:
    service: str
    pods: tuple[str, ...]


@dataclass(frozen=True)
class Swap:
    """Two Services exchange their nodePorts."""


@dataclass(frozen=True)
class Sticky:
    """The Services keep, or do not keep, each client to its endpoint."""


@dataclass(frozen=True)
class Filter:
    """The node's filter drops, or does not drop, what a client sends through it, or what is sent to
    it."""

    whose: str


Step = Open | Say | Forge | Complain | Endpoints | Swap | Sticky | Filter
Script = tuple[Step, ...]


def handshake(client: str, target: str, flow: int = 0, port: int = 0) -> Script:
    return (
        Open(client, target, "TCP", port),
        Say(flow, BACKEND, "SYN-ACK"),
        Say(flow, CLIENT, "ACK"),
    )


def data(flow: int = 0) -> Script:
    return (Say(flow, CLIENT), Say(flow, BACKEND), Say(flow, CLIENT, "ACK"))


def farewell(flow: int = 0) -> Script:
    return (Say(flow, CLIENT, "FIN"), Say(flow, BACKEND, "FIN"), Say(flow, CLIENT, "ACK"))
