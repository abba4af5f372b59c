"""A thin, typed binding of libbpf (version 1.1 or newer), by ctypes: maps, programs, links.

Every failure is an OSError with the kernel's errno and a sentence that names the object. Objects
own a file descriptor and close it at the end of a `with` block, or when they are collected.
"""

from ebpf_lb.datapath.libbpf.links import CgroupHook, InterfaceHook, Link, link_ids, programs_at
from ebpf_lb.datapath.libbpf.maps import BatchError, Map, MapInfo, MapType, Update
from ebpf_lb.datapath.libbpf.object import BpfObject
from ebpf_lb.datapath.libbpf.programs import Program, ProgramInfo, TestRun
from ebpf_lb.datapath.libbpf.window import MappedArray

__all__ = [
    "BatchError",
    "BpfObject",
    "CgroupHook",
    "InterfaceHook",
    "Link",
    "Map",
    "MapInfo",
    "MapType",
    "MappedArray",
    "Program",
    "ProgramInfo",
    "TestRun",
    "Update",
    "link_ids",
    "programs_at",
]
