"""What Services that share addresses cost, from the change to the kernel's maps, in CPU time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

from ebpf_lb.agent.programming.programmer import Programmer
from ebpf_lb.datapath.writer import FamilyMaps, FamilyWriter
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.model.service import Service, ServicePort, ServiceType
from ebpf_lb.model.values import Family, Protocol
from ebpf_lb.plan.cluster import Cluster
from ebpf_lb.plan.node import NodeView
from tests.bench.writer import line
from tests.datapath.pinned import pin_build, pins
from tests.datapath.test_writer_kernel import CAPACITIES
from tests.unit.agent.fakes import Log

CHANGE_MS, ALL_MS = 10.0, 2000.0


def lines(rivals: int = 1000, ports: int = 1000, addresses: int = 100) -> Iterator[str]:
    """One for each figure."""
    with pins("bench-rivals") as where:
        maps = FamilyMaps.open(pin_build(where, entries=CAPACITIES), Family.IPV4)
        node = _Agent(maps)
        shared = (bytes([203, 0, 113, 1]),)
        for number in range(rivals):
            node.cluster.set_service(_service(number, 1, shared))
        node.sync()
        taken = []
        for number in range(20):
            change = _service(number, 2, shared)  # of the one that has the address, and of others
            taken.append(node.time(lambda one=change: node.cluster.set_service(one)))  # type: ignore[misc]
        yield line("ipv4", f"a change among {rivals:,} Services of one address", median(taken),
                   CHANGE_MS)  # fmt: skip
        yield line("ipv4", "the slowest of these", max(taken), CHANGE_MS)
    with pins("bench-rivals") as where:
        maps = FamilyMaps.open(pin_build(where, entries=CAPACITIES), Family.IPV4)
        node = _Agent(maps)
        many = tuple(bytes([203, 0, 113, last]) for last in range(addresses))

        def both() -> None:
            for number in (1, 0):
                node.cluster.set_service(_service(number, ports, many))

        what = f"two Services of {ports:,} ports on {addresses} shared addresses"
        yield line("ipv4", what, node.time(both), ALL_MS)


class _Agent:
    """Its part between a Service and the maps."""

    def __init__(self, maps: FamilyMaps) -> None:
        writer = FamilyWriter(maps, time.monotonic, 8)
        writer.adopt()
        self.cluster = Cluster(NodeView("node1", "", ()))
        self.programmer = Programmer({Family.IPV4: writer}, time.monotonic, Log())
        self.programmer.remove_unwanted()

    def sync(self) -> None:
        for key in self.cluster.take_changes():
            self.programmer.program(key, self.cluster.plan(key), self.cluster.priority(key))
            self.cluster.problems(key)
        self.programmer.remove_unwanted()

    def time(self, change: object) -> float:
        """Milliseconds."""
        began = time.process_time()
        assert callable(change)
        change()
        self.sync()
        return 1000 * (time.process_time() - began)


def _service(number: int, ports: int, external_ips: tuple[bytes, ...]) -> Service:
    return Service(
        key=ObjectKey(f"namespace-{number % 50}", f"service-{number}"),
        created_s=number,
        type=ServiceType.CLUSTER_IP,
        cluster_ips=(b"\x0a\x60" + number.to_bytes(2),),
        ports=tuple(ServicePort(f"p{at}", Protocol.TCP, at) for at in range(1, ports + 1)),
        external_ips=external_ips,
    )
