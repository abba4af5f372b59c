"""The least program that serves a Service (stripped.c), to measure ours against."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ebpf_lb.datapath.layout import sources
from ebpf_lb.datapath.libbpf import InterfaceHook, Link, Map, Program
from ebpf_lb.lab import namespaces
from ebpf_lb.model.values import Family, parse_address
from tests.datapath.pinned import SCHEDULER_CLASSIFIER, load_code

NAMES = ("stripped_client", "stripped_pod")
"""At the client's interface, and at the pod's."""


class Stripped:
    """One family's, with maps of their own. Not pinned: they go with the process."""

    def __init__(self, family: Family, flows: int = 1 << 16) -> None:
        os.environ["BCC_KERNEL_SOURCE"] = str(sources() / "kernel")
        from bcc import BPF  # type: ignore[import-not-found,unused-ignore]

        self._length = 4 if family is Family.IPV4 else 16
        numbers = {
            "ADDRESS_WORDS": self._length // 4,
            "SOURCE": 14 + (12 if family is Family.IPV4 else 8),
            "TRANSPORT": 14 + (20 if family is Family.IPV4 else 40),
            "PROTOCOL": 14 + (9 if family is Family.IPV4 else 6),
            "ETHERTYPE": socket.htons(0x0800 if family is Family.IPV4 else 0x86DD),
            "FLOWS": flows,
        }
        includes = ["/usr/include", f"/usr/include/{os.uname().machine}-linux-gnu"]
        self._module: Any = BPF(
            text=Path(__file__).with_suffix(".c").read_bytes(),
            cflags=[
                *(f"-D{name}={number}" for name, number in numbers.items()),
                *(word for folder in includes for word in ("-isystem", folder)),
            ],
        )
        self.programs: dict[str, Program] = {
            name: load_code(name, self._module.dump_func(name.encode()), SCHEDULER_CLASSIFIER)
            for name in NAMES
        }
        self._services = Map(os.dup(self._module[b"services"].map_fd), "services")

    def serve(
        self, protocol: int, asked: tuple[str, int], by: tuple[str, int], ifindex: int
    ) -> None:
        """`by`: the only endpoint, behind the interface of this number."""
        destination, port = parse_address(asked[0]), asked[1]
        key = bytes(self._length) + destination + struct.pack("!HH", 0, port)
        value = parse_address(by[0]) + struct.pack("!HH", by[1], 0) + struct.pack("=I", ifindex)
        self._services.update(key + struct.pack("=I", protocol), value)

    @contextmanager
    def attached(self, node: Path, client: int, pod: int) -> Iterator[None]:
        """At these interfaces of a node, meanwhile."""
        with namespaces.entered(node):
            links = [
                Link.attach_interface(self.programs[name], ifindex, InterfaceHook.INGRESS)
                for name, ifindex in zip(NAMES, (client, pod), strict=True)
            ]
        try:
            yield
        finally:
            for link in links:
                link.close()


def other_end(pod: Path) -> int:
    """The number of the node's end of a pod's wire."""
    with namespaces.entered(pod):
        listed = subprocess.run(
            ["ip", "-json", "link", "show", "dev", "eth0"], capture_output=True, check=True
        ).stdout
    return int(json.loads(listed)[0]["link_index"])
