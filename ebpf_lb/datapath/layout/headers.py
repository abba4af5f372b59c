"""Reads the few C headers that describe the maps' bytes: declarations, no C compiler.

What is understood is exactly what the headers need, one item a line:

    struct name {               enum name {                      #define NAME 0x400
        TYPE field;                 NAME = 3, /* sentence */
        TYPE field[N];              …                            #if FAMILY == 4 … #endif
    };                          };                               #define NAME (1ULL << 3)
    BPF_F_TABLE("TYPE:" PIN "/name", KEY, VALUE, name, ENTRIES, FLAGS);

Inside such an item everything else is an error with file and line; outside of them (functions,
other macros) nothing is read. The comment that ends on the line above an item describes it.
"""

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from ebpf_lb.model.values import Family


class HeaderError(Exception):
    """A header says something that this parser, or the bytes' rules, do not allow."""

    def __init__(self, where: "Place", what: str) -> None:
        super().__init__(f"{where}: {what}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class FieldDeclaration:
    """`type name;`, or `type name[count];` (count is None without brackets)."""

    type: str  # a scalar's name, or `struct x`
    name: str
    count: int | None
    place: Place


@dataclass(frozen=True, slots=True)
class StructDeclaration:
    name: str
    fields: tuple[FieldDeclaration, ...]
    description: str
    place: Place


@dataclass(frozen=True, slots=True)
class EnumValue:
    """One value of an enum and the sentence beside it."""

    name: str
    number: int
    sentence: str


@dataclass(frozen=True, slots=True)
class EnumDeclaration:
    name: str
    values: tuple[EnumValue, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class MapDeclaration:
    """One BPF_F_TABLE line, as written."""

    type: str  # bcc's name: hash, array, lru_hash, lpm_trie, percpu_array, prog
    pin: str  # the macro that stands for the folder: PIN, PIN_NODE, PIN_CALLS
    name: str
    key: str
    value: str
    entries: str
    flags: str
    description: str
    place: Place


@dataclass(frozen=True, slots=True)
class Header:
    """One file's declarations, in order."""

    structs: tuple[StructDeclaration, ...]
    enums: tuple[EnumDeclaration, ...]
    maps: tuple[MapDeclaration, ...]
    defines: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Line:
    place: Place
    code: str  # without comments, stripped
    comment: str  # comments that begin here
    above: str  # the comment that ends on the line before, if that has no code


_COMMENT = re.compile(r"/\*(.*?)\*/|//([^\n]*)", re.DOTALL)
_NUMBER = r"0[xX][0-9a-fA-F]+|\d+"
_DEFINE = re.compile(rf"#\s*define\s+(\w+)\s+(?:({_NUMBER})(?:ULL)?|\(1ULL << (\d+)\))$")
_BLOCK = re.compile(r"(struct|enum)\s+(\w+)\s*\{$")
_OTHER_BLOCK = re.compile(r"(typedef\s+)?(struct|enum|union)\b[^()=]*\{")
_FIELD = re.compile(r"((?:struct\s+)?\w+)\s+(\w+)(?:\[(\w+)\])?;$")
_VALUE = re.compile(rf"(\w+)\s*=\s*({_NUMBER}),?$")
_FAMILY = re.compile(r"#\s*if\s+FAMILY\s*==\s*([46])$")
_CONDITION = re.compile(r"#\s*(if|ifdef|ifndef|elif|else|endif)\b")
_TABLE = re.compile(
    r'BPF_F_TABLE\(\s*"(\w+):"\s*(\w+)\s*"/(\w+)"\s*,\s*((?:struct\s+)?\w+)\s*,'
    r"\s*((?:struct\s+)?\w+)\s*,\s*(\w+)\s*,\s*(\w+)\s*,\s*(\w+)\s*\);$"
)
_OTHER_TABLE = re.compile(r"BPF_[A-Z_]+\(")


def read_header(path: Path, family: Family, only: Container[str] | None = None) -> Header:
    """The declarations of one file as the given family's build sees them; HeaderError.

    only: the structs and enums to read, where the file has others that are not the maps'.
    """
    return parse_header(path.read_text(), f"{path.parent.name}/{path.name}", family, only)


def parse_header(
    text: str, file: str, family: Family, only: Container[str] | None = None
) -> Header:
    """Like `read_header`; `file` is the name to use in errors."""
    structs: list[StructDeclaration] = []
    enums: list[EnumDeclaration] = []
    maps: list[MapDeclaration] = []
    defines: dict[str, int] = {}
    lines = _of_family(_lines(text, file), family)
    for line in lines:
        if define := _DEFINE.match(line.code):
            defines[define[1]] = int(define[2], 0) if define[2] else 1 << int(define[3])
        elif block := _BLOCK.match(line.code):
            if only is not None and block[2] not in only:
                continue
            if block[1] == "struct":
                structs.append(_struct(block[2], line, lines, defines))
            else:
                enums.append(_enum(block[2], line, lines))
        elif _OTHER_BLOCK.match(line.code):
            raise HeaderError(line.place, f"write `struct name {{` on a line: {line.code}")
        elif table := _TABLE.match(line.code):
            if table[3] != table[6]:
                raise HeaderError(
                    line.place, f"{table[6]} is pinned as {table[3]}: same name twice"
                )
            maps.append(
                MapDeclaration(
                    table[1],
                    table[2],
                    table[6],
                    " ".join(table[4].split()),
                    " ".join(table[5].split()),
                    table[7],
                    table[8],
                    line.above,
                    line.place,
                )
            )
        elif _OTHER_TABLE.match(line.code):
            raise HeaderError(line.place, f"not a map declaration of the known form: {line.code}")
    return Header(tuple(structs), tuple(enums), tuple(maps), defines)


def _lines(text: str, file: str) -> Iterator[_Line]:
    """Lines of code with the comments taken out and put beside them."""
    comments: dict[int, list[str]] = {}
    ends: dict[int, str] = {}

    def take(match: re.Match[str]) -> str:
        first = text.count("\n", 0, match.start()) + 1
        newlines = match[0].count("\n")
        said = re.sub(r"\s*\n\s*\*?\s*", " ", match[1] or match[2] or "").strip()
        comments.setdefault(first, []).append(said)
        ends[first + newlines] = said
        return " " + "\n" * newlines

    code = _COMMENT.sub(take, text).split("\n")
    for number, content in enumerate(code, 1):
        alone = number > 1 and not code[number - 2].strip()
        yield _Line(
            Place(file, number),
            content.strip(),
            " ".join(comments.get(number, ())),
            ends.get(number - 1, "") if alone else "",
        )


def _of_family(lines: Iterator[_Line], family: Family) -> Iterator[_Line]:
    """Lines that this family's build keeps. Conditions on other things are passed through."""
    kept: list[bool | None] = []  # one an open #if; None: not ours to judge
    for line in lines:
        if condition := _CONDITION.match(line.code):
            which = condition[1]
            if which in ("if", "ifdef", "ifndef"):
                ours = _FAMILY.match(line.code)
                kept.append(int(ours[1]) == family if ours else None)
            elif not kept:
                raise HeaderError(line.place, f"#{which} without #if")
            elif which == "endif":
                if kept.pop() is not None:
                    continue
            elif kept[-1] is not None:
                if which == "elif":
                    raise HeaderError(line.place, "only #else and #endif may follow #if FAMILY")
                kept[-1] = not kept[-1]
                continue
            if kept and kept[-1] is not None:
                continue
        if line.code and False not in kept:
            yield line
    if kept:
        raise HeaderError(line.place, "#if without #endif")


def _struct(
    name: str, opening: _Line, lines: Iterator[_Line], defines: dict[str, int]
) -> StructDeclaration:
    fields: list[FieldDeclaration] = []
    for line in lines:
        if line.code == "};":
            if not fields:
                raise HeaderError(opening.place, f"struct {name} is empty")
            return StructDeclaration(name, tuple(fields), opening.above, opening.place)
        match = _FIELD.match(line.code)
        if match is None:
            raise HeaderError(line.place, f"struct {name}: not a field: {line.code}")
        if any(field.name == match[2] for field in fields):
            raise HeaderError(line.place, f"struct {name}: two fields named {match[2]}")
        count = _number(match[3], defines, line.place) if match[3] else None
        fields.append(FieldDeclaration(" ".join(match[1].split()), match[2], count, line.place))
    raise HeaderError(opening.place, f"struct {name} does not end")


def _enum(name: str, opening: _Line, lines: Iterator[_Line]) -> EnumDeclaration:
    values: list[EnumValue] = []
    for line in lines:
        if line.code == "};":
            return EnumDeclaration(name, tuple(values), opening.place)
        match = _VALUE.match(line.code)
        if match is None:
            raise HeaderError(line.place, f"enum {name}: not `NAME = number,`: {line.code}")
        number = int(match[2], 0)
        if any(number == value.number or match[1] == value.name for value in values):
            raise HeaderError(line.place, f"enum {name}: {match[1]} = {number} stands there twice")
        values.append(EnumValue(match[1], number, line.comment))
    raise HeaderError(opening.place, f"enum {name} does not end")


def _number(text: str, defines: dict[str, int], place: Place) -> int:
    if text.isdigit():
        return int(text)
    if text in defines:
        return defines[text]
    raise HeaderError(place, f"{text} is neither a number nor defined above")
