"""A pinned node with a little of everything in its maps, as the agent and the programs write it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ebpf_lb.datapath.clock import ticks_per_second
from ebpf_lb.datapath.layout import load
from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.libbpf.object import possible_cpus
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.datapath.writer import FamilyMaps, FamilyWriter
from ebpf_lb.model.values import Family, Network, Protocol, parse_address
from ebpf_lb.plan.forwarding import (
    Backend,
    Forwarding,
    Frontend,
    FrontendFlag,
    FrontendKind,
    ServicePortName,
)
from tests.datapath.pinned import pin_build, pins
from tests.datapath.words import ESTABLISHED, in_state

NOW = 5000  # the tick at which the pinned clock stands
VIP, POD = parse_address("10.96.0.10"), parse_address("10.1.0.7")


@contextmanager
def written_node(name: str) -> Iterator[Pins]:
    """A node with one Service, a flow that is 10 s old, and a client with affinity."""
    with pins(name) as where:
        build = pin_build(where, entries={"flows": 1 << 18}, tick=NOW)
        layout = load(Family.IPV4)
        writer = FamilyWriter(
            FamilyMaps.open(build, Family.IPV4), time.monotonic, ticks_per_second()
        )
        writer.adopt()
        writer.set(
            Forwarding(
                ServicePortName("default", "web", "http", Protocol.TCP),
                Family.IPV4,
                (
                    Frontend(VIP, 80, FrontendKind.CLUSTER_IP),
                    Frontend(
                        parse_address("192.0.2.1"),
                        80,
                        FrontendKind.LOAD_BALANCER,
                        FrontendFlag.LOCAL | FrontendFlag.SOURCE_RANGES,
                    ),
                ),
                (Backend(POD, 8080, True), Backend(parse_address("10.2.0.1"), 8080, False)),
                (Backend(POD, 8080, True),),
                has_any=True,
                affinity_timeout_s=10800,
                source_ranges=(Network(parse_address("198.51.100.0"), 24),),
            )
        )
        writer.set_interface(1)
        writer.set_pod_networks([Network(parse_address("10.0.0.0"), 8)])
        then = NOW - round(10 * ticks_per_second())
        defines = layout.defines
        word = in_state(then | 1 << defines["FLOW_PROTOCOL_SHIFT"], ESTABLISHED)
        word |= 1 << defines["FLOW_SERVICE_SHIFT"]
        entry = layout.struct("flow").pack(
            word=word,
            client=parse_address("10.1.0.9"),
            vip=VIP,
            backend=POD,
            client_port=40000,
            vip_port=80,
            backend_port=8080,
            snat_port=0,
        )
        claimed = (1 << defines["FLOW_STATE_SHIFT"]).to_bytes(8, "little") + bytes(24)
        with Map.open(build.maps(Family.IPV4) / "flows") as flows:
            index = (200_000).to_bytes(4, "little")
            flows.update(index, claimed + bytes(32) + entry + bytes(32))
        with Map.open(build.maps(Family.IPV4) / "affinity") as affinity:
            affinity.update(
                layout.struct("affinity_key").pack(client=parse_address("10.1.0.9"), service_id=1),
                layout.struct("affinity").pack(backend_id=1, last_used=NOW),
            )
        with Map.open(build.maps(Family.IPV4) / "counters") as counters:
            key = (16).to_bytes(4, "little")
            one = layout.struct("counter").pack(packets=2, bytes=100)
            counters.update(key, one * possible_cpus())
        yield where
