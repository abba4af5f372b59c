"""A struct's bytes: where each field lies, and from values to bytes and back.

Offsets follow C's natural alignment, and a struct that the compiler would have to fill up is an
error: every byte of a key is then ours, and zero where it means nothing. Fields whose name begins
with `pad` are zero when packed and left out when unpacked.
"""

import struct
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from socket import htonl, htons
from typing import Any

from ebpf_lb.datapath.layout.headers import FieldDeclaration, HeaderError, StructDeclaration
from ebpf_lb.model.values import Family

_INTEGERS = {1: "B", 2: "H", 4: "I", 8: "Q"}
SCALARS = {
    f"{prefix}{bits}": bits // 8
    for prefix, widths in {"__u": (8, 16, 32, 64), "u": (8, 16, 32, 64), "__be": (16, 32)}.items()
    for bits in widths
}
_ADDRESS_ALIGNMENT = 4  # `addr` is made of 32-bit words


@dataclass(frozen=True, slots=True)
class Field:
    """Where a field lies in its struct, in bytes."""

    name: str
    offset: int
    size: int

    @property
    def padding(self) -> bool:
        return self.name.startswith("pad")


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


def lay_out(
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
    if field.type not in SCALARS:
        raise HeaderError(field.place, f"{field.name}: unknown type {field.type}")
    size = SCALARS[field.type]
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
