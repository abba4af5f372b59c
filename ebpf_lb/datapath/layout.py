"""The bytes in the maps, as bpf/layout.h, bpf/maps.h and bpf/reason.h say (and, of a flow's word,
the constants in bpf/flow.h).

Offsets follow C's natural alignment, and a struct that the compiler would have to fill up is an
error: every byte of a key is then ours, and zero where it means nothing. Fields whose name begins
with `pad` are zero when packed and left out when unpacked.

    layout = load(Family.IPV4)
    key = layout.struct("frontend_key").pack(address=b"\\x0a\\0\\0\\1", port=80, protocol=6)
    layout.struct("frontend_key").unpack(key).port
    layout.map("frontends").value_size
"""

import functools
import struct
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from socket import htonl, htons
from typing import Any

from ebpf_lb.datapath.headers import (
    EnumValue,
    FieldDeclaration,
    Header,
    HeaderError,
    MapDeclaration,
    StructDeclaration,
    read_header,
)
from ebpf_lb.model.values import Family


def sources() -> Path:
    """The folder of the C sources: inside the installed package, else beside it."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "bpf"
    return installed if (installed / "layout.h").exists() else package.parent / "bpf"


@dataclass(frozen=True, slots=True)
class Field:
    """Where a field lies in its struct, in bytes."""

    name: str
    offset: int
    size: int

    @property
    def padding(self) -> bool:
        return self.name.startswith("pad")


class Scope(Enum):
    """Who shares a map: the key is the pin macro of its declaration."""

    FAMILY = "PIN"
    NODE = "PIN_NODE"
    CALLS = "PIN_CALLS"  # one version of one family's programs


class Scalar:
    """A key or value that is one number."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self._struct = struct.Struct("=" + _INTEGERS[size])

    def pack(self, value: int) -> bytes:
        return self._struct.pack(value)

    def unpack(self, data: bytes | memoryview) -> int:
        number: int = self._struct.unpack(data)[0]
        return number


class StructLayout:
    """A struct: its fields, and a codec.

    Addresses are bytes, `__be` integers are converted to and from network order, `char[N]` is a
    NUL-terminated str, `__u8[N]` bytes, other arrays and nested structs are tuples.
    """

    def __init__(
        self,
        name: str,
        description: str,
        alignment: int,
        fields: tuple[Field, ...],
        members: "tuple[_Member, ...]",
    ) -> None:
        self.name = name
        self.description = description
        self.alignment = alignment
        self.fields = fields
        self.size = fields[-1].offset + fields[-1].size
        self._members = tuple(member for member in members if member.code is not None)
        codes = "".join(member.code or f"{member.size}x" for member in members)
        self._struct = struct.Struct("=" + codes)
        self._raw = struct.Struct(
            "=" + "".join(member.raw_code or f"{member.size}x" for member in members)
        )
        self._names = frozenset(member.name for member in self._members)
        names = [member.name for member in self._members]
        self._tuple: Any = _named_tuple(name, names)
        self._plain = all(member.decode is None for member in self._members)

    def offset(self, field: str) -> int:
        """A field's offset in bytes; KeyError if there is none of that name."""
        for known in self.fields:
            if known.name == field:
                return known.offset
        raise KeyError(f"struct {self.name} has no field {field}")

    def pack(self, **values: Any) -> bytes:
        """The bytes of one struct; TypeError for a missing, unknown or unfitting field."""
        if values.keys() != self._names:
            missing = ", ".join(sorted(self._names - values.keys())) or "none"
            unknown = ", ".join(sorted(values.keys() - self._names)) or "none"
            raise TypeError(f"struct {self.name}: missing fields: {missing}; unknown: {unknown}")
        flat: list[Any] = []
        for member in self._members:
            value = values[member.name]
            try:
                if member.encode is None:
                    flat.append(value)
                else:
                    flat.extend(member.encode(value))
            except (TypeError, ValueError, OverflowError) as error:
                raise TypeError(f"struct {self.name}.{member.name}: {error}") from error
        try:
            return self._struct.pack(*flat)
        except struct.error as error:
            raise TypeError(f"struct {self.name}: {error}: {values}") from error

    def unpack(self, data: bytes | memoryview) -> Any:
        """A namedtuple of the fields; struct.error if the size is another."""
        return self._named(self._struct.unpack(data))

    def raw(self, *names: str) -> struct.Struct:
        """A struct.Struct of exactly these fields, in order, for code that packs very many:
        numbers in network order are bytes there, and nothing is checked.

        TypeError if the struct has other fields: the caller's code has to follow the header.
        """
        if names != tuple(member.name for member in self._members):
            raise TypeError(f"struct {self.name} does not consist of {', '.join(names)}")
        return self._raw

    def iter_unpack(self, data: bytes | memoryview) -> Iterator[Any]:
        """One namedtuple for each struct in an array of them."""
        return map(self._named, self._struct.iter_unpack(data))

    def _named(self, flat: tuple[Any, ...]) -> Any:
        if self._plain:
            return self._tuple._make(flat)
        values: list[Any] = []
        position = 0
        for member in self._members:
            raw = flat[position : position + member.items]
            values.append(raw[0] if member.decode is None else member.decode(raw))
            position += member.items
        return self._tuple._make(values)


