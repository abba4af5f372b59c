"""The loader's own short-lived process: compiles with bcc, loads, checks and pins a build.

    python -m ebpf_lb.datapath.loader.compiler BPFFS_FOLDER SETTINGS_JSON

Only here is bcc imported: the import alone takes 60 MB and a compilation 150 MB, which all go with
the process. Exit status 0: the build is pinned under its id, `current` still names the old one.
Exit status 3: the text on standard error is for people.
"""

import ctypes
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from ebpf_lb.datapath import layout
from ebpf_lb.datapath.layout import Scalar, StructLayout, sources
from ebpf_lb.datapath.libbpf import Map
from ebpf_lb.datapath.libbpf.object import checked, library
from ebpf_lb.datapath.loader import maps, source
from ebpf_lb.datapath.loader.errors import LoaderError
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family

EXIT_REFUSED = 3

_SCHED_CLS = 3
_CGROUP_SOCK_ADDR = 18

# expected attach types (enum bpf_attach_type)
_CGROUP_PROGRAMS = {
    "connect4": 10,
    "connect6": 11,
    "sendmsg4": 14,
    "sendmsg6": 15,
    "recvmsg4": 19,
    "recvmsg6": 20,
    "getpeername4": 29,
    "getpeername6": 30,
}
_TC_PROGRAMS = (
    "pod_ingress",
    "pod_egress",
    "uplink_ingress",
    "uplink_egress",
    "clock",
    "empty",
)
# enum slow_path in bpf/tc.h -> the function behind it
_SLOW_PATHS = {
    0: "pod_new_flow",
    1: "pod_new_snat",
    2: "pod_ingress",
    3: "pod_reply",
    4: "uplink_new_flow",
    5: "uplink_new_snat",
    6: "uplink_ingress",
    7: "uplink_reply",
    8: "node_new_flow",
    9: "node_new_snat",
    10: "node_established",
    12: "answer_refusal",
    13: "sctp_checksum",
}


def programs(family: Family) -> dict[str, tuple[int, int]]:
    """Function -> program type and expected attach type (-1: none)."""
    found = dict.fromkeys({*_TC_PROGRAMS, *_SLOW_PATHS.values()}, (_SCHED_CLS, -1))
    for name, attach_type in _CGROUP_PROGRAMS.items():
        if family is Family.IPV4 or name.endswith("6"):
            found[name] = (_CGROUP_SOCK_ADDR, attach_type)
    return found


def check_layouts(family: Family, settings: Settings, module: Any) -> None:
    """Compares what the compiler made of every map with what the headers say; LoaderError."""
    described = layout.load(family)
    sizes = source.capacities(settings)
    for name, spec in described.maps.items():
        if spec.type == "prog":
            continue
        table = module[name]
        for part, codec, compiled in (
            ("key", spec.key, table.Key),
            # of a per-CPU table, Leaf is one for each CPU
            ("value", spec.value, getattr(table, "sLeaf", table.Leaf)),
        ):
            _check_struct(f"{name}'s {part}", codec, compiled)
        wanted = maps.shape(spec, sizes)
        with Map(os.dup(table.map_fd), name) as opened:
            if maps.kernel_shape(opened) != wanted:
                raise LoaderError(
                    f"map {name}: the kernel has {maps.kernel_shape(opened)}, wanted is {wanted} "
                    "(type, key and value size, entries, flags)"
                )


def _check_struct(what: str, codec: Scalar | StructLayout, compiled: Any) -> None:
    if ctypes.sizeof(compiled) != codec.size:
        raise LoaderError(
            f"{what} has {ctypes.sizeof(compiled)} bytes for the compiler, "
            f"{codec.size} for bpf/layout.h as read here"
        )
    if isinstance(codec, Scalar):
        return
    for field in codec.fields:
        member = getattr(compiled, field.name, None)
        if member is None or (member.offset, member.size) != (field.offset, field.size):
            raise LoaderError(
                f"{what}: field {field.name} lies elsewhere for the compiler than bpf/layout.h "
                f"as read here says ({field.offset}, {field.size} bytes)"
            )


def build_family(family: Family, settings: Settings, old: Build, new: Build) -> None:
    """Compiles, loads and pins one family's programs; LoaderError with the compiler's words."""
    from bcc import BPF  # type: ignore[import-not-found,unused-ignore]

    seed = maps.provide(family, settings, old, new)
    flags = source.defines(settings, family, seed, new.maps(family), new.maps(None))
    try:
        module = BPF(text=source.text(), cflags=flags)
    except Exception as error:  # bcc knows no narrower class; the compiler has printed its reasons
        raise LoaderError(f"the {family.directory} programs do not compile: {error}") from error
    check_layouts(family, settings, module)
    calls = Map.open(new.maps(family) / "calls")
    for name, (kind, attach_type) in programs(family).items():
        try:
            function = module.load_func(name, kind, attach_type=attach_type)
        except Exception as error:
            raise LoaderError(
                f"the kernel refuses the {family.directory} program {name}: {error}"
            ) from error
        path = new.programs(family) / name
        checked(library().bpf_obj_pin(function.fd, bytes(path)), f"pinning {name} at {path}")
        for index, slow_path in _SLOW_PATHS.items():
            if slow_path == name:
                calls.update(index.to_bytes(4, "little"), function.fd.to_bytes(4, "little"))
    calls.close()


def build(pins: Pins, settings: Settings) -> None:
    """Makes the build under a temporary name, then gives it its own in one rename."""
    name = source.build_id(settings)
    new = pins.build(f"{name}_new")
    shutil.rmtree(new.path, ignore_errors=True)
    for family in Family:
        new.maps(family).mkdir(parents=True)
        new.programs(family).mkdir(parents=True)
    new.maps(None).mkdir(parents=True)
    try:
        for family in Family:
            build_family(family, settings, pins.current, new)
        final = pins.build(name).path
        if final.exists():
            shutil.rmtree(final)  # left behind half-made; `current` does not name it
        new.path.rename(final)
    except BaseException:
        shutil.rmtree(new.path, ignore_errors=True)
        raise


def main() -> int:
    os.environ["BCC_KERNEL_SOURCE"] = str(sources() / "kernel")
    try:
        import bcc  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError:
        print(
            "bcc's Python module is missing: install the distribution's package (Debian: "
            "python3-bpfcc) and use an interpreter that sees it (`make setup` does both).",
            file=sys.stderr,
        )
        return EXIT_REFUSED
    try:
        build(Pins(Path(sys.argv[1])), Settings(**json.loads(sys.argv[2])))
    except (LoaderError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
