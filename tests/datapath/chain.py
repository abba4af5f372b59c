"""From the API's objects to packets: the whole way of a change, with nothing of ours left out.

    objects -> kube's parser -> plan -> programmer and writer -> pinned maps -> loaded programs

A `Chain` is brought from one situation to the next as the agent is, by lists, and asked by packets.
What became of a packet is read off the packet, in the oracle's terms.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from ebpf_lb.agent.programming.programmer import Programmer
from ebpf_lb.datapath import clock
from ebpf_lb.datapath.writer import FamilyWriter
from ebpf_lb.kube.parse import parse_service, parse_slice
from ebpf_lb.lab import namespaces
from ebpf_lb.model.values import Family, parse_address, parse_network
from ebpf_lb.plan.cluster import Cluster
from ebpf_lb.plan.forwarding import Forwarding
from ebpf_lb.plan.node import NodeView
from tests.datapath.kernel import LOOPBACK, NODE, Kernel, Result
from tests.datapath.node import NODE_MAC, STACK
from tests.datapath.wires import network
from tests.oracle.oracle import Backend, Client, ClientKind, Destination, Kind, Node, version
from tests.oracle.situations import NODE_ADDRESSES, Situation
from tests.support.packets import ACK, GATEWAY_MAC, ICMP, ICMPV6, RST, SCTP, TCP, UDP, Packet

POD_NETWORKS = ("10.244.0.0/16", "fd00:10:244::/48")
DECIDED_DROPS = {"NO_LOCAL_ENDPOINTS", "SOURCE_RANGE", "NO_SERVICE"}
"""Reasons that say that a packet was to be dropped; all others are failures of some kind."""
CONNECTION_OPENS = struct.pack("!BBHIIHHI", 1, 0, 20, 7, 65535, 5, 5, 9)  # SCTP's INIT
TRANSPORT = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}


@contextmanager
def emptied(kernels: Mapping[Family, Kernel]) -> Iterator[None]:
    """Maps without anything of a chain's, now and afterwards."""
    for kernel in kernels.values():
        kernel.reset()
    yield
    for kernel in kernels.values():
        kernel.reset()
        kernel.writer.set_pod_networks(())
        kernel.writer.set_service_networks(())


@contextmanager
def node_network() -> Iterator[int]:
    """The network of this node around the thread: ways to every address of the situations, which
    the programs ask the kernel for. Yields the uplink's ifindex."""
    with network("agree") as [node]:
        node.ip(
            "link add up0 type veth peer name peer0",
            f"link set up0 address {NODE_MAC} up",
            "link set peer0 up",
            "link add cni0 type bridge",
            "link set cni0 up",
            *(f"addr add {a}/{32 if '.' in a else 128} dev lo" for a in NODE_ADDRESSES[1::2]),
            f"addr add {NODE[Family.IPV4]}/24 dev up0",
            f"addr add {NODE[Family.IPV6]}/64 dev up0 nodad",
            *(
                f"neigh add {stem}{hop} lladdr 02:00:00:00:00:{hop:02} dev up0"
                for stem in ("172.30.0.", "fd30::")
                for hop in (1, 12, 13)
            ),
            "route add default via 172.30.0.1",
            "route add 10.244.1.0/24 dev cni0",
            "route add 10.244.2.0/24 via 172.30.0.12",
            "route add 10.244.3.0/24 via 172.30.0.13",
            "route add default via fd30::1",
            "route add fd00:10:244:1::/64 dev cni0",
            "route add fd00:10:244:2::/64 via fd30::12",
            "route add fd00:10:244:3::/64 via fd30::13",
        )
        node.sysctl(net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1)
        with namespaces.entered(node.path):
            yield node.ifindex("up0")


@dataclass(frozen=True)
class Answer:
    """What became of a packet. `fault`: a sentence, where no verdict could have this outcome."""

    kind: Kind
    backend: Backend | None = None
    source: str = ""
    source_port: int = 0
    fault: str = ""


class Log:
    """What the programmer has to say is never good news here, but that endpoints come and go."""

    def error(self, event: str, **about: Any) -> None:
        raise AssertionError(f"{event}: {about}")

    def info(self, event: str, **about: Any) -> None:
        if event != "usable endpoints":
            raise AssertionError(f"{event}: {about}")


