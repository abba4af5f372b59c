"""A node between made-up neighbours: its pods, the router and another node are all this process.

The node is a network namespace like any other, with a real stack; what its interfaces lead to is a
second namespace without addresses, where raw sockets send and hear. So every packet that the node
lets out is seen, whoever it is for, and nobody answers but the script.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ebpf_lb.lab import firewall, namespaces
from ebpf_lb.model.values import Family
from tests.datapath.wires import Namespace, cgroup
from tests.differential.own import Make, OwnSocket, process
from tests.support.packets import UDP, Packet, parse

PATIENCE_S = 30
_PACKET_IGNORE_OUTGOING, _SOL_PACKET = 23, 263
_MARK = b"nothing of what was sent before is still under way"


@dataclass(frozen=True)
class Addresses:
    """Of one family. `pods` run on the node, `far_pods` on node2, one of them in its host network;
    both clients are behind the router."""

    node: str
    router: str
    node2: str
    pods: dict[str, str]
    far_pods: dict[str, str]
    clients: dict[str, str]
    gateway: str
    pod_network: str
    """This node's."""
    cluster_network: str
    """All pods'."""
    service_network: str
    unused_ip: str
    """Of the service network, and no Service's."""
    cluster_ips: tuple[str, ...]
    balancers: tuple[str, ...]
    externals: tuple[str, ...]
    """Of the Services, in their order."""

    def of(self, name: str) -> str:
        return (self.pods | self.far_pods | self.clients)[name]

    def behind(self, name: str) -> str:
        """Which neighbour of the node somebody's packets come from."""
        if name in self.pods:
            return name
        return "node2" if name in self.far_pods else "router"


WORLD = {
    Family.IPV4: Addresses(
        "172.30.0.11",
        "172.30.0.1",
        "172.30.0.12",
        {"pod1": "10.244.1.2", "pod2": "10.244.1.3"},
        {"far1": "10.244.2.7", "far2": "10.244.2.8", "host2": "172.30.0.12"},
        {"client1": "192.0.2.9", "client2": "198.51.100.9"},
        "10.244.1.1",
        "10.244.1.0/24",
        "10.244.0.0/16",
        "10.96.0.0/16",
        "10.96.7.7",
        ("10.96.0.10", "10.96.0.11", "10.96.0.12"),
        ("203.0.113.10", "203.0.113.11"),
        ("203.0.113.20", "203.0.113.21"),
    ),
    Family.IPV6: Addresses(
        "fd30::11",
        "fd30::1",
        "fd30::12",
        {"pod1": "fd00:10:244:1::2", "pod2": "fd00:10:244:1::3"},
        {"far1": "fd00:10:244:2::7", "far2": "fd00:10:244:2::8", "host2": "fd30::12"},
        {"client1": "2001:db8:2::9", "client2": "2001:db8:51::9"},
        "fd00:10:244:1::1",
        "fd00:10:244:1::/64",
        "fd00:10:244::/48",
        "fd00:10:96::/112",
        "fd00:10:96::7777",
        ("fd00:10:96::10", "fd00:10:96::11", "fd00:10:96::12"),
        ("2001:db8:113::10", "2001:db8:113::11"),
        ("2001:db8:113::20", "2001:db8:113::21"),
    ),
}
PLACES = ("pod1", "pod2", "uplink")
UPLINK, BRIDGE = "eth0", "cni0"
NEIGHBOURS = {"router": "02:00:00:00:00:01", "node2": "02:00:00:00:00:02"}
_MACS = {"pod1": "02:00:00:00:01:02", "pod2": "02:00:00:00:01:03"}
_BRIDGE_MAC = "02:00:00:00:0a:0b"
_NODE_MACS = {
    "pod1": "02:00:00:00:0a:02",
    "pod2": "02:00:00:00:0a:03",
    "uplink": "02:00:00:00:0a:00",
}
_NODE = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv4/conf/all/send_redirects": 0,
    "net/ipv4/conf/default/send_redirects": 0,
    "net/ipv4/conf/all/rp_filter": 1,
    "net/ipv4/conf/default/rp_filter": 1,
    # what the stack says by ICMP it says each time, so that how fast a script runs decides nothing
    "net/ipv4/icmp_ratelimit": 0,
    "net/ipv6/icmp/ratelimit": 0,
    # duplicate addresses are not looked for, and routers are not asked
    "net/ipv6/conf/all/accept_dad": 0,
    "net/ipv6/conf/default/accept_dad": 0,
    "net/ipv6/conf/all/accept_ra": 0,
    "net/ipv6/conf/default/accept_ra": 0,
}
_NETFILTER_ON_BRIDGES = {
    f"net/bridge/bridge-nf-call-{table}": 1 for table in ("iptables", "ip6tables")
}


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def load_rules(rules: str) -> None:
    """nftables' rules, into this thread's network namespace."""
    done = subprocess.run(["nft", "-f", "-"], input=rules, capture_output=True, text=True)
    assert not done.returncode, f"{done.stderr}\n{rules}"