def _named_tuple(name: str, fields: list[str]) -> Any:
    return namedtuple(name, fields)


Codec = Scalar | StructLayout


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


@dataclass(frozen=True, slots=True)
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

    @property
    def reasons(self) -> dict[int, EnumValue]:
        """Counter index -> the reason's name and sentence."""
        return {value.number: value for value in self.enums["reason"].values()}


@functools.cache
def load(family: Family, directory: Path | None = None) -> Layout:
    """Reads the headers (once per family and folder); HeaderError says file and line."""
    folder = directory or sources()
    headers = [read_header(folder / name, family) for name in ("layout.h", "maps.h", "reason.h")]
    headers.append(read_header(folder / "flow.h", family, {"flow_state"}))
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
            structs[declared.name] = _lay_out(declared, structs, family)
        for enum in header.enums:
            enums[enum.name] = {value.name: value for value in enum.values}
    for header in headers:
        for table in header.maps:
            if table.name in maps:
                raise HeaderError(table.place, f"map {table.name} is declared twice")
            maps[table.name] = _map_spec(table, structs, family, defines)
    return Layout(family, structs, maps, enums, defines)


_INTEGERS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_SCALARS = {
    f"{prefix}{bits}": bits // 8
    for prefix, widths in {"__u": (8, 16, 32, 64), "u": (8, 16, 32, 64), "__be": (16, 32)}.items()
    for bits in widths
}
_ADDRESS_ALIGNMENT = 4  # `addr` is made of 32-bit words


@dataclass(frozen=True, slots=True)
class _Member:
    """A field as struct.Struct sees it: `items` values; no code for padding.

    encode spreads a field's value over its items and decode puts them together again; both are
    None where the one item is the value itself.
    """

    name: str
    size: int
    alignment: int
    code: str | None
    items: int = 1
    encode: Callable[[Any], tuple[Any, ...]] | None = None
    decode: Callable[[tuple[Any, ...]], Any] | None = None
    network_order: bool = False

    @property
    def raw_code(self) -> str | None:
        return f"{self.size}s" if self.network_order else self.code


def _lay_out(
    declared: StructDeclaration, structs: Mapping[str, StructLayout], family: Family
) -> StructLayout:
    members = tuple(_member(field, structs, family) for field in declared.fields)
    fields: list[Field] = []
    offset = 0
    for field, member in zip(declared.fields, members, strict=True):
        if gap := -offset % member.alignment:
            raise HeaderError(
                field.place,
                f"struct {declared.name}: {field.name} stands at {offset}, and the compiler would "
                f"put {gap} bytes of padding before it",
            )
        fields.append(Field(field.name, offset, member.size))
        offset += member.size
    alignment = max(member.alignment for member in members)
    if gap := -offset % alignment:
        raise HeaderError(
            declared.place,
            f"struct {declared.name}: the compiler would put {gap} bytes of padding at its end",
        )
    return StructLayout(declared.name, declared.description, alignment, tuple(fields), members)


