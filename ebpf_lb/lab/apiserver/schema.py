"""What fields can be made of: types, and how lists merge. `fields.py` describes the kinds with it.

Unknown fields pass and are kept. One description serves three purposes: the server's refusal of
wrong types, strategic merge patches, and `lab apply`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value without parts; `types` are JSON's, `name` is for people (Go's, as in the API)."""

    name: str
    types: tuple[type, ...]


@dataclass(frozen=True, slots=True)
class Struct:
    """An object with known fields; others pass unseen."""

    name: str
    fields: "Mapping[str, Schema]" = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object with free keys."""

    values: "Schema"


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list. `merge_key`: its items are told apart by these fields (`()`: replaced as a whole).
    `as_set`: plain values, each of which is there or not."""

    items: "Schema"
    merge_key: tuple[str, ...] = ()
    as_set: bool = False


Schema = Scalar | Struct | MapOf | ListOf

STRING = Scalar("string", (str,))
INTEGER = Scalar("int32", (int,))
BOOLEAN = Scalar("bool", (bool,))
INT_OR_STRING = Scalar("IntOrString", (int, str))
ANY = Scalar("any", (object,))

# What a merge key stands for where it is left out.
KEY_DEFAULTS = {"protocol": "TCP"}

_JSON_NAMES = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "string",
    dict: "object",
    list: "array",
}
_PLAIN_NAMES = {
    "string": "a string",
    "int32": "a whole number",
    "bool": "true or false",
    "IntOrString": "a whole number or a string",
}


@dataclass(frozen=True, slots=True)
class WrongType(Exception):
    """A value of another type than its field's. `field` has list indexes, as in `spec.ports[0]`."""

    field: str
    struct: str
    found: str
    wanted: str

    def message(self, kind: str, version: str) -> str:
        """As the API server words it, with the index, which it leaves out."""
        return (
            f'{kind} in version "{version}" cannot be handled as a {kind}: json: cannot unmarshal '
            f"{self.found} into Go struct field {self.struct}.{self.field} of type {self.wanted}"
        )

    @property
    def hint(self) -> str:
        return f"must be {_PLAIN_NAMES.get(self.wanted, self.wanted)}, not {self.found}"


def check(value: Any, schema: Schema, path: str = "", struct: str = "") -> None:
    """Raises WrongType at the first value that has another type than its field. None passes."""
    if value is None or schema is ANY:
        return
    match schema:
        case Scalar(name, types):
            is_bool = isinstance(value, bool)
            if not isinstance(value, types) or (is_bool and bool not in types):
                raise WrongType(path, struct, _json_name(value), name)
        case Struct(name, fields):
            if not isinstance(value, dict):
                raise WrongType(path, struct, _json_name(value), "an object")
            for key, inner in fields.items():
                if key in value:
                    check(value[key], inner, f"{path}.{key}" if path else key, name)
        case MapOf(values):
            if not isinstance(value, dict):
                raise WrongType(path, struct, _json_name(value), "an object")
            for key, item in value.items():
                check(item, values, f"{path}.{key}", struct)
        case ListOf(items):
            if not isinstance(value, list):
                raise WrongType(path, struct, _json_name(value), "a list")
            for index, item in enumerate(value):
                check(item, items, f"{path}[{index}]", struct)


def _json_name(value: Any) -> str:
    return _JSON_NAMES.get(type(value), type(value).__name__)


def child(schema: Schema | None, key: str) -> Schema | None:
    """The schema of a field; None where nothing is known."""
    match schema:
        case Struct(_, fields):
            return fields.get(key)
        case MapOf(values):
            return values
    return None


def identity(item: Any, merge_key: tuple[str, ...]) -> tuple[Any, ...]:
    """What tells an item of a keyed list apart."""
    if not isinstance(item, dict):
        return (item,)
    return tuple(item.get(key, KEY_DEFAULTS.get(key)) for key in merge_key)
