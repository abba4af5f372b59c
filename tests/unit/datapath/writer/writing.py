"""A writer over maps that are not the kernel's, and Service ports to write."""

from dataclasses import replace

from ebpf_lb.datapath.writer import FamilyWriter
from ebpf_lb.model.values import Family, Protocol
from ebpf_lb.plan.forwarding import (
    Backend,
    Forwarding,
    Frontend,
    FrontendKind,
    ServicePortName,
)
from tests.unit.datapath.writer.fake_maps import FakeMaps

TICKS = 8


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def writer_of(fake: FakeMaps, clock: Clock | None = None) -> FamilyWriter:
    writer = FamilyWriter(fake.maps, clock or Clock(), TICKS)
    writer.adopt()
    return writer


def address(family: Family, number: int) -> bytes:
    return (b"\x0a\0\0" if family is Family.IPV4 else b"\xfd" + bytes(14)) + bytes([number])


def forwarding(
    name: str = "web",
    cluster: tuple[int, ...] = (1, 2, 3),
    local: tuple[int, ...] = (),
    vips: tuple[int, ...] = (100,),
    family: Family = Family.IPV4,
    **changes: object,
) -> Forwarding:
    def backends(numbers: tuple[int, ...]) -> tuple[Backend, ...]:
        found = {Backend(address(family, number), 8080, number % 2 == 0) for number in numbers}
        return tuple(sorted(found))

    frontends = tuple(
        Frontend(address(family, vip), 80, FrontendKind.CLUSTER_IP) for vip in sorted(vips)
    )
    result = Forwarding(
        ServicePortName("default", name, "http", Protocol.TCP),
        family,
        frontends,
        backends(cluster),
        backends(local),
        has_any=bool(cluster or local),
    )
    return replace(result, **changes)  # type: ignore[arg-type]


def from_scratch(wanted: list[Forwarding]) -> dict[str, object]:
    """What the maps hold when nothing else was ever written."""
    fake = FakeMaps(Family.IPV4)
    writer = writer_of(fake)
    for one in wanted:
        writer.set(one)
    return fake.state()