class Chain:
    """One agent's life on the maps of `kernels`, whatever another one left in them.

    tamper: for tests of the comparison: changes what the plan says before it is written.
    """

    def __init__(
        self,
        kernels: Mapping[Family, Kernel],
        uplink: int,
        tamper: Callable[[Forwarding], Forwarding] = lambda forwarding: forwarding,
    ) -> None:
        self.kernels = kernels
        self.uplink = uplink
        self._tamper = tamper
        self._now = 1000.0
        self.writers = {}
        for family, kernel in kernels.items():
            writer = FamilyWriter(kernel.maps, lambda: self._now, clock.ticks_per_second())
            writer.adopt()
            writer.set_snat_source(1, parse_address(NODE[family]))
            for ifindex in (LOOPBACK, uplink):
                writer.set_interface(ifindex, 0, 1, GATEWAY_MAC)
            self.writers[family] = writer
        self._cluster: Cluster | None = None
        self._programmer = Programmer(self.writers, lambda: self._now, Log())
        self._counted = {family: kernel.counters() for family, kernel in kernels.items()}
        self._situation: Situation | None = None

    def become(self, situation: Situation) -> None:
        """Lists of all objects arrive, and the maps follow."""
        view = _view(situation.node)
        first = self._cluster is None
        self._cluster = self._cluster or Cluster(view)
        self._cluster.set_node(view)
        objects = situation.objects.values()
        self._cluster.replace_services(
            _parsed(parse_service, raw) for raw in objects if raw["kind"] == "Service"
        )
        self._cluster.replace_slices(
            _parsed(parse_slice, raw) for raw in objects if raw["kind"] == "EndpointSlice"
        )
        changed = sorted(self._cluster.take_changes())
        random.Random(situation.order).shuffle(changed)
        for key in changed:
            self._programmer.program(key, map(self._tamper, self._cluster.plan(key)))
        self._programmer.remove_unwanted()
        if first:
            self._programmer.retain()
        for family, writer in self.writers.items():
            known = POD_NETWORKS if situation.pod_networks_known else ()
            networks = [one for one in map(parse_network, known) if one.family is family]
            writer.set_config(0, situation.masquerade_all, 0)
            writer.set_pod_networks(networks)
            cidrs = map(parse_network, situation.service_networks)
            writer.set_service_networks(one for one in cidrs if one.family is family)
        # no program runs meanwhile, so what was freed may be given out again at once
        self._now += 2
        self._programmer.housekeeping()

    def send(
        self, client: Client, destination: Destination, source_port: int, *, xdp: bool
    ) -> Answer:
        """The first packet of a connection, where such a client's packets come to this node."""
        kernel = self.kernels[Family(version(client.address))]
        frame = _frame(client.address, destination, source_port)
        if client.kind is ClientKind.LOCAL_POD:
            result = kernel.run("pod_ingress", frame)
        elif client.kind is ClientKind.NODE:
            result = kernel.run("uplink_egress", frame, self.uplink)
        else:
            result = kernel.run_uplink(frame, self.uplink, xdp=xdp)
        translated = result.passed and result.frame != frame
        if translated and client.kind is not ClientKind.NODE:
            result = self._leave(kernel, result)
        if result.passed and result.frame == frame and destination.address not in NODE_ADDRESSES:
            # through the stack, and out by the default route
            result = kernel.run("uplink_egress", frame, self.uplink)
        return self._read(kernel, frame, result, destination)

    def _leave(self, kernel: Kernel, entered: Result) -> Result:
        """What the stack sends on, where it leaves; for the node itself nothing does."""
        to = entered.packet.destination
        if to in (*NODE_ADDRESSES, *NODE.values()):
            return entered
        program = STACK.leaves_by(to)
        ifindex = self.uplink if program == "uplink_egress" else LOOPBACK
        return kernel.run(program, STACK.forward(entered.frame), ifindex)

    def _read(
        self, kernel: Kernel, sent: bytes, result: Result, destination: Destination
    ) -> Answer:
        if result.dropped:
            return Answer(Kind.DROP, fault=self._fault_of_drop(kernel))
        if result.passed and result.frame == sent:
            return Answer(Kind.NOT_A_SERVICE)
        got = result.packet
        fault = "" if got.valid else "a checksum is wrong"
        if got.source == destination.address and got.source_port in (0, destination.port):
            if not (result.redirected and _is_refusal(got, destination)):
                fault = f"no refusal: {got}"
            return Answer(Kind.REJECT, fault=fault)
        if got.protocol != TRANSPORT[destination.protocol]:
            fault = f"turned into {got}"
        backend = got.destination, got.destination_port
        return Answer(Kind.BACKENDS, backend, got.source, got.source_port, fault)

    def _fault_of_drop(self, kernel: Kernel) -> str:
        """ "" if the verdict was to drop."""
        counted = kernel.counters()
        before, self._counted[kernel.family] = self._counted[kernel.family], counted
        new: Counter[str] = counted - before
        drops = {name for name in new if 32 <= kernel.reason_number(name) < 64}
        return "" if len(drops) == 1 and drops <= DECIDED_DROPS else f"dropped for {dict(new)}"


def _view(node: Node) -> NodeView:
    addresses = tuple(sorted(map(parse_address, node.addresses)))
    return NodeView(node.name, node.zone, addresses, addresses)


def _parsed(parse: Callable[[Any], Any], raw: dict[str, Any]) -> Any:
    found = parse(raw)
    assert not found.problems, found.problems
    return found.value


def _is_refusal(got: Packet, destination: Destination) -> bool:
    """A RST for TCP, else ICMP port unreachable."""
    if destination.protocol == "TCP":
        return got.protocol == TCP and got.flags == RST | ACK
    if got.version == 4:
        return got.protocol == ICMP and got.payload[:2] == b"\3\3"
    return got.protocol == ICMPV6 and got.payload[:2] == b"\1\4"


@cache
def _template(client: str, destination: Destination) -> tuple[bytes, int, int]:
    """A connection's first frame from port 0, and the offsets of its transport and checksum."""
    protocol = TRANSPORT[destination.protocol]
    frame = Packet(
        client, destination.address, 0, destination.port, protocol, payload=b"hi"
    ).frame()
    transport = 34 if version(client) == 4 else 54
    return frame, transport, transport + (16 if protocol == TCP else 6)


def _frame(client: str, destination: Destination, source_port: int) -> bytes:
    if destination.protocol == "SCTP":
        return Packet(
            client, destination.address, source_port, destination.port, SCTP,
            payload=CONNECTION_OPENS,
        ).frame()  # fmt: skip
    template, at, checksum_at = _template(client, destination)
    frame = bytearray(template)
    struct.pack_into("!H", frame, at, source_port)
    # RFC 1624
    total = (~struct.unpack_from("!H", frame, checksum_at)[0] & 0xFFFF) + source_port
    total = (total & 0xFFFF) + (total >> 16)
    check = ~total & 0xFFFF
    if destination.protocol == "UDP":
        check = check or 0xFFFF
    struct.pack_into("!H", frame, checksum_at, check)
    return bytes(frame)
