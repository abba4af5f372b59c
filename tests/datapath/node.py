"""A node for packet tests: a network namespace with its interfaces, routes and neighbours.

What a program asks the kernel for (routes, neighbours, sockets) it asks in the namespace that the
test run is made in, so the whole process enters it.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ebpf_lb.model.values import Family, Protocol
from ebpf_lb.plan.forwarding import FrontendKind
from tests.datapath.kernel import NODE, Kernel
from tests.datapath.stack import Stack
from tests.support.packets import GATEWAY_MAC

_CLONE_NEWNET = 0x40000000
NODE_MAC = GATEWAY_MAC.hex(":")  # to which the packets of tests are sent
ROUTER_MAC, NODE2_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


@dataclass(frozen=True)
class World:
    """Addresses. Pods whose address is not this node's are behind node 2, clients behind the
    router; both are neighbours on the uplink."""

    node: str
    client: str
    other_pod: str
    local_pod: str
    remote_pod: str


WORLDS = {
    Family.IPV4: World(NODE[Family.IPV4], "192.0.2.9", "10.244.3.5", "10.244.1.2", "10.244.2.7"),
    Family.IPV6: World(
        NODE[Family.IPV6],
        "2001:db8::9",
        "fd00:10:244:3::5",
        "fd00:10:244:1::2",
        "fd00:10:244:2::7",
    ),
}


STACK = Stack(
    ("10.244.1.0/24", "fd00:10:244:1::/64"),
    NODE_MAC,
    {
        "10.244.2.0/24": NODE2_MAC,
        "fd00:10:244:2::/64": NODE2_MAC,
        "0.0.0.0/0": ROUTER_MAC,
        "::/0": ROUTER_MAC,
    },
)
"""What `entered_node` has as routes and neighbours."""


@contextmanager
def entered_node() -> Iterator[int]:
    """Yields the ifindex of `up0`, the uplink (its other end: peer0; the pods' bridge: cni0)."""
    name = f"ebpf-lb-uplink-{os.getpid()}"
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)

    def ip(*words: str) -> None:
        subprocess.run(["ip", "-n", name, *words], check=True)

    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        ip("link", "set", "lo", "up")
        ip("link", "add", "up0", "type", "veth", "peer", "name", "peer0")
        ip("link", "set", "up0", "address", NODE_MAC, "up")
        ip("link", "set", "peer0", "up")
        ip("link", "add", "cni0", "type", "bridge")
        ip("link", "set", "cni0", "up")
        for address in (f"{NODE[Family.IPV4]}/24", f"{NODE[Family.IPV6]}/64"):
            ip("addr", "add", address, "dev", "up0", *(["nodad"] if ":" in address else []))
        for hop, mac in (("1", ROUTER_MAC), ("12", NODE2_MAC)):
            ip("neigh", "add", f"172.30.0.{hop}", "lladdr", mac, "dev", "up0")
            ip("neigh", "add", f"fd30::{hop}", "lladdr", mac, "dev", "up0")
        ip("route", "add", "default", "via", "172.30.0.1")
        ip("route", "add", "10.244.2.0/24", "via", "172.30.0.12")
        ip("route", "add", "10.244.1.0/24", "dev", "cni0")
        ip("-6", "route", "add", "default", "via", "fd30::1")
        ip("-6", "route", "add", "fd00:10:244:2::/64", "via", "fd30::12")
        ip("-6", "route", "add", "fd00:10:244:1::/64", "dev", "cni0")
        place = os.open(f"/run/netns/{name}", os.O_RDONLY)
        assert libc.setns(place, _CLONE_NEWNET) == 0
        os.close(place)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        yield socket.if_nametoindex("up0")
    finally:
        assert libc.setns(home, _CLONE_NEWNET) == 0
        os.close(home)
        subprocess.run(["ip", "netns", "del", name], check=True)


def serve_at_node_port(kernel: Kernel, world: World, protocol: int = socket.IPPROTO_TCP) -> None:
    """NodePort 30080 with one backend, on another node: what is sent there is masqueraded."""
    kernel.service(
        world.node,
        30080,
        [(world.remote_pod, 80)],
        kind=FrontendKind.NODE_PORT,
        protocol=Protocol(protocol),
    )


@contextmanager
def own_socket(world: World, protocol: int, port: int, to_port: int = 80) -> Iterator[None]:
    """A connection of the node's own to the pod of another node, begun at least."""
    family = socket.AF_INET6 if ":" in world.node else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == socket.IPPROTO_TCP else socket.SOCK_DGRAM
    with socket.socket(family, kind) as own:
        own.setblocking(False)
        own.bind((world.node, port))
        with suppress(BlockingIOError):
            own.connect((world.remote_pod, to_port))
        yield
