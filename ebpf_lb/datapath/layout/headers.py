"""Reads the C headers' declarations, without a C compiler.

In those that describe the maps' bytes, exactly this is understood, one item a line:

    struct name {               enum name {                      #define NAME 0x400
        TYPE field;                 NAME = 3, /* sentence */     #define NAME (OTHER | 1ULL << 3)
        TYPE field[N];              …
    };                          };                               #if FAMILY == 4 … #endif
    BPF_F_TABLE("TYPE:" PIN "/name", KEY, VALUE, name, ENTRIES, FLAGS);

Inside such an item everything else is an error with file and line; outside of them (functions,
other macros) nothing is read. The comment that ends on the line above an item describes it.

All other headers are read for their constants alone: macros that stand for a number, and enums,
whose values may also be left to the compiler or named by others. What is not of that form is
passed over there.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ebpf_lb.model.values import Family


class HeaderError(Exception):
    """A header says something that this parser, or the bytes' rules, do not allow."""

    def __init__(self, where: "Place", what: str) -> None:
        super().__init__(f"{where}: {what}")


class Place(NamedTuple):
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


class _Line(NamedTuple):
    place: Place
    code: str  # without comments, stripped
    comment: str  # comments that begin here
    above: str  # the comment that ends on the line before, if that has no code


_COMMENT = re.compile(r"/\*(.*?)\*/|//([^\n]*)", re.DOTALL)
_NUMBER = r"0[xX][0-9a-fA-F]+|\d+"
_DEFINE = re.compile(r"#\s*define\s+(\w+)\s+(\S.*)$")
_PLAIN_NUMBER = re.compile(rf"({_NUMBER})[uUlL]*$")
_SUFFIX = re.compile(rf"\b({_NUMBER})[uUlL]+\b")
_BLOCK = re.compile(r"(struct|enum)\s+(\w+)\s*\{$")
_OTHER_BLOCK = re.compile(r"(typedef\s+)?(struct|enum|union)\b[^()=]*\{")
_FIELD = re.compile(r"((?:struct\s+)?\w+)\s+(\w+)(?:\[(\w+)\])?;$")
_VALUE = re.compile(rf"(\w+)\s*=\s*({_NUMBER}),?$")
_ANY_VALUE = re.compile(r"(\w+)(?:\s*=\s*([^,]+?))?,?$")
_FAMILY = re.compile(r"#\s*if\s+FAMILY\s*==\s*([46])$")
_CONDITION = re.compile(r"#\s*(if|ifdef|ifndef|elif|else|endif)\b")
_TABLE = re.compile(
    r'BPF_F_TABLE\(\s*"(\w+):"\s*(\w+)\s*"/(\w+)"\s*,\s*((?:struct\s+)?\w+)\s*,'
    r"\s*((?:struct\s+)?\w+)\s*,\s*(\w+)\s*,\s*(\w+)\s*,\s*(\w+)\s*\);$"
)
_OTHER_TABLE = re.compile(r"BPF_[A-Z_]+\(")


def read_header(path: Path, family: Family) -> Header:
    """The declarations of one file as the given family's build sees them; HeaderError."""
    return parse_header(path.read_text(), _name(path), family)


def read_constants(path: Path, family: Family) -> Header:
    """The macros and enums of one file whose numbers can be told; nothing else of it."""
    return parse_constants(path.read_text(), _name(path), family)


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def parse_header(text: str, file: str, family: Family) -> Header:
    """Like `read_header`; `file` is the name to use in errors."""
    structs: list[StructDeclaration] = []
    enums: list[EnumDeclaration] = []
    maps: list[MapDeclaration] = []
    defines: dict[str, int] = {}
    lines = _of_family(_lines(text, file), family)
    for line in lines:
        if define := _DEFINE.match(line.code):
            number = evaluate(define[2], defines)
            if number is not None:
                defines[define[1]] = number
        elif block := _BLOCK.match(line.code):
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


def parse_constants(text: str, file: str, family: Family) -> Header:
    """Like `read_constants`. A name that stands for different numbers, by conditions that are not
    the family's, is left out."""
    enums: list[EnumDeclaration] = []
    defines: dict[str, int] = {}
    doubtful: set[str] = set()
    lines = _of_family(_lines(text, file), family)
    for line in lines:
        if not line.code.startswith(("#", "enum")):
            continue
        if define := _DEFINE.match(line.code):
            number = evaluate(define[2], defines)
            if number is None or defines.setdefault(define[1], number) != number:
                doubtful.add(define[1])
        elif (block := _BLOCK.match(line.code)) and block[1] == "enum":
            enum = _any_enum(block[2], line, lines, defines)
            if enum is not None:
                enums.append(enum)
    for name in doubtful:
        defines.pop(name, None)
    return Header((), tuple(enums), (), defines)


_OPERATORS: Mapping[type[ast.AST], Callable[..., int]] = {
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.USub: operator.neg,
}


def evaluate(text: str, names: Mapping[str, int]) -> int | None:
    """The number that an expression of C stands for; None if that cannot be told."""
    if plain := _PLAIN_NUMBER.match(text):
        return int(plain[1], 0)
    if text in names:
        return names[text]

    def number(node: ast.AST) -> int:
        match node:
            case ast.Constant(value=int(found)):
                return found
            case ast.Name(id=name):
                return names[name]
            case ast.BinOp(left=left, op=op, right=right):
                return _OPERATORS[type(op)](number(left), number(right))
            case ast.UnaryOp(op=op, operand=operand):
                return _OPERATORS[type(op)](number(operand))
        raise KeyError

    try:
        return number(ast.parse(_SUFFIX.sub(r"\1", text), mode="eval").body)
    except (SyntaxError, KeyError, ValueError):
        return None


def lines_of(text: str, file: str, family: Family) -> Iterator[_Line]:
    """The lines of code that a family's build keeps."""
    return _of_family(_lines(text, file), family)


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

    before = ""
    for number, content in enumerate(_COMMENT.sub(take, text).split("\n"), 1):
        code = content.strip()
        yield _Line(
            Place(file, number),
            code,
            " ".join(comments.get(number, ())),
            ends.get(number - 1, "") if not before else "",
        )
        before = code


def _of_family(lines: Iterator[_Line], family: Family) -> Iterator[_Line]:
    """Lines that this family's build keeps. Conditions on other things are passed through."""
    kept: list[bool | None] = []  # one for each open #if; None: not ours to judge
    for line in lines:
        if line.code.startswith("#") and (condition := _CONDITION.match(line.code)):
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


def _any_enum(
    name: str, opening: _Line, lines: Iterator[_Line], defines: Mapping[str, int]
) -> EnumDeclaration | None:
    """As the compiler counts: one more than before where nothing is said; None where it knows what
    we do not."""
    values: list[EnumValue] = []
    known = dict(defines)
    following: int | None = 0
    for line in lines:
        if line.code == "};":
            found = EnumDeclaration(name, tuple(values), opening.place)
            return found if following is not None else None
        match = _ANY_VALUE.match(line.code)
        if match is None or following is None:
            following = None
            continue
        number = evaluate(match[2], known) if match[2] else following
        if number is None:
            following = None
            continue
        values.append(EnumValue(match[1], number, line.comment))
        known[match[1]] = number
        following = number + 1
    return None


def _number(text: str, defines: dict[str, int], place: Place) -> int:
    if text.isdigit():
        return int(text)
    if text in defines:
        return defines[text]
    raise HeaderError(place, f"{text} is neither a number nor defined above")
