"""What is measured: each path of a packet through the programs, and what makes packets take it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ebpf_lb.datapath.libbpf import Program
from ebpf_lb.model.values import Family, Protocol, parse_address
from ebpf_lb.plan.forwarding import (
    NO_FLAGS,
    Backend,
    Forwarding,
    Frontend,
    FrontendFlag,
    FrontendKind,
    ServicePortName,
)
from tests.bench.feeder import ENDLESS, Feeder, Traffic
from tests.bench.stripped import Stripped
from tests.datapath.kernel import LOOPBACK, NODE, Kernel
from tests.support.packets import ACK, GATEWAY_MAC, SCTP, SYN, TCP, UDP

ESTABLISHED_NS, ESTABLISHED_MANY_NS, NEW_NS, FOREIGN_NS = 45, 170, 260, 25
"""docs/design.md, Budgets: TC. The second one for half a million flows."""
XDP_ESTABLISHED_NS = 30
"""docs/design.md, Budgets: above an empty XDP program."""
FEW_FLOWS = 1024  # up to here the first one is expected to hold

VIPS = {Family.IPV4: "10.96.0.0", Family.IPV6: "fd00:10:96::"}
BACKENDS = {Family.IPV4: "10.128.0.0", Family.IPV6: "fd00:10:128::"}
CLIENTS = {Family.IPV4: "10.64.0.0", Family.IPV6: "fd00:10:64::"}
OUTSIDE = {Family.IPV4: "198.18.0.0", Family.IPV6: "2001:db8::"}
# port and target port of each Service
PORTS = {
    "TCP same port": (TCP, 80, 80),
    "TCP port change": (TCP, 443, 8443),
    "UDP": (UDP, 53, 5353),
    "SCTP port change": (SCTP, 9, 9899),
}
MANY_PORTS = 10  # Services with all of them
EMPTY_PORT, HAIRPIN_PORT, LOCAL_PORT = 81, 82, 83
CLIENT_PORTS = 16_384  # of each client: FIRST_PORT and on in feeder.c


@dataclass(frozen=True)
class Path:
    """A program, packets that take one path through it, and the reason it counts them under.

    prepare: what has to happen before. fresh: each packet is of a flow never seen before. xdp: the
    program is XDP's, and so is the empty one that it is compared with.
    """

    name: str
    program: str
    traffic: Traffic
    reason: str | None
    budget_ns: int | None
    prepare: Callable[[], None] = lambda: None
    fresh: bool = False
    xdp: bool = False


def counted_up(address: str, number: int) -> bytes:
    return (ipaddress.ip_address(address) + number).packed


class World:
    """Services and flows in one family's maps. `uplink`: an ifindex, of a node's namespace in which
    the process is."""

    def __init__(self, kernel: Kernel, uplink: int) -> None:
        self.kernel, self.family = kernel, kernel.family
        self.feeder = Feeder(self.family)
        with kernel.open("flows") as table:
            self.stripped = Stripped(self.family, 4 * table.max_entries)
        self.uplinks = {xdp: Feeder(self.family, uplink, xdp=xdp) for xdp in (False, True)}
        kernel.writer.set_interface(uplink, 0, 1, GATEWAY_MAC)
        self.services = 0
        self.vip, self.backend = VIPS[self.family], BACKENDS[self.family]
        self.client, self.outside = CLIENTS[self.family], OUTSIDE[self.family]

    def program(self, name: str) -> Program:
        return self.stripped.programs.get(name) or self.kernel.program(name)

    def feeder_of(self, path: Path) -> tuple[Feeder, Program]:
        """Who makes a path's packets, and the empty program to compare with."""
        if path.xdp:
            return self.uplinks[True], self.program("xdp_empty")
        uplink = path.program.startswith("uplink")
        return self.uplinks[False] if uplink else self.feeder, self.program("empty")

    def grow(self, services: int) -> None:
        """The first ten Services have all kinds of ports, the others one; each has one backend."""
        for number in range(self.services, services):
            vip, backend = counted_up(self.vip, number), counted_up(self.backend, number)
            kinds = list(PORTS.values())
            for protocol, port, target in kinds if number < MANY_PORTS else kinds[:1]:
                self._set(f"{number}-{port}", Protocol(protocol), vip, port, backend, target)
        if not self.services:
            vip = parse_address(self.vip)
            self._set("empty", Protocol.TCP, vip, EMPTY_PORT, None, 0)
            self._set("local", Protocol.TCP, vip, LOCAL_PORT, counted_up(self.backend, 0), 80, True)
            self._set("hairpin", Protocol.TCP, vip, HAIRPIN_PORT, parse_address(self.client), 8080)
        self.services = services
        self.kernel.writer.set_config(0, False, 0)

    def _set(
        self,
        name: str,
        protocol: Protocol,
        vip: bytes,
        port: int,
        backend: bytes | None,
        to: int,
        local: bool = False,
    ) -> None:
        backends = (Backend(backend, to, False),) if backend else ()
        kind = FrontendKind.LOAD_BALANCER if local else FrontendKind.CLUSTER_IP
        flags = FrontendFlag.LOCAL if local else NO_FLAGS
        self.kernel.writer.set(
            Forwarding(
                ServicePortName("bench", name, "", protocol),
                self.family,
                (Frontend(vip, port, kind, flags),),
                backends,
                (),
                bool(backends),
            )
        )

    def forget_flows(self) -> None:
        with self.kernel.open("flows") as table:
            size, step = table.value_size, 4096
            for first in range(0, table.max_entries, step):
                count = min(step, table.max_entries - first)
                keys = b"".join(n.to_bytes(4, "little") for n in range(first, first + count))
                table.update_batch(keys, bytes(size * count))

    def establish(self, there: Traffic, back: Traffic) -> None:
        """All flows, each with two round trips seen."""
        opening = there if there.protocol == UDP else replace(there, flags=SYN)
        for towards in (opening, there):
            self.feeder.run(self.program("pod_ingress"), towards, there.flows)
            self.feeder.run(self.program("pod_egress"), back, back.flows)

    def established(self, kind: str, flows: int, services: int = 0) -> Iterator[Path]:
        """Both directions of `flows` flows, which are there before the first is measured; of all
        Services or of so many."""
        protocol, port, target = PORTS[kind]
        asked = services or self.services
        there = Traffic(self.client, self.vip, port, protocol, flows, asked)
        back = Traffic(self.client, self.backend, target, protocol, flows, asked, True)

        def prepare() -> None:
            self.forget_flows()
            self.establish(there, back)

        budget = ESTABLISHED_NS if flows <= FEW_FLOWS else ESTABLISHED_MANY_NS
        name = f"established, {kind}"
        yield Path(f"{name}, there", "pod_ingress", there, "ESTABLISHED", budget, prepare)
        yield Path(f"{name}, back", "pod_egress", back, "REPLY", budget)

    def stripped_established(self, flows: int) -> Iterator[Path]:
        """The same as "established, TCP same port" by the least program that there is."""
        there = Traffic(self.client, self.vip, 80, TCP, flows, self.services)
        back = Traffic(self.client, self.backend, 80, TCP, flows, self.services, True)
        for number in range(self.services):
            ends = (ipaddress.ip_address(first) + number for first in (self.vip, self.backend))
            asked, by = ((str(end), 80) for end in ends)
            self.stripped.serve(TCP, asked, by, LOOPBACK)

        def prepare() -> None:
            self.feeder.run(self.program("stripped_client"), replace(there, flags=SYN), flows)

        name = "stripped program, TCP same port"
        yield Path(f"{name}, there", "stripped_client", there, None, None, prepare)
        yield Path(f"{name}, back", "stripped_pod", back, None, None)

    def foreign(self, flows: int) -> Iterator[Path]:
        """Packets that are not a Service's, of so many different clients."""
        there = Traffic(self.client, self.outside, 443, TCP, flows)
        yield Path("no Service's, ingress", "pod_ingress", there, None, FOREIGN_NS)
        back = replace(there, turned=True)
        yield Path("no Service's, egress", "pod_egress", back, None, FOREIGN_NS)
        # what the node says to itself: by 127.0.0.1 like the first line, by its own address so
        own = Traffic(self.client, NODE[self.family], 6443, TCP, flows)
        yield Path("no Service's, loopback", "loopback_egress", own, None, FOREIGN_NS)

    def uplink(self, flows: int, capacity: int, *, xdp: bool) -> Iterator[Path]:
        """Clients outside, backends on another node: masqueraded, in and out by the uplink."""
        program, at = ("xdp_ingress", "XDP") if xdp else ("uplink_ingress", "TC")
        # two entries each, and one client: others' ports would clash, and their replies be unknown
        flows = min(flows, CLIENT_PORTS, capacity // 8)
        there = Traffic(self.client, self.vip, 80, TCP, flows, self.services)
        node = NODE[self.family]
        back = Traffic(node, self.backend, 80, TCP, flows, self.services, True)
        self.kernel.writer.set_config(0, True, 0)

        def prepare() -> None:
            self.forget_flows()
            feeder = self.uplinks[xdp]
            feeder.run(self.program(program), replace(there, flags=SYN), flows)
            for _ in range(2):
                feeder.run(self.program(program), back, flows)

        reasons = ("XDP", "XDP") if xdp else ("ESTABLISHED", "MASQUERADED")
        budget = XDP_ESTABLISHED_NS if xdp and flows <= FEW_FLOWS else None
        yield Path(
            f"{at}, to another node, there", program, there, reasons[0], budget, prepare, xdp=xdp
        )
        yield Path(f"{at}, to another node, back", program, back, reasons[1], budget, xdp=xdp)
        if not xdp:  # the other half, where it leaves
            leaving, program = (
                Traffic(self.client, self.backend, 80, TCP, flows, self.services),
                "uplink_egress",
            )
            restored = replace(leaving, turned=True)
            yield Path(f"{at}, leaving, there", program, leaving, "MASQUERADED", None)
            yield Path(f"{at}, leaving, back", program, restored, "REPLY", None)
        self.kernel.writer.set_config(0, False, 0)

    def uplink_rare(self, *, xdp: bool) -> Iterator[Path]:
        program, at = ("xdp_ingress", "XDP") if xdp else ("uplink_ingress", "TC")
        foreign = Traffic(self.client, self.outside, 443, TCP, 1024)
        yield Path(f"{at}, no Service's", program, foreign, None, FOREIGN_NS, xdp=xdp)
        silent = Traffic(self.client, self.vip, LOCAL_PORT, TCP, 1024, flags=SYN)
        yield Path(f"{at}, DROP", program, silent, "NO_LOCAL_ENDPOINTS", None, xdp=xdp)
        fresh = Traffic(self.client, self.vip, 80, TCP, ENDLESS, self.services, flags=SYN)
        self.kernel.writer.set_config(0, True, 0)
        yield Path(
            f"{at}, new flow to another node",
            program,
            fresh,
            "NEW",
            None,
            self.forget_flows,
            fresh=True,
            xdp=xdp,
        )
        self.kernel.writer.set_config(0, False, 0)

    def rare(self, capacity: int) -> Iterator[Path]:
        empty = Traffic(self.client, self.vip, EMPTY_PORT, TCP, 1024, flags=SYN)
        yield Path("REJECT, TCP", "pod_ingress", empty, "NO_ENDPOINTS", None)
        # two entries each, and room that no other flow's is taken for
        one = Traffic(self.client, self.vip, HAIRPIN_PORT, TCP, min(1024, capacity // 16))

        def prepare() -> None:
            self.forget_flows()
            self.feeder.run(self.program("pod_ingress"), replace(one, flags=SYN), one.flows)

        yield Path("hairpin, there", "pod_ingress", one, "ESTABLISHED", None, prepare)

    def new(self, capacity: int) -> Iterator[Path]:
        """New flows; with room only for as many as the table holds easily."""
        fresh = Traffic(self.client, self.vip, 80, TCP, ENDLESS, self.services, flags=SYN)
        yield Path(
            "new flow, room", "pod_ingress", fresh, "NEW", NEW_NS, self.forget_flows, fresh=True
        )

        def fill() -> None:
            self.forget_flows()
            self.feeder.run(self.program("pod_ingress"), fresh, 3 * capacity)

        yield Path(
            "new flow, table full of unanswered", "pod_ingress", fresh, "NEW", NEW_NS, fill, True
        )

        def fill_established() -> None:
            self.forget_flows()
            there = replace(fresh, flows=3 * capacity)
            back = replace(there, peer=self.backend, port=80, turned=True, flags=SYN | ACK)
            # a little at a time, so that they are answered before others take their places
            step = max(capacity // 64, 1)
            for first in range(0, 3 * capacity, step):
                self.feeder.run(self.program("pod_ingress"), there, step, first)
                self.feeder.run(self.program("pod_egress"), back, step, first)
                confirm = replace(there, flags=ACK)
                self.feeder.run(self.program("pod_ingress"), confirm, step, first)

        yield Path(
            "new flow, refused by a full table",
            "pod_ingress",
            fresh,
            "FLOW_TABLE_FULL",
            NEW_NS,
            fill_established,
            True,
        )
