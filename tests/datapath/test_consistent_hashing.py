"""Connections through a Maglev table, by packets."""

from collections import Counter

from ebpf_lb.datapath.dump import dump
from ebpf_lb.datapath.reader import View
from ebpf_lb.model.values import Family, format_endpoint, parse_address
from ebpf_lb.plan.forwarding import Table
from ebpf_lb.plan.maglev import size_for
from tests.datapath.kernel import Kernel
from tests.support.packets import Packet

VIP = {Family.IPV4: "10.96.0.20", Family.IPV6: "fd00:10:96::20"}
CLIENT = {Family.IPV4: "10.244.1.2", Family.IPV6: "fd00:10:244:1::2"}
FLOWS = 3000


def backends(kernel: Kernel, numbers: range) -> list[tuple[str, int]]:
    prefix = "10.244.2." if kernel.family is Family.IPV4 else "fd00:10:244:2::"
    return [(f"{prefix}{number}", 9376) for number in numbers]


def choices(kernel: Kernel) -> list[str]:
    """Of many connections: who gets them."""
    found = []
    for port in range(20000, 20000 + FLOWS):
        sent = Packet(CLIENT[kernel.family], VIP[kernel.family], port, 80)
        result = kernel.run("pod_ingress", sent)
        if result.packet.destination_port != 9376:  # more than the test's table holds
            kernel.forget_flows()
            result = kernel.run("pod_ingress", sent)
        found.append(result.packet.destination)
    kernel.forget_flows()
    return found


def test_one_of_a_hundred_leaves(kernel: Kernel) -> None:
    vip, many = VIP[kernel.family], backends(kernel, range(100, 200))
    table = Table(size_for(100))
    kernel.service(vip, 80, many, name="web", table=table)
    before = choices(kernel)
    gone = many.pop(50)
    kernel.service(vip, 80, many, name="web", table=table)
    after = choices(kernel)
    assert len(set(before)) == 100 and gone[0] not in after
    assert all(a != gone[0] for a in after)
    moved = sum(a != b for a, b in zip(before, after, strict=True) if a != gone[0])
    assert moved / FLOWS <= 0.02
    kernel.service(vip, 80, [*many, gone], name="web", table=table)
    assert choices(kernel) == before


def test_weights_are_kept(kernel: Kernel) -> None:
    many = backends(kernel, range(1, 4))
    kernel.service(VIP[kernel.family], 80, many, table=Table(1601, (1, 2, 3)))
    counts = Counter(choices(kernel))
    for weight, (address, _) in enumerate(many, 1):
        assert abs(counts[address] / FLOWS - weight / 6) < 0.04  # five standard deviations


def test_the_dump_counts_slots(kernel: Kernel) -> None:
    many = backends(kernel, range(1, 3))
    kernel.service(VIP[kernel.family], 80, many, table=Table(11, (1, 10)))
    (row,) = dump(View(kernel.build, kernel.family), "services")
    places = [format_endpoint(parse_address(address), port) for address, port in many]
    assert row["cluster"] == [f"{places[0]} (1 slots)", f"{places[1]} (10 slots)"]
