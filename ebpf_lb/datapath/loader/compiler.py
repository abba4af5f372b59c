"""The short-lived process that compiles one unit's programs for one family with bcc.

    python -m ebpf_lb.datapath.loader.compiler REQUEST_JSON      (see `Request`)

Only here is bcc imported: the import alone takes 60 MB and a compilation 150 MB, which all go with
the process. It compiles only; what is loaded goes through `loading`. bcc must be given maps, though
it looks at nothing but their descriptors.
Exit status 0: standard output is the image. 3: the text on standard error is for people.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from ebpf_lb.datapath import layout
from ebpf_lb.datapath.layout import Scalar, StructLayout
from ebpf_lb.datapath.loader import source
from ebpf_lb.datapath.loader.errors import LoaderError
from ebpf_lb.datapath.loader.image import take_apart, to_plain
from ebpf_lb.datapath.loader.programs import unit as unit_named
from ebpf_lb.datapath.loader.request import Request
from ebpf_lb.model.values import Family

EXIT_REFUSED = 3

_SHOW_VERIFIER_LOG = 2  # bcc's DEBUG_BPF
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def check_layouts(family: Family, sources: Path, module: Any) -> None:
    """Compares what the compiler made of every map with what the headers say; LoaderError."""
    sizes = source.compiled_in()
    for name, spec in layout.load(family, sources).maps.items():
        table = module[name]
        entries = spec.max_entries if isinstance(spec.max_entries, int) else sizes[spec.max_entries]
        if (table.max_entries, table.flags) != (entries, spec.flags):
            raise LoaderError(
                f"map {name} has {table.max_entries} entries and flags {table.flags:#x} for the "
                f"compiler, {entries} and {spec.flags:#x} for bpf/ground/maps.h as read here"
            )
        if spec.type == "prog":
            continue
        _check_struct(f"{name}'s key", spec.key, table.Key)
        # of a per-CPU table, Leaf is one for each CPU
        _check_struct(f"{name}'s value", spec.value, getattr(table, "sLeaf", table.Leaf))


def _check_struct(what: str, codec: Scalar | StructLayout, compiled: Any) -> None:
    if ctypes.sizeof(compiled) != codec.size:
        raise LoaderError(
            f"{what} has {ctypes.sizeof(compiled)} bytes for the compiler, "
            f"{codec.size} for bpf/ground/layout.h as read here"
        )
    if isinstance(codec, Scalar):
        return
    for field in codec.fields:
        member = getattr(compiled, field.name, None)
        if member is None or (member.offset, member.size) != (field.offset, field.size):
            raise LoaderError(
                f"{what}: field {field.name} lies elsewhere for the compiler than "
                f"bpf/ground/layout.h as read here says ({field.offset}, {field.size} bytes)"
            )


def compiled(request: Request, bcc: Any) -> Any:
    """bcc's module; LoaderError. The compiler has then printed its reasons."""
    unit = unit_named(request.unit)
    flags = source.defines(
        unit,
        request.family,
        request.numbers,
        request.maps,
        request.node_maps,
        request.calls,
    )
    try:
        return bcc(text=source.text(unit, request.sources), cflags=flags)
    except Exception as error:  # bcc knows no narrower class, and its text says nothing more
        raise LoaderError("") from error


def answer(request: Request, bcc: Any) -> bytes:
    """The image's bytes; nothing where a program is to be explained. LoaderError."""
    module = compiled(request, bcc)
    programs = unit_named(request.unit).programs[request.family]
    if request.explain is not None:
        kind = programs[request.explain]
        module.debug = _SHOW_VERIFIER_LOG
        module.load_func(request.explain, kind.program_type, attach_type=kind.attach_type or -1)
        return b""
    check_layouts(request.family, request.sources, module)
    maps = layout.load(request.family, request.sources).maps
    descriptors = {module[name].map_fd: name for name in maps}
    constants = source.names_filled_in()
    image = {}
    for name in programs:
        try:
            image[name] = take_apart(module.dump_func(name), descriptors, constants)
        except ValueError as error:
            raise LoaderError(f"{name}: {error}") from error
    return json.dumps(to_plain(image)).encode()


def _end_with_the_loader() -> None:
    """Nobody else would want the result, and loaders that are killed again and again would leave as
    many compilers."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))


def main() -> int:
    _end_with_the_loader()
    # whatever the compiler prints is for standard error
    result = os.dup(1)
    os.dup2(2, 1)
    request = Request.from_json(sys.argv[1])
    os.environ["BCC_KERNEL_SOURCE"] = str(request.sources / "kernel")
    try:
        from bcc import BPF  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        print(
            "bcc's Python module is missing. What was built of these sources needs none: `make "
            "build`, or install ebpf-lb again. To compile here, install the distribution's package "
            "(Debian: python3-bpfcc) and use an interpreter that sees it (`make setup` does both).",
            file=sys.stderr,
        )
        return EXIT_REFUSED
    try:
        image = answer(request, BPF)
    except (LoaderError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_REFUSED
    with os.fdopen(result, "wb") as file:
        file.write(image)
    return 0


if __name__ == "__main__":
    sys.exit(main())
