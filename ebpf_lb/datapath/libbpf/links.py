"""Links of programs to a cgroup: pinned, they hold without a process; updated, without a gap."""

import ctypes
import errno
from collections.abc import Iterator
from ctypes import c_uint32, c_uint64
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


class Link(BpfObject):
    """An open link."""

    kind = "link"

    @classmethod
    def attach_cgroup(cls, program: Program, cgroup_fd: int, hook: CgroupHook) -> Self:
        """Runs `program` at a hook of a cgroup, beside others there, until the link is gone."""
        result = library().bpf_link_create(program.fd, cgroup_fd, hook, None)
        doing = f"attaching the program {program.name} to the cgroup's {hook.name}"
        return cls(checked(result, doing), program.name)

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


def link_ids() -> Iterator[int]:
    """The ids of all links that the kernel has now."""
    number = c_uint32(0)
    while True:
        result = library().bpf_link_get_next_id(number.value, ctypes.byref(number))
        if result == -errno.ENOENT:
            return
        checked(result, "listing the kernel's links")
        yield number.value
