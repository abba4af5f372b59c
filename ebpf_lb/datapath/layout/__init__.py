"""What the C sources say: the bytes in the maps by layout.h, maps.h and reason.h; enums and
constants by any header below bpf/. No number of theirs is written down in Python again.

    layout = load(Family.IPV4)
    key = layout.struct("frontend_key").pack(address=b"\\x0a\\0\\0\\1", port=80, protocol=6)
    layout.struct("frontend_key").unpack(key).port
    layout.map("frontends").value_size
    layout.defines["FLOW_STATE_SHIFT"]
    layout.enum("slow_path")["CALL_REJECT"]
    layout.reasons[16].sentence
"""

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ebpf_lb.datapath.layout.headers import (
    EnumValue,
    Header,
    HeaderError,
    MapDeclaration,
    read_constants,
    read_header,
)
from ebpf_lb.datapath.layout.programs import DeclaredProgram, ProgramKind, declared_programs
from ebpf_lb.datapath.layout.reasons import Reason, Verdict, reasons_of
from ebpf_lb.datapath.layout.structs import SCALARS, Codec, Scalar, StructLayout, lay_out
from ebpf_lb.model.values import Family

__all__ = [
    "DeclaredProgram",
    "Layout",
    "MapSpec",
    "ProgramKind",
    "Reason",
    "Scalar",
    "Scope",
    "StructLayout",
    "Verdict",
    "build",
    "load",
    "programs_of",
    "sources",
]

if sys.byteorder != "little":  # the filter's hash and the CRC tables are written for it
    raise ImportError("ebpf-lb runs on little-endian machines only")

_HEADERS = ("layout.h", "maps.h", "reason.h")


def sources() -> Path:
    """The folder of the C sources: inside the installed package, else beside it."""
    package = Path(__file__).resolve().parents[2]
    installed = package / "bpf"
    return installed if installed.is_dir() else package.parent / "bpf"


class Scope(Enum):
    """Who shares a map: the key is the pin macro of its declaration."""

    FAMILY = "PIN"
    NODE = "PIN_NODE"
    CALLS = "PIN_CALLS"  # one version of one family's programs


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A map as declared. `max_entries` is a number, or the name of a compile-time setting."""

    name: str
    type: str
    key: Codec
    value: Codec
    max_entries: int | str
    flags: int
    scope: Scope
    description: str

    @property
    def key_size(self) -> int:
        return self.key.size

    @property
    def value_size(self) -> int:
        return self.value.size


@dataclass(frozen=True)
class Layout:
    """All declarations as one family's build sees them."""

    family: Family
    structs: Mapping[str, StructLayout]
    maps: Mapping[str, MapSpec]
    enums: Mapping[str, Mapping[str, EnumValue]]
    defines: Mapping[str, int]

    def struct(self, name: str) -> StructLayout:
        return self.structs[name]

    def map(self, name: str) -> MapSpec:
        return self.maps[name]

    def enum(self, name: str) -> dict[str, int]:
        """An enum's names and numbers."""
        return {value.name: value.number for value in self.enums[name].values()}

    @functools.cached_property
    def reasons(self) -> dict[int, Reason]:
        """Counter index -> the reason."""
        return reasons_of(self.enums["reason"].values(), self.enum("reason_class"))


_OF_MAPS = ("layout.h", "maps.h", "reason.h")
_NOT_OURS = "kernel"  # the folder that stands in for the kernel's headers


def load(family: Family, directory: Path | None = None) -> Layout:
    """Reads the headers (once per family and folder); HeaderError says file and line."""
    return _load(family, directory or sources())


@functools.cache
def _load(family: Family, folder: Path) -> Layout:
    found = sorted(
        path for path in folder.rglob("*.h") if _NOT_OURS not in path.relative_to(folder).parts
    )
    headers = [
        read_header(path, family) for name in _OF_MAPS for path in found if path.name == name
    ]
    headers += [read_constants(path, family) for path in found if path.name not in _OF_MAPS]
    return build(headers, family)


def build(headers: list[Header], family: Family) -> Layout:
    """Computes the layouts of what the headers declare; HeaderError."""
    structs: dict[str, StructLayout] = {}
    maps: dict[str, MapSpec] = {}
    enums: dict[str, dict[str, EnumValue]] = {}
    defines = {name: number for header in headers for name, number in header.defines.items()}
    for header in headers:
        for declared in header.structs:
            if declared.name in structs:
                raise HeaderError(declared.place, f"struct {declared.name} is declared twice")
            structs[declared.name] = lay_out(declared, structs, family)
        for enum in header.enums:
            enums[enum.name] = {value.name: value for value in enum.values}
    for header in headers:
        for table in header.maps:
            if table.name in maps:
                raise HeaderError(table.place, f"map {table.name} is declared twice")
            maps[table.name] = _map_spec(table, structs, family, defines)
    return Layout(family, structs, maps, enums, defines)


def _map_spec(
    table: MapDeclaration,
    structs: Mapping[str, StructLayout],
    family: Family,
    defines: Mapping[str, int],
) -> MapSpec:
    def codec(name: str) -> Codec:
        if name in SCALARS and "be" not in name:
            return Scalar(name, SCALARS[name])
        found = structs.get(name.removeprefix("struct "))
        if found is None:
            raise HeaderError(table.place, f"map {table.name}: unknown type {name}")
        return found

    def number(text: str) -> int | None:
        return int(text, 0) if text[0].isdigit() else defines.get(text)

    flags = number(table.flags)
    if flags is None:
        raise HeaderError(table.place, f"map {table.name}: {table.flags} is not defined above")
    try:
        scope = Scope(table.pin)
    except ValueError:
        raise HeaderError(table.place, f"map {table.name}: unknown folder {table.pin}") from None
    entries = number(table.entries)
    return MapSpec(
        table.name,
        table.type,
        codec(table.key),
        codec(table.value),
        table.entries if entries is None else entries,
        flags,
        scope,
        table.description,
    )


@functools.cache
def programs_of(
    main: str, family: Family, directory: Path | None = None
) -> tuple[DeclaredProgram, ...]:
    """What a main file, named from the folder of the sources on, declares; HeaderError."""
    enums = load(family, directory).enums
    names = {one.name: one.number for enum in ("slow_path", "hook") for one in enums[enum].values()}
    return declared_programs((directory or sources()) / main, family, names)
