"""Links of programs to a cgroup or an interface: pinned, they hold without a process; updated,
without a gap.
"""

import ctypes
import errno
from collections.abc import Iterator
from ctypes import c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from ebpf_lb.datapath.libbpf.object import BpfObject, checked, library
from ebpf_lb.datapath.libbpf.programs import Program


class CgroupHook(IntEnum):
    """Where socket address programs run; the numbers are the kernel's attach types."""

    INET4_CONNECT = 10
    INET6_CONNECT = 11
    UDP4_SENDMSG = 14
    UDP6_SENDMSG = 15
    UDP4_RECVMSG = 19
    UDP6_RECVMSG = 20
    INET4_GETPEERNAME = 29
    INET6_GETPEERNAME = 30


class InterfaceHook(IntEnum):
    """tcx: an interface's own list of programs, Linux 6.6 and later; attach types likewise."""

    INGRESS = 46
    EGRESS = 47


@dataclass(frozen=True, slots=True)
class InterfaceLinkInfo:
    """A tcx link; `ifindex` is 0 once the interface is gone or somebody detached it."""

    program_id: int
    ifindex: int


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A cgroup link; `cgroup_id` is 0 once the cgroup is gone."""

    id: int
    program_id: int
    cgroup_id: int
    hook: int


class _Info(ctypes.Structure):
    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("program_id", c_uint32),
        ("", c_uint32),
        ("cgroup_id", c_uint64),
        ("attach_type", c_uint32),
        ("", c_uint32 * 15),
    )


class _InterfaceInfo(ctypes.Structure):
    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("program_id", c_uint32),
        ("", c_uint32),
        ("ifindex", c_uint32),
        ("attach_type", c_uint32),
        ("", c_uint32 * 16),
    )


class _CreateOptions(ctypes.Structure):
    _fields_ = (("size", c_size_t), ("flags", c_uint32), ("", c_uint32))


class _QueryOptions(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("query_flags", c_uint32),
        ("attach_flags", c_uint32),
        ("program_ids", c_void_p),
        ("count", c_uint32),
        ("", c_uint32),
        ("program_attach_flags", c_void_p),
    )


_BEFORE = 1 << 3  # BPF_F_BEFORE; with nobody named: before all
_PROGRAMS_MAX = 64  # BPF_MPROG_MAX: as many as the kernel lets one hook of an interface have


class Link(BpfObject):
    """An open link."""

    kind = "link"

    @classmethod
    def attach_cgroup(cls, program: Program, cgroup_fd: int, hook: CgroupHook) -> Self:
        """Runs `program` at a hook of a cgroup, beside others there, until the link is gone."""
        result = library().bpf_link_create(program.fd, cgroup_fd, hook, None)
        doing = f"attaching the program {program.name} to the cgroup's {hook.name}"
        return cls(checked(result, doing), program.name)

    @classmethod
    def attach_interface(cls, program: Program, ifindex: int, hook: InterfaceHook) -> Self:
        """Runs `program` at an interface before all that are there, until the link is gone."""
        options = _CreateOptions(ctypes.sizeof(_CreateOptions), _BEFORE, 0)
        result = library().bpf_link_create(program.fd, ifindex, hook, ctypes.byref(options))
        doing = f"attaching the program {program.name} to interface {ifindex}'s {hook.name}"
        return cls(checked(result, doing), program.name)

    def interface_info(self) -> InterfaceLinkInfo:
        info = self.read_info(_InterfaceInfo())
        return InterfaceLinkInfo(info.program_id, info.ifindex)

    def info(self) -> LinkInfo:
        info = self.read_info(_Info())
        return LinkInfo(info.id, info.program_id, info.cgroup_id, info.attach_type)

    def update(self, program: Program) -> None:
        """Replaces the link's program in one step."""
        result = library().bpf_link_update(self.fd, program.fd, None)
        checked(result, f"replacing the program of the link {self.name}")

    def detach(self) -> None:
        """Ends the link now, whoever else holds it."""
        checked(library().bpf_link_detach(self.fd), f"detaching the link {self.name}")


def programs_at(ifindex: int, hook: InterfaceHook) -> list[int]:
    """The ids of the programs at an interface's tcx hook, in the order in which they run. OSError:
    ENODEV, or EINVAL of a kernel without tcx."""
    ids = (c_uint32 * _PROGRAMS_MAX)()
    options = _QueryOptions(size=ctypes.sizeof(_QueryOptions), count=_PROGRAMS_MAX)
    options.program_ids = ctypes.addressof(ids)
    result = library().bpf_prog_query_opts(ifindex, hook, ctypes.byref(options))
    checked(result, f"listing the programs at interface {ifindex}'s {hook.name}")
    return list(ids[: options.count])


def link_ids() -> Iterator[int]:
    """The ids of all links that the kernel has now."""
    number = c_uint32(0)
    while True:
        result = library().bpf_link_get_next_id(number.value, ctypes.byref(number))
        if result == -errno.ENOENT:
            return
        checked(result, "listing the kernel's links")
        yield number.value
