"""A node with two uplinks and a bridge of pods, Services of every kind, and their reference."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ebpf_lb.lab import namespaces
from ebpf_lb.model.values import Family, Protocol, parse_address, parse_network
from ebpf_lb.plan.forwarding import NO_FLAGS, FrontendFlag, FrontendKind
from tests.capabilities import BPF_F_TEST_SKB_CHECKSUM_COMPLETE
from tests.datapath import judge, wires
from tests.datapath.judge import NEXT, REDIRECT, End
from tests.datapath.kernel import LOOPBACK, NODE, Kernel, Tally
from tests.datapath.mutation import Ends
from tests.datapath.reference import (
    INGRESS,
    LOOPBACK_OUT,
    POD_IN,
    POD_OUT,
    UPLINK_IN,
    UPLINK_OUT,
    Node,
    Observed,
    Reference,
    Route,
    Ruling,
    Service,
)
from tests.datapath.reference.refusals import hops
from tests.datapath.stack import older
from tests.support.chance import SEED_VARIABLE
from tests.support.packets import GATEWAY_MAC, UDP, Packet, packed

MTU = 9000  # larger than any frame here: what is too big is for tests of its own
MACS = {"up0": GATEWAY_MAC.hex(), "up1": "020000000012", "cni0": "020000000013"}
ROUTER_MAC, NODE2_MAC, NODE3_MAC = "020000000001", "020000000002", "020000000003"
POD_MACS = {"2": "0200000000a2", "3": "0200000000a3"}  # the third pod is not known to the bridge


@dataclass(frozen=True)
class Addresses:
    """Of one family. `pods` are on this node's bridge; `far` on node 2 and 3, by up0 and up1."""

    node: str
    second: str
    router: str
    pods: tuple[str, str, str]
    far: tuple[str, str, str]
    outside: tuple[str, str]
    cluster_ip: str
    balanced: str
    external: str
    foreign: str
    odd: tuple[str, ...]


ADDRESSES = {
    Family.IPV4: Addresses(
        NODE[Family.IPV4],
        "172.31.0.11",
        "172.30.0.1",
        ("10.244.1.2", "10.244.1.3", "10.244.1.4"),
        ("10.244.2.7", "10.244.2.8", "10.244.3.7"),
        ("192.0.2.9", "198.51.100.77"),
        "10.96.0.20",
        "203.0.113.5",
        "203.0.113.6",
        "8.8.8.8",
        ("0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1"),
    ),
    Family.IPV6: Addresses(
        NODE[Family.IPV6],
        "fd31::11",
        "fd30::1",
        ("fd00:10:244:1::2", "fd00:10:244:1::3", "fd00:10:244:1::4"),
        ("fd00:10:244:2::7", "fd00:10:244:2::8", "fd00:10:244:3::7"),
        ("2001:db8::9", "2001:db8:77::77"),
        "fd00:10:96::20",
        "2001:db8:5::5",
        "2001:db8:5::6",
        "2001:4860::8888",
        ("::", "::ffff:10.0.0.1", "ff02::1", "::1", "fe80::1"),
    ),
}
WIRING = """
link add up0 type veth peer name peer0
link add up1 type veth peer name peer1
link add pod0 type veth peer name eth0
link add cni0 type bridge
link set pod0 master cni0
link set up0 address 02:00:00:00:6a:7e
link set up1 address 02:00:00:00:00:12
link set cni0 address 02:00:00:00:00:13
"""
INTERFACES = {"up0": 1, "up1": 2, "cni0": 1, "pod0": 1}
"""Whose source is which number in snat_sources."""