def _member(
    field: FieldDeclaration, structs: Mapping[str, StructLayout], family: Family
) -> _Member:
    count = 1 if field.count is None else field.count
    if count < 1:
        raise HeaderError(field.place, f"{field.name}: an array of {count}")
    if field.type.startswith("struct "):
        return _nested_member(field, structs, count)
    if field.type == "addr":
        if field.count is not None:
            raise HeaderError(field.place, f"{field.name}: arrays of addresses are not read")
        size = family.address_bytes
        return _Member(
            field.name, size, _ADDRESS_ALIGNMENT, f"{size}s", 1, _address_of(size), _first
        )
    if field.type == "char":
        if field.count is None:
            raise HeaderError(field.place, f"{field.name}: a char alone is not read")
        return _Member(field.name, count, 1, f"{count}s", 1, _text_of(count), _decode_text)
    if field.type not in _SCALARS:
        raise HeaderError(field.place, f"{field.name}: unknown type {field.type}")
    size = _SCALARS[field.type]
    if field.name.startswith("pad"):
        return _Member(field.name, size * count, size, None)
    if size == 1 and field.count is not None:
        return _Member(field.name, count, 1, f"{count}s", 1, _bytes_of(count), _first)
    code = _INTEGERS[size]
    if "be" in field.type:
        if field.count is not None:
            raise HeaderError(field.place, f"{field.name}: arrays of {field.type} are not read")
        turn = htons if size == 2 else htonl
        return _Member(
            field.name, size, size, code, 1, lambda v: (turn(v),), lambda raw: turn(raw[0]), True
        )
    if field.count is None:
        return _Member(field.name, size, size, code)
    return _Member(field.name, size * count, size, f"{count}{code}", count, _array_of(count), tuple)


def _nested_member(
    field: FieldDeclaration, structs: Mapping[str, StructLayout], count: int
) -> _Member:
    name = field.type.removeprefix("struct ")
    if name not in structs:
        raise HeaderError(field.place, f"{field.name}: struct {name} is not declared above")
    inner = structs[name]

    def encode(values: Any) -> tuple[bytes]:
        items = (values,) if field.count is None else tuple(values)
        if len(items) != count:
            raise ValueError(f"{len(items)} items instead of {count}")
        return (b"".join(inner.pack(**dict(item)) for item in items),)

    def decode(raw: tuple[bytes]) -> Any:
        items = tuple(inner.iter_unpack(raw[0]))
        return items[0] if field.count is None else items

    size = inner.size * count
    return _Member(field.name, size, inner.alignment, f"{size}s", 1, encode, decode)


def _first(raw: tuple[Any, ...]) -> Any:
    return raw[0]


def _decode_text(raw: tuple[bytes]) -> str:
    return raw[0].partition(b"\0")[0].decode()


def _bytes_of(size: int) -> Callable[[bytes], tuple[bytes]]:
    def encode(value: bytes) -> tuple[bytes]:
        if len(value) != size:
            raise ValueError(f"{len(value)} bytes instead of {size}")
        return (value,)

    return encode


_address_of = _bytes_of


def _text_of(size: int) -> Callable[[str], tuple[bytes]]:
    def encode(value: str) -> tuple[bytes]:
        data = value.encode()
        if len(data) >= size or b"\0" in data:
            raise ValueError(f"{value!r} is not a text of at most {size - 1} bytes")
        return (data,)

    return encode


def _array_of(count: int) -> Callable[[Any], tuple[Any, ...]]:
    def encode(value: Any) -> tuple[Any, ...]:
        items = tuple(value)
        if len(items) != count:
            raise ValueError(f"{len(items)} numbers instead of {count}")
        return items

    return encode


def _map_spec(
    table: MapDeclaration,
    structs: Mapping[str, StructLayout],
    family: Family,
    defines: Mapping[str, int],
) -> MapSpec:
    def codec(name: str) -> Codec:
        if name in _SCALARS and "be" not in name:
            return Scalar(name, _SCALARS[name])
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


if sys.byteorder != "little":  # the filter's hash and the CRC tables are written for it
    raise ImportError("ebpf-lb runs on little-endian machines only")
