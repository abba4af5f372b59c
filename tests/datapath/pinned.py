"""A build pinned by hand: the declared maps, and programs of two instructions."""

import ctypes
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

from ebpf_lb.datapath.layout import MapSpec, Scope, load
from ebpf_lb.datapath.libbpf import CgroupHook, Map, MapType, Program
from ebpf_lb.datapath.libbpf.object import checked, library
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.model.values import Family

SCHEDULER_CLASSIFIER = 3
XDP = 6
CGROUP_SOCKET_ADDRESS = 18

TYPES = {
    "hash": MapType.HASH,
    "array": MapType.ARRAY,
    "lru_hash": MapType.LRU_HASH,
    "lpm_trie": MapType.LPM_TRIE,
    "percpu_array": MapType.PERCPU_ARRAY,
    "percpu_hash": MapType.PERCPU_HASH,
    "prog": MapType.PROG_ARRAY,
}
ENTRIES = 1024  # of maps whose capacity is a setting


def create_map(spec: MapSpec, entries: dict[str, int] | None = None) -> Map:
    """A map as declared; `entries` gives capacities by map."""
    declared = spec.max_entries if isinstance(spec.max_entries, int) else ENTRIES
    count = (entries or {}).get(spec.name, declared)
    kind = TYPES[spec.type]
    return Map.create(kind, spec.key_size, spec.value_size, count, spec.flags, spec.name)


class _LoadOptions(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("prog_btf_fd", ctypes.c_int),
        ("prog_flags", ctypes.c_uint),
        ("more", ctypes.c_uint64 * 19),
    )


def load_code(name: str, code: bytes, kind: int, attach_type: int = 0, flags: int = 0) -> Program:
    """A program of these instructions; the numbers are the kernel's."""
    options = _LoadOptions(ctypes.sizeof(_LoadOptions), 0, attach_type, 0, flags)
    fd = library().bpf_prog_load(
        kind,
        name.encode(),
        b"GPL",
        ctypes.c_char_p(code),
        ctypes.c_size_t(len(code) // 8),
        ctypes.byref(options),
    )
    return Program(checked(fd, f"loading {name}"), name)


def load_program(
    name: str,
    result: int,
    hook: CgroupHook | None = None,
    *,
    kind: int | None = None,
    maps: Sequence[Map] = (),
) -> Program:
    """`return result;`, for TC, for a hook of a cgroup, or of another kind; it names these maps."""
    # a constant of 64 bits takes two instructions; source register 1: a map's descriptor
    named = b"".join(struct.pack("<BBhiQ", 0x18, 0x11, 0, one.fd, 0) for one in maps)
    move, leave = struct.pack("<BBhi", 0xB7, 0, 0, result), struct.pack("<BBhi", 0x95, 0, 0, 0)
    code = named + move + leave
    if kind is None:
        kind = SCHEDULER_CLASSIFIER if hook is None else CGROUP_SOCKET_ADDRESS
    return load_code(name, code, kind, hook or 0)


@contextmanager
def pins(name: str) -> Iterator[Pins]:
    """A folder in bpffs of this test run's own, gone afterwards."""
    root = Path(f"/sys/fs/bpf/ebpf-lb-test-d-{name}-{os.getpid()}")
    rmtree(root, ignore_errors=True)
    root.mkdir()
    try:
        yield Pins(root)
    finally:
        rmtree(root, ignore_errors=True)


def pin_build(
    where: Pins, name: str = "one", entries: dict[str, int] | None = None, tick: int = 1000
) -> Build:
    """All declared maps of both families and a `clock` that stands still, as the current build."""
    build = where.build(name)
    build.maps(None).mkdir(parents=True)
    for family in Family:
        build.maps(family).mkdir(parents=True)
        build.programs(family).mkdir(parents=True)
        for spec in load(family).maps.values():
            path = build.maps(None if spec.scope is Scope.NODE else family) / spec.name
            if not path.exists():
                with create_map(spec, entries) as created:
                    created.pin(path)
        with load_program("clock", tick) as program:
            program.pin(build.programs(family) / "clock")
    where.current.path.unlink(missing_ok=True)
    where.current.path.symlink_to(Path("builds") / name)
    return build
