"""Counting drops by Service, and telling whoever listens: the program that ends a packet."""

import struct
import time

from ebpf_lb.agent.upkeep.drop_counts import DropCounts
from ebpf_lb.datapath.layout import Verdict
from ebpf_lb.datapath.reader import View
from ebpf_lb.datapath.reader.counters import service_drops
from ebpf_lb.datapath.reader.events import Listener, Place
from ebpf_lb.model.values import Network, parse_address
from ebpf_lb.plan.forwarding import FrontendFlag, FrontendKind
from tests.datapath.kernel import LOOPBACK, Kernel
from tests.support.packets import Packet

DROPPED = 2  # TC_ACT_SHOT
BACKENDS = {4: "10.1.0.1", 6: "fd00:1::1"}
ADDRESSES = {4: ("198.51.100.7", "10.96.0.1"), 6: ("2001:db8::7", "fd00::1")}


def packet(kernel: Kernel) -> Packet:
    source, destination = ADDRESSES[kernel.family]
    return Packet(source, destination, 40000, 80)


def ends(kernel: Kernel, reason: str, service_id: int) -> None:
    """As a program leaves it to `dropped`: which CPU the run is on, nobody knows."""
    layout = kernel.layout.struct("scratch")
    with kernel.open("scratch") as scratch:
        value = bytearray(scratch.lookup(bytes(4)) or b"")
        for start in range(0, len(value), scratch.stride):
            for name, number in (
                ("end_reason", kernel.reason_number(reason)),
                ("end_service", service_id),
            ):
                struct.pack_into("=I", value, start + layout.offset(name), number)
        scratch.update(bytes(4), bytes(value))


def service(kernel: Kernel) -> tuple[int, str]:
    name = kernel.service(ADDRESSES[kernel.family][1], 80, [])
    return kernel.writer.service_id(name) or 0, str(name)


def test_drops_are_counted_by_reason_and_service(kernel: Kernel) -> None:
    number, name = service(kernel)
    for reason, service_id in (("SOURCE_RANGE", number), ("SOURCE_RANGE", number), ("NO_ROUTE", 0)):
        ends(kernel, reason, service_id)
        assert kernel.run("dropped", packet(kernel)).verdict == DROPPED
    assert kernel.counters() == {"SOURCE_RANGE": 2, "NO_ROUTE": 1}
    found = list(service_drops(View(kernel.build, kernel.family)))
    assert [(one.service, one.reason.name, one.packets) for one in found] == [
        (None, "NO_ROUTE", 1),
        (name, "SOURCE_RANGE", 2),
    ]
    assert found[1].reason.verdict is Verdict.DROP


def test_a_service_that_is_gone_leaves_no_count_to_the_next(kernel: Kernel) -> None:
    number, name = service(kernel)
    for service_id in (number, 0):
        ends(kernel, "NO_ROUTE", service_id)
        kernel.run("dropped", packet(kernel))
    counts = DropCounts(kernel.build, kernel.family)
    counts.check()
    assert len(list(service_drops(View(kernel.build, kernel.family)))) == 2
    kernel.writer.retain(())
    counts.check()
    kernel.writer.housekeeping(time.monotonic() + 2)
    another = kernel.service(ADDRESSES[kernel.family][1], 80, [], name="another")
    assert kernel.writer.service_id(another) == number
    left = service_drops(View(kernel.build, kernel.family))
    assert [(one.service, one.packets) for one in left] == [(None, 1)]
    assert name != str(another)


def test_nobody_listens(kernel: Kernel) -> None:
    ends(kernel, "NO_ROUTE", 0)
    kernel.run("dropped", packet(kernel))
    with kernel.open("events") as events:
        assert not any(events.lookup(bytes(4)) or b"")


def test_a_listener_hears_of_drops(kernel: Kernel) -> None:
    number, _ = service(kernel)
    with Listener(View(kernel.build, kernel.family)) as listener:
        listener.listen(drops=True, new=False)
        ends(kernel, "SOURCE_RANGE", number)
        kernel.run("dropped", packet(kernel), LOOPBACK)
        (event,) = listener.take()
    assert (event.reason.name, event.service_id, event.ifindex) == (
        "SOURCE_RANGE",
        number,
        LOOPBACK,
    )
    assert event.place is Place.TC
    source, destination = map(parse_address, ADDRESSES[kernel.family])
    assert (event.source, event.source_port) == (source, 40000)
    assert (event.destination, event.destination_port) == (destination, 80)
    assert event.protocol == "TCP"
    assert event.packet == packet(kernel).frame()[: len(event.packet)]
    assert event.packet_bytes == len(packet(kernel).frame())
    assert abs(event.time_ns - time.clock_gettime_ns(time.CLOCK_MONOTONIC)) < 60e9


