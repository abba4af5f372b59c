"""Packets of many flows for one test run: feeder.c, its parameters, and measuring with it."""

from __future__ import annotations

import ctypes
import functools
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebpf_lb.datapath.layout import sources
from ebpf_lb.datapath.libbpf import Map, Program
from ebpf_lb.model.values import Family, parse_address
from tests.datapath.kernel import LOOPBACK, tc_context, xdp_context
from tests.datapath.pinned import SCHEDULER_CLASSIFIER, XDP, load_code
from tests.support.packets import GATEWAY_MAC, SCTP, SYN, TCP, UDP, Packet

_FEED = struct.Struct("=5I16s16sHH")
_XDP_HAS_FRAGMENTS = 1 << 5
_INDEX = struct.Struct("=I")
EMPTY = 0
ENDLESS = 0xFFFFFFFF
PAYLOAD_BYTES = 64


@dataclass(frozen=True)
class Traffic:
    """Packets of flows 0 … flows - 1, over and over. Addresses are those of client and peer 0.

    turned: the peer sends (replies). flags: TCP's.
    """

    client: str
    peer: str
    port: int
    protocol: int = TCP
    flows: int = 1
    services: int = 1
    turned: bool = False
    flags: int = 0x10

    def frame(self) -> bytes:
        # DATA, or INIT where connections are to be opened
        chunk = b"\1\0\0\x14" if self.flags & SYN else b"\0\3\0\x10"
        payload = chunk + bytes(PAYLOAD_BYTES) if self.protocol == SCTP else bytes(64)
        return Packet(
            self.client,
            self.peer,
            1,
            2,
            self.protocol,
            flags=self.flags,
            acknowledged=1001,  # the other side's first number is 1000, by default
            payload=payload,
        ).frame()


def _halves(address: str) -> bytes:
    """As feeder.c wants it: words as on the wire, the last one in the machine's order."""
    packed = parse_address(address).rjust(16, b"\0")
    return packed[:12] + struct.pack("=I", int.from_bytes(packed[12:]))


class Feeder:
    """One family's feeder, for programs of TC or of XDP. Compiled here; not pinned, so it goes with
    the process. `ifindex`: the interface that its packets come in by."""

    def __init__(self, family: Family, ifindex: int = LOOPBACK, *, xdp: bool = False) -> None:
        os.environ["BCC_KERNEL_SOURCE"] = str(sources() / "kernel")
        from bcc import BPF  # type: ignore[import-not-found,unused-ignore]

        ipv4 = family is Family.IPV4
        numbers = {
            "ADDRESS_WORDS": 1 if ipv4 else 4,
            "SOURCE": 14 + (12 if ipv4 else 8),
            "TRANSPORT": 14 + (20 if ipv4 else 40),
            "HOP_LIMIT": 14 + (8 if ipv4 else 7),
            **{f"MAC_{n}": half for n, half in enumerate(struct.unpack("=3H", GATEWAY_MAC))},
            **({"XDP": 1} if xdp else {}),
        }
        includes = ["/usr/include", f"/usr/include/{os.uname().machine}-linux-gnu"]
        self._module: Any = BPF(
            text=(Path(__file__).parent / "feeder.c").read_bytes(),
            cflags=[
                *(f"-D{name}={number}" for name, number in numbers.items()),
                *(word for folder in includes for word in ("-isystem", folder)),
                "-Wno-address-of-packed-member",
            ],
        )
        # not by bcc, which knows no flags: one array's programs must agree in them
        code = self._module.dump_func(b"feeder")
        self._program = (
            load_code("feeder", code, XDP, flags=_XDP_HAS_FRAGMENTS)
            if xdp
            else load_code("feeder", code, SCHEDULER_CLASSIFIER)
        )
        self._context = functools.partial(xdp_context if xdp else tc_context, ifindex)
        self._feeds = Map(os.dup(self._module[b"feeds"].map_fd), "feeds")
        self._programs = Map(os.dup(self._module[b"programs"].map_fd), "programs")
        self._indices: dict[int, int] = {}

    def index(self, program: Program) -> int:
        """The number by which `run` calls this program."""
        number = program.info().id
        if number not in self._indices:
            self._indices[number] = len(self._indices)
            key = _INDEX.pack(self._indices[number])
            self._programs.update(key, _INDEX.pack(program.fd))
        return self._indices[number]

    def run(self, program: Program, traffic: Traffic, packets: int, start: int = 0) -> int:
        """Mean ns a packet of feeder and program, over `packets` from flow number `start` on."""
        transport = traffic.frame()[14 + (40 if ":" in traffic.client else 20) :]
        self._feeds.update(
            _INDEX.pack(0),
            _FEED.pack(
                start % traffic.flows,
                traffic.flows,
                traffic.services,
                traffic.turned,
                self.index(program),
                _halves(traffic.client),
                _halves(traffic.peer),
                socket.htons(traffic.port),
                int.from_bytes(transport[12:14], "little"),
            ),
        )
        frame = traffic.frame()
        context = self._context(len(frame))
        return self._program.test_run(frame, context, repeat=packets).duration_ns


assert ctypes.sizeof(ctypes.c_uint32) * 13 + 4 == _FEED.size
assert UDP == socket.IPPROTO_UDP
