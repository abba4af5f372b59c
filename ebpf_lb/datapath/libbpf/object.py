"""What maps, programs and links have in common: a file descriptor, a pin, a structure of facts."""

import ctypes
import functools
import os
from ctypes import c_char_p, c_int, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Self, TypeVar

from ebpf_lb.errors import UserError

READ_ONLY = 1 << 3  # BPF_F_RDONLY

Info = TypeVar("Info", bound=ctypes.Structure)


@functools.cache
def library() -> ctypes.CDLL:
    """libbpf itself, loaded once; UserError if it is missing."""
    try:
        loaded = ctypes.CDLL("libbpf.so.1")
    except OSError as error:
        raise UserError(
            f"libbpf.so.1 cannot be loaded ({error}): install the package libbpf1."
        ) from error
    pointer, number = c_void_p, c_int
    for name, arguments in {
        "bpf_map_create": (c_uint32, c_char_p, c_uint32, c_uint32, c_uint32, pointer),
        "bpf_map_lookup_elem": (number, pointer, pointer),
        "bpf_map_update_elem": (number, pointer, pointer, c_uint64),
        "bpf_map_delete_elem": (number, pointer),
        "bpf_map_get_next_key": (number, pointer, pointer),
        "bpf_map_lookup_batch": (number, pointer, pointer, pointer, pointer, pointer, pointer),
        "bpf_map_update_batch": (number, pointer, pointer, pointer, pointer),
        "bpf_map_delete_batch": (number, pointer, pointer, pointer),
        "bpf_obj_get_opts": (c_char_p, pointer),
        "bpf_obj_pin": (number, c_char_p),
        "bpf_obj_get_info_by_fd": (number, pointer, pointer),
        "bpf_map_get_fd_by_id": (c_uint32,),
        "bpf_prog_get_fd_by_id": (c_uint32,),
        "bpf_link_get_fd_by_id": (c_uint32,),
        "bpf_prog_test_run_opts": (number, pointer),
        "bpf_link_create": (number, number, number, pointer),
        "bpf_link_update": (number, number, pointer),
        "bpf_link_detach": (number,),
        "bpf_prog_query_opts": (number, number, pointer),
        "bpf_link_get_next_id": (c_uint32, pointer),
        "libbpf_num_possible_cpus": (),
    }.items():
        function = getattr(loaded, name)
        function.argtypes = arguments
        function.restype = c_int
    return loaded


@functools.cache
def possible_cpus() -> int:
    """How many copies a per-CPU value has."""
    return checked(library().libbpf_num_possible_cpus(), "counting the possible CPUs")


def checked(result: int, doing: str) -> int:
    """The result of a libbpf call; OSError if it is a negative errno."""
    if result < 0:
        raise failure(-result, doing)
    return result


def failure(error: int, doing: str) -> OSError:
    text = "operation not supported by the kernel" if error == 524 else os.strerror(error)
    return OSError(error, f"{doing}: {text}")


class _GetOptions(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("file_flags", c_uint32), ("", c_uint32))


class BpfObject:
    """An open map, program or link."""

    kind = "object"

    def __init__(self, fd: int, name: str) -> None:
        """Takes the descriptor over. `name` is for messages."""
        self.fd = fd
        self.name = name

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """Opens what is pinned at `path`."""
        options = _GetOptions(ctypes.sizeof(_GetOptions), READ_ONLY if read_only else 0, 0)
        result = library().bpf_obj_get_opts(bytes(path), ctypes.byref(options))
        return cls(checked(result, f"opening the {cls.kind} pinned at {path}"), path.name)

    @classmethod
    def by_id(cls, number: int) -> Self:
        """Opens the object that the kernel knows by this id."""
        calls = {"map": "bpf_map_get_fd_by_id", "program": "bpf_prog_get_fd_by_id"}
        function = getattr(library(), calls.get(cls.kind, "bpf_link_get_fd_by_id"))
        doing = f"opening the {cls.kind} with id {number}"
        return cls(checked(function(number), doing), f"id {number}")

    def pin(self, path: Path) -> None:
        """Pins the object, which then outlives this process. FileExistsError if taken."""
        result = library().bpf_obj_pin(self.fd, bytes(path))
        checked(result, f"pinning the {self.kind} {self.name} at {path}")

    def read_info(self, structure: Info) -> Info:
        """Fills the kernel's structure of facts about the object."""
        size = c_uint32(ctypes.sizeof(structure))
        result = library().bpf_obj_get_info_by_fd(
            self.fd, ctypes.byref(structure), ctypes.byref(size)
        )
        checked(result, f"asking about the {self.kind} {self.name}")
        return structure

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