def _wire(node: wires.Namespace) -> None:
    commands = WIRING.strip().splitlines()
    commands += [f"link set {d} mtu {MTU} up" for d in ("peer0", "peer1", "eth0", *INTERFACES)]
    for family in Family:
        of = ADDRESSES[family]
        prefix, quietly = (24, "") if family is Family.IPV4 else (64, "nodad")
        hops = [of.router, of.router[:-1] + "12", of.second[:-2] + "13"]
        commands += [f"addr add {of.node}/{prefix} dev up0 {quietly}"]
        commands += [f"addr add {of.second}/{prefix} dev up1 {quietly}"]
        for hop, mac, device in zip(
            hops, (ROUTER_MAC, NODE2_MAC, NODE3_MAC), ("up0", "up0", "up1"), strict=True
        ):
            lladdr = bytes.fromhex(mac).hex(":")
            commands += [f"neigh add {hop} lladdr {lladdr} dev {device}"]
        for last, mac in POD_MACS.items():
            lladdr = bytes.fromhex(mac).hex(":")
            commands += [f"neigh add {of.pods[0][:-1]}{last} lladdr {lladdr} dev cni0"]
        default = "0.0.0.0/0" if family is Family.IPV4 else "::/0"
        near = [_network(address) for address in (of.pods[0], of.far[0], of.far[2])]
        commands += [
            f"route add {default} via {hops[0]}",
            f"route add {near[0]} dev cni0",
            f"route add {near[1]} via {hops[1]}",
            f"route add {near[2]} via {hops[2]}",
        ]
    node.ip(*commands)
    node.sysctl(net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1)


def _network(address: str) -> str:
    """The network of a node's pods."""
    stem = address.rpartition("." if "." in address else "::")[0]
    return f"{stem}.0/24" if "." in address else f"{stem}::/64"


@contextmanager
def surroundings() -> Iterator[dict[str, int]]:
    """The node's namespace, entered meanwhile; yields the interfaces' numbers."""
    with wires.network("properties") as (node,):
        _wire(node)
        numbers = {name: node.ifindex(name) for name in INTERFACES}
        with namespaces.entered(node.path):
            yield numbers


