"""A pod as a client: its addresses, and its first packet to a Service."""

import struct
from dataclasses import dataclass

from ebpf_lb.model.values import Family, Protocol
from tests.datapath.kernel import Kernel, Result
from tests.datapath.node import STACK
from tests.support.packets import (
    SCTP,
    TCP,
    UDP,
    Packet,
)


@dataclass(frozen=True)
class World:
    """Addresses of one family."""

    client: str
    vip: str
    other_vip: str
    backend: str
    other_backend: str
    outside: str


WORLDS = {
    Family.IPV4: World(
        "10.244.1.2", "10.96.0.20", "10.96.0.21", "10.244.2.7", "10.244.2.8", "192.0.2.9"
    ),
    Family.IPV6: World(
        "fd00:10:244:1::2",
        "fd00:10:96::20",
        "fd00:10:96::21",
        "fd00:10:244:2::7",
        "fd00:10:244:2::8",
        "2001:db8::9",
    ),
}


PROTOCOLS = [Protocol.TCP, Protocol.UDP, Protocol.SCTP]


INIT_CHUNK = struct.pack("!BBHIIHHI", 1, 0, 20, 7, 65535, 5, 5, 9)


def first(world: World, protocol: int = TCP, port: int = 80, source_port: int = 40000) -> Packet:
    payload = {TCP: b"", UDP: b"hello", SCTP: INIT_CHUNK}[protocol]
    return Packet(world.client, world.vip, source_port, port, protocol, payload=payload)


def through(kernel: Kernel, packet: Packet | bytes) -> Result:
    """In by the pod's interface and out by it again, as the stack sends it."""
    return STACK.through(lambda name, one: kernel.run(name, one), "pod_ingress", packet)
