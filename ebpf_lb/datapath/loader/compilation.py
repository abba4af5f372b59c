"""Runs the compiler on a unit: both families at once, each in a process of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ebpf_lb.datapath import layout
from ebpf_lb.datapath.libbpf import Map, MapType
from ebpf_lb.datapath.loader.errors import LoaderError
from ebpf_lb.datapath.loader.image import Image, from_plain
from ebpf_lb.datapath.loader.programs import Unit
from ebpf_lb.datapath.loader.request import Request
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.model.values import Family

_TIMEOUT_S = 300  # on a machine that has much else to do
_COUNT_OF_ERRORS = re.compile(r"\d+ (error|warning)s?( and \d+ errors?)? generated\.")
_LOCATION = re.compile(r"^;.*@ ([\w./-]+):([1-9]\d*)", re.MULTILINE)


def compile_images(pins: Pins, unit: Unit, sources: Path) -> Mapping[Family, Image]:
    """A unit's images; LoaderError with the compiler's words, which name file and line."""
    folder = pins.builds / f"compiling_{os.getpid()}"
    running: dict[Family, subprocess.Popen[bytes]] = {}
    # of a process of this number that was killed: in a container all agents have the same
    shutil.rmtree(folder, ignore_errors=True)
    try:
        for family in Family:
            maps = folder / family.directory
            _stand_in(family, sources, maps)
            running[family] = _start(Request(unit.name, family, sources, maps, maps, maps))
        return {family: _finish(family, process) for family, process in running.items()}
    finally:
        for process in running.values():
            if process.poll() is None:
                process.kill()
            process.communicate()
        shutil.rmtree(folder, ignore_errors=True)


def source_line(
    unit: Unit,
    family: Family,
    sources: Path,
    numbers: Mapping[str, int],
    build: Build,
    program: str,
) -> str | None:
    """Where a program stands that the kernel refuses: "FILE:LINE: text". None: not to be found.

    Compiles it once more and lets the compiler's library load it, which adds debug information.
    """
    request = Request(
        unit.name,
        family,
        sources,
        build.maps(family),
        build.maps(None),
        build.calls(family, unit.name),
        explain=program,
        numbers=numbers,
    )
    process = _start(request)
    try:
        _, log = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    found = _LOCATION.findall(log.decode(errors="replace"))
    if not found:
        return None
    file, number = found[-1]
    # the verifier leaves the folders away; no two of the sources bear one name
    with suppress(OSError, IndexError, StopIteration):
        path = next(sources.rglob(Path(file).name))
        text = path.read_text().splitlines()[int(number) - 1]
        return f"{path.relative_to(sources)}:{number}: {text.strip()}"
    return f"{file}:{number}"


def _stand_in(family: Family, sources: Path, folder: Path) -> None:
    """A pin for every map, since the compiler opens them and would else make them in full size."""
    folder.mkdir(parents=True)
    with Map.create(MapType.ARRAY, 4, 4, 1, 0, "stand_in") as one:
        for name in layout.load(family, sources).maps:
            one.pin(folder / name)


def _start(request: Request) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ebpf_lb.datapath.loader.compiler", request.to_json()]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _finish(family: Family, process: subprocess.Popen[bytes]) -> Image:
    try:
        output, complaints = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise LoaderError(
            f"compiling the {family.directory} programs took longer than {_TIMEOUT_S} s and was "
            "ended."
        ) from error
    if process.returncode:
        words = _words(complaints) or f"the compiler ended with status {process.returncode}."
        raise LoaderError(f"the {family.directory} programs cannot be compiled: {words}")
    return from_plain(json.loads(output))


def _words(complaints: bytes) -> str:
    lines = complaints.decode(errors="replace").strip().splitlines()
    return "\n".join(line for line in lines if line and not _COUNT_OF_ERRORS.fullmatch(line))
