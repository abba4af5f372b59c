"""The real programs, loaded once for all packet tests, and run on single packets.

Maps are emptied between tests by taking every Service away and zeroing the tables that programs
write, so that a test sees nothing of another.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ebpf_lb.datapath import clock, layout
from ebpf_lb.datapath.layout import Verdict
from ebpf_lb.datapath.libbpf import Map, Program
from ebpf_lb.datapath.loader import ensure_loaded
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.datapath.sweep import FlowSweep
from ebpf_lb.datapath.writer import FamilyMaps, FamilyWriter
from ebpf_lb.model.service import Algorithm
from ebpf_lb.model.values import Family, Network, Protocol, parse_address
from ebpf_lb.plan.forwarding import (
    NO_FLAGS,
    Backend,
    Forwarding,
    Frontend,
    FrontendFlag,
    FrontendKind,
    ServicePortName,
    Table,
)
from tests.datapath.words import earlier, state_of
from tests.support.packets import GATEWAY_MAC, Packet, parse

only_ipv4 = pytest.mark.parametrize("kernel", [Family.IPV4], indirect=True, ids=["ipv4"])
"""For what IPv6 does not have, such as routers that fragment."""

TC_NEXT, TC_SHOT, TC_REDIRECT = 0xFFFFFFFF, 2, 7
XDP_DROP, XDP_PASS, XDP_TX = 1, 2, 3
LOOPBACK = 1  # the ifindex that test runs name by default
NODE = {Family.IPV4: "172.30.0.11", Family.IPV6: "fd30::11"}


@dataclass(frozen=True)
class Result:
    """What a program made of a packet."""

    verdict: int
    packet: Packet
    frame: bytes

    @property
    def passed(self) -> bool:
        return self.verdict == TC_NEXT

    @property
    def dropped(self) -> bool:
        return self.verdict == TC_SHOT

    @property
    def redirected(self) -> bool:
        return self.verdict == TC_REDIRECT

    @property
    def sent_on(self) -> bool:
        """Left to the kernel at the last hook, or sent out by XDP."""
        return self.passed or self.redirected


@contextmanager
def loaded(name: str, settings: Settings) -> Iterator[Path]:
    """A build of these settings under a bpffs folder of its own, gone at the end."""
    root = Path(f"/sys/fs/bpf/ebpf-lb-{name}-{os.getpid()}")
    try:
        ensure_loaded(root, settings)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def xdp_context(ifindex: int, length: int) -> bytes:
    """struct xdp_md: data, its end, no meta data, the interface and its first queue."""
    return struct.pack("=6I", 0, length, 0, ifindex, 0, 0)


def tc_context(ifindex: int, length: int = 0, segment: int = 0) -> bytes:
    """struct __sk_buff with nothing but the interface's number and the size of segments; of the
    length the kernel knows by itself."""
    return (
        bytes(40) + struct.pack("=I", ifindex) + bytes(132) + struct.pack("=I", segment) + bytes(12)
    )


def _earlier(tick: bytes, ticks: int) -> bytes:
    return struct.pack("=I", struct.unpack("=I", tick)[0] - ticks & 0xFFFFFFFF)


def _bytes_of(packet: Packet | bytes) -> bytes:
    return packet if isinstance(packet, bytes) else packet.frame()


def _result(verdict: int, frame: bytes) -> Result:
    return Result(verdict, parse(frame), frame)


class Kernel:
    """One family's programs and maps."""

    def __init__(self, root: Path, family: Family) -> None:
        self.family = family
        self.build = Pins(root).current
        self.layout = layout.load(family)
        self._reasons = {number: one.name for number, one in self.layout.reasons.items()}
        self._programs: dict[str, Program] = {}
        self._names = itertools.count()
        self.maps = FamilyMaps.open(self.build, family)
        self.reset()

    def reset(self) -> None:
        self.writer = FamilyWriter(self.maps, time.monotonic, clock.ticks_per_second())
        self.writer.adopt()
        self.writer.retain(())
        self.writer.housekeeping(time.monotonic() + 2)  # what was freed is free at once
        self.forget_flows()
        self._empty(
            ("counters", "service_counters", "flow_events", "census", "reject_bucket", "outcomes"),
            ("sockets", "interfaces", "frontends", "service_drops"),
        )
        self._empty(("listening", "events"), ())
        self.writer = FamilyWriter(self.maps, time.monotonic, clock.ticks_per_second())
        self.writer.adopt()
        self.writer.set_config(0, False, 1000)
        self.writer.set_pod_networks(())
        self.writer.set_crc32c_shifts()
        self.writer.set_snat_source(1, parse_address(NODE[self.family]))
        self.writer.set_interface(LOOPBACK, 0, 1, GATEWAY_MAC)

    def _empty(self, arrays: Iterable[str], hashes: Iterable[str]) -> None:
        for name in arrays:
            with self.open(name) as table:
                self._zero(table)
        for name in hashes:
            with self.open(name) as table:
                for key in list(table.keys()):
                    table.delete(key)

    def _zero(self, table: Map) -> None:
        step = 4096
        for first in range(0, table.max_entries, step):
            values = table.slice(first, min(step, table.max_entries - first))
            if not values.strip(b"\0"):
                continue
            width = len(table.lookup(bytes(4)) or b"")
            for number in range(len(values) // width):
                if values[number * width : (number + 1) * width].strip(b"\0"):
                    table.update(struct.pack("=I", first + number), bytes(width))

    def forget_ways(self) -> None:
        """As if a tick had begun for every flow's way out."""
        way = self.layout.struct("way")
        with self.open("ways") as table:
            for key, ways in list(table.items()):
                each = [ways[at : at + way.size] for at in range(0, len(ways), way.size)]
                if any(one.strip(b"\0") for one in each):
                    # backends' ids and the places of signposts' flows stay
                    kept = [one[: way.offset("ifindex")].ljust(way.size, b"\0") for one in each]
                    table.update(key, b"".join(kept))

    def open(self, name: str) -> Map:
        scope = None if name == "reject_bucket" else self.family
        return Map.open(self.build.maps(scope) / name)

    def program(self, name: str) -> Program:
        if name not in self._programs:
            # at XDP there is room for one program, which calls the other family's
            family = Family.IPV4 if name == "xdp_ingress" else self.family
            self._programs[name] = Program.open(self.build.programs(family) / name)
        return self._programs[name]

    def run(
        self, name: str, packet: Packet | bytes, ifindex: int = LOOPBACK, segment: int = 0
    ) -> Result:
        """Runs a program on a packet, as on the interface of that number; `segment`: the payload of
        each of the packets that it was joined of."""
        return _result(*self.run_frame(name, _bytes_of(packet), ifindex, segment))

    def run_frame(
        self, name: str, frame: bytes, ifindex: int = LOOPBACK, segment: int = 0, flags: int = 0
    ) -> tuple[int, bytes]:
        """The same for frames that need not be readable: verdict and frame."""
        context = tc_context(ifindex, segment=segment)
        done = self.program(name).test_run(frame, ctx_in=context, flags=flags)
        return done.retval, done.data_out

    def run_xdp(self, packet: Packet | bytes, ifindex: int = LOOPBACK) -> Result:
        """Runs what is attached to the interface of that number at XDP; Result.verdict is XDP's."""
        return _result(*self.run_xdp_frame(_bytes_of(packet), ifindex))

    def run_xdp_frame(self, frame: bytes, ifindex: int = LOOPBACK) -> tuple[int, bytes]:
        """Likewise, on any bytes: XDP's verdict, and what became of them."""
        context = xdp_context(ifindex, len(frame))
        done = self.program("xdp_ingress").test_run(frame, ctx_in=context)
        return done.retval, done.data_out

    def run_uplink(self, packet: Packet | bytes, ifindex: int, *, xdp: bool) -> Result:
        """Runs all that is attached to an uplink's ingress: TC alone, or XDP before it. Sent on by
        XDP counts as redirected; what XDP passes must be as it was."""
        return _result(*self.run_uplink_frame(_bytes_of(packet), ifindex, xdp=xdp))

    def run_uplink_frame(self, frame: bytes, ifindex: int, *, xdp: bool) -> tuple[int, bytes]:
        """The same for frames that need not be readable: TC's verdict and the frame."""
        if xdp:
            verdict, got = self.run_xdp_frame(frame, ifindex)
            if verdict == XDP_TX:
                return TC_REDIRECT, got
            if verdict == XDP_DROP:
                return TC_SHOT, got
            assert verdict == XDP_PASS and got == frame, (
                f"XDP's verdict {verdict}: {frame.hex()} became {got.hex()}"
            )
        return self.run_frame("uplink_ingress", frame, ifindex)

    def service(
        self,
        frontend: str,
        port: int,
        backends: Iterable[tuple[str, int]],
        *,
        protocol: Protocol = Protocol.TCP,
        kind: FrontendKind = FrontendKind.CLUSTER_IP,
        flags: FrontendFlag = NO_FLAGS,
        local: Iterable[tuple[str, int]] = (),
        has_any: bool | None = None,
        affinity_timeout_s: int = 0,
        source_ranges: Iterable[Network] = (),
        name: str = "",
        table: Table | None = None,
        algorithm: Algorithm = Algorithm.RANDOM,
    ) -> ServicePortName:
        """Writes a Service with one frontend; `local` backends run on this node. `table`: of the
        cluster's set."""
        here = set(local)
        backends = set(backends) | here
        service = ServicePortName("test", name or f"s{next(self._names)}", "", protocol)
        self.writer.set(
            Forwarding(
                service,
                self.family,
                (Frontend(parse_address(frontend), port, kind, flags),),
                tuple(sorted(Backend(parse_address(a), p, (a, p) in here) for a, p in backends)),
                tuple(sorted(Backend(parse_address(a), p, True) for a, p in here)),
                bool(backends) if has_any is None else has_any,
                affinity_timeout_s,
                tuple(source_ranges),
                table,
                algorithm=algorithm,
            )
        )
        return service

    def forget_flows(self) -> None:
        """Whatever packets have left behind, but for the counters."""
        self._empty(("flows", "ways", "overflows", "repliers"), ("affinity", "fragments"))
        self._empty(("connections", "turns"), ())

    def sweep(self) -> None:
        """The whole table at once; the agent does so slice by slice."""
        FlowSweep(self.build, self.family).step(1)

    def age(self, seconds: float) -> None:
        """As if whatever programs remember had been seen last so much longer ago. So a test says
        how much time has passed, and not the machine that it runs on."""
        ticks = math.ceil(seconds * clock.ticks_per_second())
        with self.open("flows") as table, table.mapped(writable=True) as mapped:
            step = table.value_size // 4 // 8  # words an entry, of which the first has the time
            for number, word in enumerate(mapped.words[::step].tolist()):
                if state_of(word):
                    mapped.words[number * step] = earlier(word, ticks)
        with self.open("overflows") as table:
            for key, value in table.items():
                if any(value):
                    table.update(key, _earlier(value, ticks))
        at = self.layout.struct("affinity").offset("last_used")
        with self.open("affinity") as table:
            for key, value in list(table.items()):
                table.update(
                    key, value[:at] + _earlier(value[at : at + 4], ticks) + value[at + 4 :]
                )

    def flows(self) -> list[tuple[int, object]]:
        """(word, entry) of every entry that is not free."""
        found = []
        unpack = self.layout.struct("flow_set").unpack
        with self.open("flows") as table:
            for _, value in table.items():
                if value.strip(b"\0"):
                    found += [(e.word, e) for e in unpack(value).entry if state_of(e.word)]
        return found

    def counters(self) -> Counter[str]:
        """Packets counted so far, by reason, for those counted at all."""
        with self.open("counters") as table:
            copies = len(table.lookup(bytes(4)) or b"") // table.stride
            words = struct.iter_unpack(f"={2 * copies}Q", table.slice(0, table.max_entries))
            found = {number: sum(row[::2]) for number, row in enumerate(words) if any(row)}
        return Counter({self._reasons[number]: packets for number, packets in found.items()})

    def drop_reasons(self) -> frozenset[str]:
        """The names of all reasons to drop a packet."""
        found = self.layout.reasons.values()
        return frozenset(one.name for one in found if one.verdict is Verdict.DROP)

    def reason_name(self, number: int) -> str:
        """What follows REASON_ in the name of that number."""
        return self._reasons[number]

    def reason_number(self, reason: str) -> int:
        """The number of REASON_<reason>."""
        return next(number for number, name in self._reasons.items() if name == reason)

    def count(self, reason: str) -> int:
        """Packets counted under REASON_<reason>."""
        number = self.reason_number(reason)
        with self.open("counters") as table:
            value = table.lookup(struct.pack("=I", number)) or b""
        return sum(
            struct.unpack_from("=Q", value, at)[0] for at in range(0, len(value), table.stride)
        )

    def connections(self, service: ServicePortName) -> tuple[int, int, int]:
        """Connections, packets and bytes of a Service port."""
        with self.open("service_counters") as table:
            value = table.lookup(struct.pack("=I", self.writer.service_id(service) or 0)) or b""
            copies = [
                struct.unpack_from("=QQQ", value, at) for at in range(0, len(value), table.stride)
            ]
        return tuple(map(sum, zip(*copies, strict=True)))  # type: ignore[return-value]


class Tally:
    """What was counted since it was last asked. Cheap enough to be asked after every packet."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._table = kernel.open("counters")
        self._stride = self._table.stride
        self._row = len(self._table.lookup(bytes(4)) or b"")
        self._held = self._read()

    def _read(self) -> bytes:
        return self._table.slice(0, self._table.max_entries)

    def since(self) -> Counter[str]:
        """Packets by reason."""
        now, before = self._read(), self._held
        found: Counter[str] = Counter()
        if now == before:
            return found
        self._held = now
        differing = int.from_bytes(now, "little") ^ int.from_bytes(before, "little")
        while differing:
            first = ((differing & -differing).bit_length() - 1) // 8
            at = first - first % self._stride
            more = struct.unpack_from("=Q", now, at)[0] - struct.unpack_from("=Q", before, at)[0]
            if more:
                found[self._kernel.reason_name(at // self._row)] += more
            done = (at + self._stride) * 8
            differing = differing >> done << done
        return found


@contextmanager
def kernels(name: str, settings: Settings) -> Iterator[dict[Family, Kernel]]:
    """Both families of a build of its own, for modules with other settings than the session's."""
    with loaded(name, settings) as root:
        yield {family: Kernel(root, family) for family in Family}