def _node(family: Family) -> Node:
    of = ADDRESSES[family]
    hops = [packed(a) for a in (of.router, of.router[:-1] + "12", of.second[:-2] + "13")]
    networks = [parse_network(_network(a)) for a in (of.pods[0], of.far[0], of.far[2])]
    lengths = (24, 0, 32) if family is Family.IPV4 else (64, 0, 128)
    bits = lengths[2]
    nowhere = ["127.0.0.0/8"] if family is Family.IPV4 else ["::1/128", "fe80::/64", "ff00::/8"]
    routes = [
        Route(bytes(bits // 8), 0, "up0", hops[0]),
        Route(packed(of.node), lengths[0], "up0"),
        Route(packed(of.second), lengths[0], "up1"),
        Route(packed(of.node), bits, None),
        Route(packed(of.second), bits, None),
        Route(networks[0].address, networks[0].prefix_length, "cni0"),
        Route(networks[1].address, networks[1].prefix_length, "up0", hops[1]),
        Route(networks[2].address, networks[2].prefix_length, "up1", hops[2]),
        *(Route(n.address, n.prefix_length, None) for n in map(parse_network, nowhere)),
    ]
    neighbours = {
        ("up0", hops[0]): bytes.fromhex(ROUTER_MAC),
        ("up0", hops[1]): bytes.fromhex(NODE2_MAC),
        ("up1", hops[2]): bytes.fromhex(NODE3_MAC),
        ("cni0", packed(of.pods[0])): bytes.fromhex(POD_MACS["2"]),
        ("cni0", packed(of.pods[1])): bytes.fromhex(POD_MACS["3"]),
    }
    pods = parse_network("10.244.0.0/16" if family is Family.IPV4 else "fd00:10:244::/48")
    sources = {"up0": packed(of.node), "up1": packed(of.second), "cni0": packed(of.node)}
    sources |= {POD_IN: packed(of.node), UPLINK_IN: packed(of.node)}
    sources |= {UPLINK_OUT: packed(of.node), LOOPBACK_OUT: packed(of.node), "": packed(of.node)}
    return Node(
        tuple(routes),
        neighbours,
        {device: bytes.fromhex(mac) for device, mac in MACS.items()},
        sources,
        frozenset({packed(of.node), packed(of.second)}),
        (pods.address, pods.prefix_length),
        "cni0",
    )


@dataclass(frozen=True)
class Entry:
    """A Service: kind of frontend, which address, port, target port, backends near and far."""

    kind: FrontendKind
    address: str
    port: int
    target: int
    pods: tuple[int, ...] = ()
    far: tuple[int, ...] = ()
    local: bool = False
    ranges: bool = False


CLUSTER, NODE_PORT = FrontendKind.CLUSTER_IP, FrontendKind.NODE_PORT
BALANCER, EXTERNAL = FrontendKind.LOAD_BALANCER, FrontendKind.EXTERNAL_IP
ENTRIES = [
    Entry(CLUSTER, "cluster_ip", 80, 9376, pods=(0, 1), far=(0, 2)),
    Entry(CLUSTER, "cluster_ip", 443, 443, far=(0, 1)),
    Entry(CLUSTER, "cluster_ip", 53, 5353, pods=(0, 1, 2)),
    Entry(CLUSTER, "cluster_ip", 444, 443, far=(0,), local=True),
    Entry(CLUSTER, "cluster_ip", 81, 81),
    Entry(NODE_PORT, "node", 30080, 9376, pods=(0, 1), far=(0, 2)),
    Entry(NODE_PORT, "second", 30080, 9376, pods=(0, 1), far=(0, 2)),
    Entry(NODE_PORT, "node", 30081, 8080, far=(0, 1)),
    Entry(NODE_PORT, "second", 30082, 30082, far=(2,)),
    Entry(NODE_PORT, "node", 30083, 8443, pods=(0, 2), far=(0,), local=True),
    Entry(NODE_PORT, "node", 30084, 8443, far=(0, 2), local=True),
    Entry(NODE_PORT, "node", 30085, 80),
    Entry(BALANCER, "balanced", 80, 8080, pods=(1,), far=(1,), ranges=True),
    Entry(BALANCER, "balanced", 443, 8443, pods=(0,), far=(1,), local=True),
    Entry(EXTERNAL, "external", 80, 80, pods=(0,), far=(0, 1, 2)),
]


def ends(family: Family) -> Ends:
    """Clients and destinations of all kinds, many of them by the addresses of Services."""
    of = ADDRESSES[family]
    frontends = (of.cluster_ip, of.node, of.second, of.balanced, of.external)
    return Ends(
        (*of.pods, *of.far, *of.outside, *of.outside, of.node, of.second, of.cluster_ip, *of.odd),
        (*frontends, *frontends, of.node, of.foreign, of.pods[0], of.far[0], *of.odd),
        (1, 80, 9376, 30080, 40000, 40001, 65535),
        (*(e.port for e in ENTRIES), 9376, 82, 0),
    )


@dataclass
class Scene:
    """The programs and their reference, which see the same packets."""

    kernel: Kernel
    reference: Reference
    interfaces: dict[str, int]
    seed: int
    rng: random.Random
    tally: Tally
    xdp: bool = False  # runs before TC at an uplink's ingress

    def _interface(self, hook: str) -> int:
        if hook == LOOPBACK_OUT:
            return LOOPBACK
        return self.interfaces["pod0" if hook in (POD_IN, POD_OUT) else "up0"]

    def run(self, hook: str, frame: bytes) -> Observed:
        """What a program makes of a frame; or, of what is masqueraded, the node: it is observed
        where it leaves, as if it had been redirected there."""
        ifindex = self._interface(hook)
        if hook == UPLINK_IN and self.xdp:
            verdict, got = self.kernel.run_uplink_frame(frame, ifindex, xdp=True)
        else:
            verdict, got = self.kernel.run_frame(hook, frame, ifindex)
        entered = Observed(verdict, got, self.tally.since())
        if hook in INGRESS and verdict == NEXT and got != frame:
            return self._left(entered) or entered
        return entered

    def _left(self, entered: Observed) -> Observed | None:
        """What comes of it behind the stack; None where that does not send it on, or nothing more
        is to be done for it."""
        found, node = judge.read(entered.frame), self.reference.node
        assert found is not None
        macs, device = node.way(found.destination), node.route(found.destination).device
        martian = found.source in node.own or node.strange(found.source)
        if not macs or device is None or martian or hops(entered.frame, found) <= 1:
            return None
        hook = POD_OUT if device == node.bridge else UPLINK_OUT
        ifindex = self.interfaces["pod0" if hook == POD_OUT else device]
        sent = macs + older(entered.frame)[12:]
        verdict, got = self.kernel.run_frame(hook, sent, ifindex)
        counted = self.tally.since()
        whole = entered.counted + counted
        errors = min(entered.counted["ICMP_ERROR"], counted["ICMP_ERROR"])
        if not whole["MASQUERADED"] and not errors:
            return None
        whole["ICMP_ERROR"] -= errors
        return Observed(REDIRECT if verdict == NEXT else verdict, got, +whole, sent)

    def run_summed(self, hook: str, frame: bytes) -> Counter[str]:
        """Runs a program on a frame that a device has summed up, and returns what was counted.
        OSError (EBADMSG) if the sum is not true afterwards."""
        ifindex = self._interface(hook)
        self.tally.since()
        self.kernel.run_frame(hook, frame, ifindex, flags=BPF_F_TEST_SKB_CHECKSUM_COMPLETE)
        return self.tally.since()

    def visit(self, hook: str, frame: bytes) -> tuple[Ruling, Observed]:
        """The same, judged and noted; AssertionError with all that repeats it."""
        got = self.run(hook, frame)
        ruling = self.reference.judge(hook, frame, got)
        assert not ruling.fault, (
            f"{hook}: {ruling.fault}\nsent {frame.hex()}\ngot  {got.frame.hex()}\n"
            f"verdict {got.verdict}, counted {dict(got.counted)}\n"
            f"{SEED_VARIABLE}={self.seed} repeats it"
        )
        self.reference.note(frame, got, ruling)
        return ruling, got

    def forget(self) -> None:
        """No flow is known any more, here and there."""
        self.kernel.forget_flows()
        self.reference.forget()


def _use_loopback(kernel: Kernel) -> None:
    """As if a flow went by it: else its program looks at nothing but what opens connections."""
    of = ADDRESSES[kernel.family]
    packet = Packet(of.node, of.node, 40000, 30081, UDP).frame()
    assert kernel.run_frame(LOOPBACK_OUT, packet)[0] == REDIRECT
    kernel.forget_flows()


def made(kernel: Kernel, interfaces: dict[str, int], seed: int, rng: random.Random) -> Scene:
    """Writes all Services, for all protocols."""
    family, writer = kernel.family, kernel.writer
    of = ADDRESSES[family]
    writer.set_config(0, False, 0)  # refusals without a limit
    pods = "10.244.0.0/16" if family is Family.IPV4 else "fd00:10:244::/48"
    writer.set_pod_networks([parse_network(pods)])
    writer.set_snat_source(2, parse_address(of.second))
    for name, source in INTERFACES.items():
        bridge = interfaces["cni0"] if name == "pod0" else 0
        writer.set_interface(interfaces[name], bridge, source, GATEWAY_MAC)
    ranges = [parse_network("192.0.2.0/24" if family is Family.IPV4 else "2001:db8::/64")]
    services = {}
    for entry in ENTRIES:
        address = getattr(of, entry.address)
        here = [(of.pods[n], entry.target) for n in entry.pods]
        there = [(of.far[n], entry.target) for n in entry.far]
        flags = FrontendFlag.LOCAL if entry.local else NO_FLAGS
        flags |= FrontendFlag.SOURCE_RANGES if entry.ranges else NO_FLAGS
        for protocol in Protocol:
            kernel.service(
                address,
                entry.port,
                there,
                local=here,
                protocol=protocol,
                kind=entry.kind,
                flags=flags,
                source_ranges=ranges if entry.ranges else (),
            )
            services[packed(address), entry.port, int(protocol)] = Service(
                entry.kind is CLUSTER,
                frozenset(End(packed(a), port) for a, port in there),
                frozenset(End(packed(a), port) for a, port in here),
                entry.local,
                tuple((r.address, r.prefix_length) for r in ranges) if entry.ranges else None,
            )
    _use_loopback(kernel)
    reference = Reference(_node(family), services, kernel.drop_reasons())
    return Scene(kernel, reference, interfaces, seed, rng, Tally(kernel))