class Wire:
    """The node's namespace, and sockets at all that it is connected to. group: its processes'
    cgroup. make: a socket of one of them."""

    def __init__(
        self, node: Namespace, hands: Namespace, group: Path, make: Make, *, bridged: bool = False
    ) -> None:
        self.node, self.group, self.make = node, group, make
        self.bridged = bridged
        self._ears = {}
        with namespaces.entered(hands.path):
            for place in PLACES:
                ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
                ear.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
                ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                ear.bind((place, 3))
                ear.setblocking(False)
                self._ears[place] = ear
        self._number = 0
        self._dropped: frozenset[str] = frozenset()
        self._own: list[OwnSocket] = []

    def own_socket(self, protocol: int, destination: tuple[str, int], connected: bool) -> OwnSocket:
        """Of a process of the node; not connected yet."""
        self._own.append(OwnSocket(self.make, protocol, destination, connected))
        return self._own[-1]

    def close_sockets(self) -> None:
        """All of the node's own, and nothing more is heard of them."""
        for each in self._own:
            each.close()
        if self._own:
            self.quiet()
        self._own.clear()

    def close(self) -> None:
        self.close_sockets()
        for ear in self._ears.values():
            ear.close()

    def send(self, place: str, packet: Packet | bytes) -> list[tuple[str, bytes]]:
        """What the node makes of a packet that comes from this neighbour: whom each frame is for,
        and the frame."""
        frame = packet.frame() if isinstance(packet, Packet) else packet
        port = "uplink" if place in NEIGHBOURS else place
        source = {**_MACS, **NEIGHBOURS}[place]
        self._ears[port].send(mac(self._next_hop(port, frame)) + mac(source) + frame[12:])
        return self._settle()

    def _next_hop(self, port: str, frame: bytes) -> str:
        """Pods on a bridge send to each other straight; else it is the node."""
        if not self.bridged:
            return _NODE_MACS[port]
        if port == "uplink":
            return _NODE_MACS[port]
        to = parse(frame).destination
        others = (each.pods for each in WORLD.values())
        hops = [_MACS[pod] for pods in others for pod, ip in pods.items() if ip == to]
        return hops[0] if hops else _BRIDGE_MAC

    def drop(self, sources: frozenset[str]) -> None:
        """The node's filter drops what these send through it by TCP, and nothing else."""
        if sources == self._dropped:
            return
        rules = "".join(
            f"{'ip6' if ':' in source else 'ip'} saddr {source} meta l4proto tcp drop\n"
            for source in sorted(sources)
        )
        with namespaces.entered(self.node.path):
            load_rules(
                "table inet careful { }\nflush table inet careful\ntable inet careful {\n"
                "chain forward { type filter hook forward priority filter;\n" + rules + "}\n}\n"
            )
        self._dropped = sources

    def quiet(self) -> list[tuple[str, bytes]]:
        """What the node sends of its own accord."""
        return self._settle()

    def _settle(self) -> list[tuple[str, bytes]]:
        """All packets wait in one CPU's queue, so what comes after the others has them before it;
        twice, for what those have set off."""
        heard: list[tuple[str, bytes]] = []
        for _ in range(2):
            self._number += 1
            mark = _MARK + struct.pack("!I", self._number)
            of = WORLD[Family.IPV4]
            frame = Packet(of.pods["pod1"], of.pods["pod2"], 9, 9, UDP, payload=mark).frame()
            hop = self._next_hop("pod1", frame)
            self._ears["pod1"].send(mac(hop) + mac(_MACS["pod1"]) + frame[12:])
            self._hear_until(mark, heard)
        return heard

    def _hear_until(self, mark: bytes, heard: list[tuple[str, bytes]]) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            found = False
            for place, ear in self._ears.items():
                for frame in _drained(ear):
                    if frame.endswith(mark):
                        found = True
                    elif _is_spoken_of(frame) and (whom := _whom(place, frame)):
                        heard.append((whom, frame))
            if found:
                # what another socket got before the mark came is there by now
                for place, ear in self._ears.items():
                    heard += [
                        (whom, frame)
                        for frame in _drained(ear)
                        if _is_spoken_of(frame) and (whom := _whom(place, frame))
                    ]
                return
            select.select(list(self._ears.values()), (), (), 1)
        raise AssertionError("the node forwards nothing")


