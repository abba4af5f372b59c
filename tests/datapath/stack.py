"""What the kernel's stack does with a packet between the hooks of a node: routes it, one hop older.

Real stacks are met in test_frames, test_layer3 and in the lab; here a packet's whole way through a
node is followed by test runs, where XDP and the stack must come to the same.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.datapath.kernel import Result
from tests.support.packets import Packet, parse

Run = Callable[[str, Packet | bytes], Result]


@dataclass(frozen=True)
class Stack:
    """`pods`: this node's networks of pods; `mac`: the uplink's; `hops`: whose MAC address the next
    hop to a network has, by network, the longest first."""

    pods: tuple[str, ...]
    mac: str
    hops: Mapping[str, str]

    def leaves_by(self, destination: str) -> str:
        """The program that runs where a packet leaves."""
        return "pod_egress" if _within(destination, self.pods) else "uplink_egress"

    def forward(self, frame: bytes) -> bytes:
        """A frame as it comes to the egress hook."""
        destination = parse(frame).destination
        macs = frame[:12]
        if self.leaves_by(destination) == "uplink_egress":
            hop = next(mac for network, mac in self.hops.items() if _within(destination, [network]))
            macs = _mac(hop) + _mac(self.mac)
        return macs + older(frame)[12:]

    def through(self, run: Run, ingress: str, sent: Packet | bytes) -> Result:
        """What a packet comes to that enters by a program: as it leaves, or as it ended before
        (hops end in the stack)."""
        frame = sent if isinstance(sent, bytes) else sent.frame()
        entered = run(ingress, sent)
        if not entered.passed or entered.frame == frame or entered.packet.ttl <= 1:
            return entered
        assert entered.packet.source == parse(frame).source, "the stack would meet a martian"
        return run(self.leaves_by(entered.packet.destination), self.forward(entered.frame))


def older(frame: bytes) -> bytes:
    """One hop older."""
    older = bytearray(frame)
    if frame[14] >> 4 == 6:
        older[21] -= 1
        return bytes(older)
    older[22] -= 1
    # as the kernel does it (RFC 1141): a wrong sum stays wrong by as much
    check = struct.unpack_from("!H", older, 24)[0] + 0x0100
    struct.pack_into("!H", older, 24, (check + (check >= 0xFFFF)) & 0xFFFF)
    return bytes(older)


def _within(address: str, networks: tuple[str, ...] | list[str]) -> bool:
    ip = ipaddress.ip_address(address)
    found = (ipaddress.ip_network(network) for network in networks)
    return any(ip in network for network in found if network.version == ip.version)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
