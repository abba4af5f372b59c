"""What a test may need of the machine, how to find out, and what to do where it is missing.

    pytestmark = needs(BPF, BPFFS)

skips with the capability's name and remedy; under CI=true a skip is a failure (tests/conftest.py).
"""

import ctypes
import errno
import functools
import importlib.util
import os
import shutil
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import browser

_CLONE_NEWNET = 0x40000000
_SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine, -1)
_BPF_PROG_LOAD = 5
_BPF_PROG_TEST_RUN = 10
_BPF_PROG_TYPE_SCHED_CLS = 3
BPF_F_TEST_SKB_CHECKSUM_COMPLETE = 4
"""Test runs with a sum over the whole packet, as some devices deliver it; it must be true after."""


@dataclass(frozen=True)
class Capability:
    """Something of the machine's. `probe` is True where it is there, and leaves no trace."""

    name: str
    remedy: str
    probe: Callable[[], bool]

    @functools.cached_property
    def present(self) -> bool:
        return self.probe()


def needs(*capabilities: Capability) -> pytest.MarkDecorator:
    """A mark that skips a test, or with `pytestmark` a file, where one of them is missing."""
    reason = missing(*capabilities)
    return pytest.mark.skipif(bool(reason), reason=reason)


def missing(*capabilities: Capability) -> str:
    """Which of them are not there and what to do about it; "" if all are."""
    return "; ".join(f"missing: {c.name} ({c.remedy})" for c in capabilities if not c.present)


def _root() -> bool:
    return os.geteuid() == 0


def _shortest_program() -> int:
    """Loads `r0 = 0; exit`; a descriptor, negative where that does not work."""
    code = ctypes.create_string_buffer(bytes.fromhex("b7000000000000009500000000000000"), 16)
    licence = ctypes.create_string_buffer(b"GPL")
    pointers = (ctypes.addressof(code), ctypes.addressof(licence))
    return _bpf_call(_BPF_PROG_LOAD, struct.pack("=IIQQ", _BPF_PROG_TYPE_SCHED_CLS, 2, *pointers))


def _bpf_call(command: int, attributes: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    padded = ctypes.create_string_buffer(attributes, 128)
    result: int = libc.syscall(_SYS_BPF, command, padded, 128)
    return result


def _bpf() -> bool:
    descriptor = _shortest_program()
    if descriptor < 0:
        return False
    os.close(descriptor)
    return True


def _summed_runs() -> bool:
    descriptor = _shortest_program()
    if descriptor < 0:
        return False
    frame = ctypes.create_string_buffer(bytes(12) + b"\x12\x34" + bytes(50), 64)
    attributes = struct.pack(
        "=4IQQ4IQQII",
        *(descriptor, 0, 64, 0, ctypes.addressof(frame), 0),
        *(1, 0, 0, 0, 0, 0, BPF_F_TEST_SKB_CHECKSUM_COMPLETE, 0),
    )
    result = _bpf_call(_BPF_PROG_TEST_RUN, attributes)
    os.close(descriptor)
    return result == 0


def _network_namespaces() -> bool:
    child = os.fork()
    if child == 0:
        os._exit(0 if ctypes.CDLL(None).unshare(_CLONE_NEWNET) == 0 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _tcx() -> bool:
    from ebpf_lb.datapath.attach.tcx import supported

    return _root() and supported()


def _mounted(kind: str) -> bool:
    return any(line.split()[2] == kind for line in Path("/proc/mounts").read_text().splitlines())


def _bcc() -> bool:
    # importing it costs 60 MB, so it is only looked for
    return importlib.util.find_spec("bcc") is not None


def _socket(family: int, kind: int, protocol: int) -> bool:
    try:
        socket.socket(family, kind, protocol).close()
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EPERM, errno.EAFNOSUPPORT):
            return False
        raise
    return True


ROOT = Capability("root", "run as root: `sudo make test`", _root)
BPF = Capability("the bpf system call", "run as root on Linux 6.1 or newer", _bpf)
SUMMED_RUNS = Capability(
    "test runs of packets that a device has summed up", "Linux 6.13 or newer", _summed_runs
)
BPFFS = Capability(
    "bpffs", "mount -t bpf bpf /sys/fs/bpf (`make setup` does)", lambda: _mounted("bpf")
)
CGROUP2 = Capability("cgroup v2", "mount cgroup version 2", lambda: _mounted("cgroup2"))
TCX = Capability("tcx", "run Linux 6.6 or later", _tcx)
NETNS = Capability("network namespaces", "run as root", _network_namespaces)
NFTABLES = Capability(
    "nftables", "apt-get install nftables (`make setup` does)", lambda: bool(shutil.which("nft"))
)
BCC = Capability("bcc", "apt-get install python3-bpfcc (`make setup` does)", _bcc)
IPV6 = Capability(
    "IPv6", "a kernel with IPv6", lambda: _socket(socket.AF_INET6, socket.SOCK_STREAM, 0)
)
RAW_SOCKETS = Capability(
    "raw sockets",
    "run as root",
    lambda: _socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP),
)
BROWSER = Capability(
    "a browser",
    "apt-get install chromium-headless-shell (`make lab` does)",
    lambda: browser.program() is not None,
)
TUN = Capability("tun devices", "modprobe tun", lambda: Path("/dev/net/tun").exists())
BRIDGE_NETFILTER = Capability(
    "bridge netfilter",
    "modprobe br_netfilter",
    lambda: Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists(),
)

# What the datapath layer stands on, and the lab.
DATAPATH = (ROOT, BPF, BPFFS, NETNS, BCC)
LAB = (*DATAPATH, CGROUP2, NFTABLES, IPV6, RAW_SOCKETS, TUN)