def _drained(ear: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield ear.recv(65536)
        except BlockingIOError:
            return


def _whom(place: str, frame: bytes) -> str:
    if place != "uplink":
        return place if frame[:6] == mac(_MACS[place]) else ""
    return next((name for name, each in NEIGHBOURS.items() if frame[:6] == mac(each)), "")


def _is_spoken_of(frame: bytes) -> bool:
    """Neighbour discovery and the like are not."""
    if frame[12:14] == b"\x08\x00":
        return frame[23] != 2  # IGMP
    if frame[12:14] != b"\x86\xdd":
        return False
    return not (frame[20] == 58 and 130 <= frame[54] <= 137) and frame[20] != 0


@contextmanager
def wired(name: str, *, filtered: bool = True, bridged: bool = False) -> Iterator[Wire]:
    """A node and all that is around it, gone afterwards. filtered: the node drops what the kernel's
    connection tracking calls invalid. bridged: pods are on a bridge, and netfilter
    sees what that forwards."""
    node, hands = Namespace(f"{name}-node"), Namespace(f"{name}-hands")
    try:
        for one in (node, hands):
            namespaces.remove(one.path)
            namespaces.create(one.path)
        with namespaces.entered(hands.path):
            namespaces.set_sysctls({"net/ipv6/conf/default/disable_ipv6": 1})
        with namespaces.entered(node.path):
            namespaces.set_sysctls(_NODE)
        node.ip("link set lo up", *_links(hands, bridged), *_addresses(bridged))
        if bridged:
            with namespaces.entered(node.path):
                namespaces.set_sysctls(_NETFILTER_ON_BRIDGES)
        hands.ip(*(f"link set {place} arp off up" for place in PLACES))
        for place in PLACES:  # what the node says itself has its checksum before it is heard
            node.offload(_own(place), tx=False)
        with namespaces.entered(node.path):
            firewall.install(tuple(Family))
            load_rules("".join(map(_host_port, Family)))
            if not filtered:
                load_rules("flush chain inet cni forward")
        with cgroup(f"{name}-node") as group, process(node, group) as make:
            wire = Wire(node, hands, group, make, bridged=bridged)
            try:
                yield wire
            finally:
                wire.close()
    finally:
        for one in (node, hands):
            namespaces.remove(one.path)


def _host_port(family: Family) -> str:
    """A third NAT: as a CNI's portmap plugin has it."""
    ip, of = "ip6" if family is Family.IPV6 else "ip", WORLD[family]
    to = f"[{of.pods['pod1']}]" if family is Family.IPV6 else of.pods["pod1"]
    return (
        f"table {ip} portmap {{ chain prerouting {{ type nat hook prerouting priority -90;\n"
        f"{ip} daddr {of.node} meta l4proto {{ tcp, udp }} th dport 8500 dnat to {to}:8080\n"
        "}\n}\n"
    )


def _own(place: str) -> str:
    """The node's end."""
    return UPLINK if place == "uplink" else f"veth{place}"


def _links(hands: Namespace, bridged: bool) -> Iterator[str]:
    if bridged:
        yield f"link add {BRIDGE} address {_BRIDGE_MAC} type bridge mcast_snooping 0"
        yield f"link set {BRIDGE} up"
    for place in PLACES:
        own = _own(place)
        yield f"link add {own} type veth peer name {place} netns {hands.name}"
        yield f"link set {own} address {_NODE_MACS[place]} up"
        if bridged and place != "uplink":
            yield f"link set {own} master {BRIDGE}"
            # as CNIs have it: a pod may ask itself by a Service
            yield f"link set {own} type bridge_slave hairpin on"


def _addresses(bridged: bool) -> Iterator[str]:
    for family in Family:
        of = WORLD[family]
        nodad = "nodad" if family is Family.IPV6 else ""
        everybody = "::/0" if family is Family.IPV6 else "0.0.0.0/0"
        length = 64 if family is Family.IPV6 else 24
        yield f"addr add {of.node}/{length} dev {UPLINK} {nodad}"
        for hop, name in ((of.router, "router"), (of.node2, "node2")):
            yield f"neigh add {hop} lladdr {NEIGHBOURS[name]} dev {UPLINK} nud permanent"
        yield f"route add {everybody} via {of.router}"
        yield f"route add {_second(of.pod_network)} via {of.node2}"
        if bridged:
            yield f"addr add {of.gateway}/{of.pod_network.partition('/')[2]} dev {BRIDGE} {nodad}"
        for pod, address in of.pods.items():
            own = BRIDGE if bridged else f"veth{pod}"
            if not bridged:
                yield f"addr add {of.gateway} dev {own} {nodad}"
                yield f"route add {address} dev {own}"
            yield f"neigh add {address} lladdr {_MACS[pod]} dev {own} nud permanent"


def _second(network: str) -> str:
    """node2's pods'."""
    return network.replace(".1.0/", ".2.0/").replace(":1::/", ":2::/")


@contextmanager
def one_cpu() -> Iterator[None]:
    """This thread stays on one CPU, and with it all that its packets set off."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[os.getpid() % len(before)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