def test_who_listens_for_connections_hears_of_no_drop(kernel: Kernel) -> None:
    with Listener(View(kernel.build, kernel.family)) as listener:
        listener.listen(drops=False, new=True)
        ends(kernel, "NO_ROUTE", 0)
        kernel.run("dropped", packet(kernel))
        assert listener.take() == []


def test_what_a_slow_reader_missed_is_told(kernel: Kernel) -> None:
    room = kernel.layout.map("events").max_entries
    assert isinstance(room, int)
    with Listener(View(kernel.build, kernel.family)) as slow:
        slow.listen(drops=True, new=False)
        ends(kernel, "NO_ROUTE", 0)
        frame = packet(kernel).frame()
        kernel.program("dropped").test_run(frame, repeat=room + 10)
        found = slow.take()
    assert len(found) == room
    assert slow.lost == 10
    assert [one.number for one in found] == list(range(found[0].number, found[0].number + room))


def test_a_wish_ends_by_itself(kernel: Kernel) -> None:
    """Somebody who was killed while listening costs nothing any more."""
    with Listener(View(kernel.build, kernel.family)) as listener:
        listener.listen(drops=True, new=False, for_s=0)
        time.sleep(0.6)
        ends(kernel, "NO_ROUTE", 0)
        kernel.run("dropped", packet(kernel))
        assert listener.take() == []


def test_at_xdp(kernel: Kernel) -> None:
    ends(kernel, "SOURCE_RANGE", 0)
    with Listener(View(kernel.build, kernel.family)) as listener:
        listener.listen(drops=True, new=False)
        kernel.program("xdp_dropped").test_run(packet(kernel).frame())
        (event,) = listener.take()
    assert event.place is Place.XDP
    assert (event.source_port, event.destination_port) == (40000, 80)


def test_a_refusal_is_told_with_its_service(kernel: Kernel) -> None:
    _, name = service(kernel)
    with Listener(View(kernel.build, kernel.family)) as listener:
        listener.listen(drops=True, new=False)
        kernel.run("uplink_ingress", packet(kernel))
        (event,) = listener.take()
    assert (event.reason.name, event.service) == ("NO_ENDPOINTS", name)
    assert event.packet == packet(kernel).frame()[: len(event.packet)]  # not the answer
    found = list(service_drops(View(kernel.build, kernel.family)))
    assert [(one.service, one.reason.name, one.packets) for one in found] == [
        (name, "NO_ENDPOINTS", 1)
    ]


def test_a_drop_is_counted_once_and_with_its_service(kernel: Kernel) -> None:
    address = ADDRESSES[kernel.family][1]
    network = Network(parse_address("192.0.2.0" if kernel.family == 4 else "fd00:9::"), 24)
    name = kernel.service(
        address,
        80,
        [(BACKENDS[kernel.family], 8080)],
        kind=FrontendKind.LOAD_BALANCER,
        flags=FrontendFlag.SOURCE_RANGES,
        source_ranges=(network,),
    )
    assert kernel.run("uplink_ingress", packet(kernel)).verdict == DROPPED
    assert kernel.counters() == {"SOURCE_RANGE": 1}
    found = list(service_drops(View(kernel.build, kernel.family)))
    assert [(one.service, one.packets) for one in found] == [(str(name), 1)]


def test_a_port_that_nobody_serves_is_no_services(kernel: Kernel) -> None:
    """Not the one of the packet before."""
    service(kernel)
    kernel.run("uplink_ingress", packet(kernel))
    kernel.run("uplink_ingress", packet(kernel).but(destination_port=81))
    found = list(service_drops(View(kernel.build, kernel.family)))
    assert [(one.service_id, one.reason.name) for one in found if not one.service_id] == [
        (0, "UNSERVED_PORT")
    ]


def test_a_new_connection_is_told_with_its_backend(kernel: Kernel) -> None:
    address = ADDRESSES[kernel.family][1]
    name = kernel.service(address, 80, [], local=[(BACKENDS[kernel.family], 8080)])
    with Listener(View(kernel.build, kernel.family)) as listener:
        listener.listen(drops=True, new=True)
        for _ in range(2):  # only the first packet is an event
            kernel.run("uplink_ingress", packet(kernel))
        (event,) = listener.take()
    assert (event.reason.name, event.service) == ("NEW", str(name))
    backend = parse_address(BACKENDS[kernel.family])
    assert (event.backend, event.backend_port) == (backend, 8080)
    assert event.destination == parse_address(address)
