"""A node with an uplink and a tunnel whose packets have no Ethernet header, for real packets: the
kernel's test runs know frames only.

The tunnel is a tun device, so what leaves by it is read from its descriptor, and what is written
there comes in; at the other end of the uplink's wire is a raw socket.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ebpf_lb.datapath.attach.tc import TrafficControl
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.lab import namespaces
from ebpf_lb.lab.tun import open_tun
from ebpf_lb.model.values import Family, parse_address
from tests.datapath import wires
from tests.datapath.kernel import LOOPBACK, Kernel
from tests.datapath.test_node import (
    GATEWAY_SOURCE,
    OTHER_NODE_MAC,
    POD_GATEWAY_MAC,
    POD_MAC,
    ROUTER_MAC,
    TUNNEL_SOURCE,
    UPLINK_MAC,
    WORLDS,
    World,
)
from tests.support.packets import ICMPV6, Packet, parse

TUNNEL, UPLINK, POD = "tunnel", "uplink", "pod"
MTU = 1400
"""What the tunnel takes."""
_ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
_PATIENCE_S, _SILENCE_S = 30.0, 0.15

# a client beyond the tunnel, and what the node calls itself there
BEYOND = {Family.IPV4: "198.51.100.5", Family.IPV6: "2001:db8:51::5"}


def _commands(world: World, family: Family) -> Iterator[str]:
    bits, prefix = (32, 24) if family is Family.IPV4 else (128, 64)
    nodad = "" if family is Family.IPV4 else "nodad"
    yield f"addr add {world.node}/{prefix} dev up0 {nodad}"
    yield f"addr add {world.tunnel}/{bits} dev tun0 {nodad}"
    yield f"addr add {world.gateway}/{bits} dev pod0 {nodad}"
    for address, mac, device in (
        (world.router, ROUTER_MAC, "up0"),
        (world.other_node, OTHER_NODE_MAC, "up0"),
        (world.pod, POD_MAC, "pod0"),
    ):
        yield f"neigh add {address} lladdr {mac} dev {device}"
    yield f"route add default via {world.router} dev up0"
    yield f"route add {world.routed_pod}/{bits} via {world.other_node} dev up0"
    yield f"route add {world.far_pod}/{bits} dev tun0"
    yield f"route add {BEYOND[family]}/{bits} dev tun0"
    yield f"route add {world.pod}/{bits} dev pod0"


@dataclass(frozen=True)
class Node:
    """Its namespace, and where its packets come out: by the name of the interface."""

    place: wires.Namespace
    tun: int
    ends: dict[str, socket.socket]

    def by(
        self, interface: str, packet: Packet | bytes, expected: int = 1
    ) -> list[tuple[str, Packet]]:
        """What a packet that comes in there comes to: what leaves, and where."""
        found = self.frames_by(interface, packet, expected=expected)
        return [(where, parse(frame)) for where, frame in found]

    def frames_by(
        self, interface: str, *packets: Packet | bytes, expected: int
    ) -> list[tuple[str, bytes]]:
        """Likewise of several, of which so many are waited for, and then a while for more."""
        self.forget()
        for packet in packets:
            frame = packet if isinstance(packet, bytes) else packet.frame()
            if interface == TUNNEL:
                os.write(self.tun, frame[14:])
            else:
                mac = UPLINK_MAC if interface == UPLINK else POD_GATEWAY_MAC
                self.ends[interface].send(bytes.fromhex(mac.replace(":", "")) + frame[6:])
        return self.leaving(expected)

    def forget(self) -> None:
        """What has left so far is nobody's."""
        self._collect(0, 0)

    def leaving(self, expected: int) -> list[tuple[str, bytes]]:
        """What leaves: frames, with an empty header from the tunnel. What the kernel says by itself
        to its neighbours is left out."""
        return self._collect(expected, _SILENCE_S)

    def _collect(self, expected: int, silence_s: float) -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = []
        names: dict[object, str] = {self.tun: TUNNEL} | {s: n for n, s in self.ends.items()}
        end = time.monotonic() + _PATIENCE_S
        while (left := end - time.monotonic()) > 0:
            wait = left if len(found) < expected else silence_s
            ready, _, _ = select.select(list(names), [], [], wait)
            if not ready:
                break
            for one in ready:
                frame = self._read(one)
                if frame is not None and not _is_chatter(frame):
                    found.append((names[one], frame))
        return found

    def _read(self, end: object) -> bytes | None:
        if isinstance(end, socket.socket):
            frame, address = end.recvfrom(65536)
            return None if address[2] == socket.PACKET_OUTGOING else frame
        packet = os.read(self.tun, 65536)
        return bytes(12) + _ETHERTYPES[packet[0] >> 4] + packet

    def socket(self, address: str, kind: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with namespaces.entered(self.place.path):
            made = socket.socket(family, kind)
        if kind == socket.SOCK_STREAM:  # ends by a RST: a FIN would be said again in the next test
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        made.settimeout(_PATIENCE_S)
        return made


def _is_chatter(frame: bytes) -> bool:
    kind = struct.unpack_from("!H", frame, 12)[0]
    if kind not in (0x0800, 0x86DD):
        return True
    if kind == 0x86DD and frame[20] in (0, ICMPV6):  # multicast listeners, neighbours
        packet = parse(frame)
        return packet.protocol == ICMPV6 and packet.payload[0] >= 130
    return False


@contextmanager
def node(root: Path) -> Iterator[Node]:
    """`root`: where the programs are pinned."""
    with wires.network("l3", "l3-wire") as (place, wire):
        for name, mac in (("up0", UPLINK_MAC), ("pod0", POD_GATEWAY_MAC)):
            place.ip(f"link add {name} address {mac} type veth peer {name} netns {wire.name}")
        wire.sysctl(net__ipv6__conf__all__disable_ipv6=1)
        wire.ip("link set up0 up", "link set pod0 up")
        with namespaces.entered(place.path):
            tun = open_tun("tun0")
        place.ip("link set up0 up", "link set pod0 up", f"link set tun0 mtu {MTU} up")
        place.sysctl(
            net__ipv4__ip_forward=1,
            net__ipv4__conf__all__rp_filter=1,
            net__ipv4__conf__lo__accept_local=1,
            net__ipv6__conf__all__forwarding=1,
        )
        for family, world in WORLDS.items():
            place.ip(*_commands(world, family))
        with namespaces.entered(place.path), TrafficControl() as control:
            for role, name in (("uplink", "up0"), ("l3", "tun0"), ("loopback", "lo")):
                control.use(Pins(root).current, role)
                assert control.attach(place.ifindex(name), role)
        ends = {}
        with namespaces.entered(wire.path):
            for end, name in ((UPLINK, "up0"), (POD, "pod0")):
                ends[end] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
                ends[end].bind((name, 3))
        try:
            yield Node(place, tun, ends)
        finally:
            for one in ends.values():
                one.close()
            os.close(tun)


def set_up(kernel: Kernel, node: Node, world: World) -> None:
    """What the agent writes about the interfaces."""
    kernel.writer.set_snat_source(TUNNEL_SOURCE, parse_address(world.tunnel))
    kernel.writer.set_snat_source(GATEWAY_SOURCE, parse_address(world.gateway))
    kernel.writer.set_interface(node.place.ifindex("up0"), 0, 1)
    kernel.writer.set_interface(node.place.ifindex("tun0"), 0, TUNNEL_SOURCE)
    kernel.writer.set_interface(node.place.ifindex("pod0"), 0, GATEWAY_SOURCE)
    kernel.writer.set_interface(LOOPBACK, 0, 0)
