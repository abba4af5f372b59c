"""The writer on the kernel's own maps; its size at 10,000 Services of 10 endpoints."""

import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from ebpf_lb.datapath.layout import load
from ebpf_lb.datapath.writer import FamilyMaps, FamilyWriter
from ebpf_lb.model.values import Family, Protocol
from ebpf_lb.plan.forwarding import Backend, Forwarding, Frontend, FrontendKind, ServicePortName

from ..capabilities import BPF, BPFFS, ROOT, needs
from .pinned import pin_build, pins

pytestmark = needs(ROOT, BPF, BPFFS)

SERVICES, ENDPOINTS = 10_000, 10
CAPACITIES = {"frontends": 1 << 17, "services": 1 << 15, "backends": 1 << 17, "slots": 1 << 20}
CAPACITIES |= {"names": 1 << 15, "service_counters": 1 << 15, "vip_filter": 32768}

Start = Callable[[], FamilyWriter]


@pytest.fixture(params=list(Family))
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Each call is an agent's start over the same pinned maps."""
    with pins("writer") as where:
        build = pin_build(where, entries=CAPACITIES)

        def begin() -> FamilyWriter:
            maps = FamilyMaps.open(build, request.param)
            writer = FamilyWriter(maps, time.monotonic, 8)
            writer.adopt()
            return writer

        yield begin


def forwarding(family: Family, number: int, shift: int = 0) -> Forwarding:
    def address(network: int, host: int) -> bytes:
        four = (10 << 24 | network << 16) + host
        return four.to_bytes(4) if family is Family.IPV4 else b"\xfd" + bytes(11) + four.to_bytes(4)

    backends = [address(1, number * ENDPOINTS + index + shift) for index in range(ENDPOINTS)]
    return Forwarding(
        ServicePortName(f"namespace-{number % 50}", f"service-{number}", "http", Protocol.TCP),
        family,
        (Frontend(address(96, number), 80, FrontendKind.CLUSTER_IP),),
        tuple(Backend(backend, 8080, False) for backend in backends),
        (),
        has_any=True,
    )


@pytest.mark.rule("CP-2")
def test_a_restart_writes_nothing_and_deletion_leaves_nothing(start: Start) -> None:
    writer = start()
    wanted = [forwarding(writer.family, number) for number in range(20)]
    for one in wanted:
        writer.set(one)
    writer.set(forwarding(writer.family, 3, shift=1))
    wanted[3] = forwarding(writer.family, 3, shift=1)
    heir = start()
    assert {name.name for name in heir.names()} == {f"service-{number}" for number in range(20)}
    for one in wanted:
        heir.set(one)
        assert heir.service_id(one.name) == writer.service_id(one.name)
    heir.retain([one.name for one in wanted])
    assert not heir.stats
    heir.retain([])
    heir.housekeeping(time.monotonic() + 2)
    for name in ("frontends", "names", "backends", "source_ranges"):
        held = getattr(heir._maps, name).items()
        assert not any(any(value) for _, value in held), name
    assert heir._maps.services.used() == []


def test_what_the_kernel_holds_is_what_was_asked(start: Start) -> None:
    writer = start()
    asked = forwarding(writer.family, 7)
    writer.set(asked)
    maps, layout = writer._maps, load(writer.family)
    frontend = asked.frontends[0]
    key = layout.struct("frontend_key").pack(address=frontend.address, port=80, protocol=6)
    value = maps.frontends.lookup(key)
    assert value is not None
    service_id = layout.struct("frontend").unpack(value).service_id
    region = maps.services.load(service_id, layout.struct("service").offset("cluster"))
    slots = maps.slots.slice(region & 0xFFFFFFFF, region >> 32)
    found = []
    for start_of in range(0, len(slots), 4):
        backend = layout.struct("backend").unpack(maps.backends.lookup(slots[start_of:][:4]))
        found.append(Backend(backend.address, backend.port, False))
    assert tuple(found) == asked.cluster


def test_a_restart_at_ten_thousand_services_is_small(start: Start) -> None:
    """How long all of it takes, `make bench` tells."""
    writer = start()
    assert writer.set_all(forwarding(writer.family, number) for number in range(SERVICES)) == []
    assert writer.stats["backends"] == SERVICES * ENDPOINTS
    del writer
    tracemalloc.start()
    heir = start()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(heir.names()) == SERVICES
    assert size < 12e6
