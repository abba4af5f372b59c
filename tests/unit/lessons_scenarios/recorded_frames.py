"""Recordings: real ones, kept as data, and made ones, hop by hop."""

import json
from pathlib import Path
from typing import Any

from ebpf_lb.lessons.scenarios.frames import Endpoint
from ebpf_lb.lessons.scenarios.recording import Connection, Frame, Machine, Recording
from tests.support.packets import Packet

_FOLDER = Path(__file__).with_name("recorded")

MACHINES = (
    Machine("client", "client", ("172.31.0.2",)),
    Machine("router", "router", ("172.30.0.1", "172.31.0.1")),
    Machine("node1", "node", ("172.30.0.11", "10.244.1.1")),
    Machine("node2", "node", ("172.30.0.12", "10.244.2.1")),
    Machine("web-1", "pod", ("10.244.1.2",), "node1"),
    Machine("web-2", "pod", ("10.244.1.3",), "node1"),
)
WIRES = (
    (("client", "eth0"), ("router", "client1")),
    (("node1", "eth0"), ("router", "node1")),
    (("node2", "eth0"), ("router", "node2")),
    (("web-1", "eth0"), ("node1", "veth1")),
    (("web-2", "eth0"), ("node1", "veth2")),
)


def recorded(name: str) -> Recording:
    """A lab's, without most of the frames of other connections."""
    return Recording.from_json(json.loads((_FOLDER / f"{name}.json").read_text()))


class Made:
    """A recording in the making: `at` adds a frame, a nanosecond after the last."""

    def __init__(self, asked: str, source_port: int = 40000, **connection: Any):
        address, _, port = asked.rpartition(":")
        self._connection = Connection(
            **{
                "protocol": "TCP",
                "machine": "client",
                "source_port": source_port,
                "asked": Endpoint(address, int(port)),
                "request": "hostname",
                "outcome": "silent",
                **connection,
            }
        )
        self._frames: list[Frame] = []

    def at(self, place: str, packet: Packet | bytes, *, other_host: bool = False) -> None:
        """place: `MACHINE INTERFACE in|out`."""
        machine, interface, direction = place.split()
        data = packet if isinstance(packet, bytes) else packet.frame()
        number = len(self._frames)
        self._frames.append(
            Frame(machine, interface, direction == "out", other_host, number, number, data)
        )

    def recording(self, **changes: Any) -> Recording:
        parts: dict[str, Any] = {
            "connection": self._connection,
            "machines": MACHINES,
            "wires": WIRES,
            "frames": tuple(self._frames),
        }
        return Recording(**{**parts, **changes})


def syn(source: str, destination: str, **fields: Any) -> Packet:
    """From ADDRESS:PORT to ADDRESS:PORT."""
    ends = [end.rpartition(":") for end in (source, destination)]
    return Packet(
        ends[0][0],
        ends[1][0],
        source_port=int(ends[0][2]),
        destination_port=int(ends[1][2]),
        **{"sequence": 7000, **fields},
    )
