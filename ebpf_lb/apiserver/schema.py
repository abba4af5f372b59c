"""The fields of the API's objects: their types, and how their lists merge.

Types are read from the models of the Kubernetes client library, which are made from the API's own
OpenAPI document. Merge keys are not in them; they stand in `_MERGE_KEYS`. One description serves
the server's checks, strategic merge patches, `lab apply` and the OpenAPI document.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value without parts; `types` are JSON's, `name` is for people (Go's, as in the API)."""

    name: str
    types: tuple[type, ...]


@dataclass(frozen=True, slots=True)
class Struct:
    """An object with known fields. `model`: the client library's name of it."""

    model: str

    @property
    def name(self) -> str:
        """As in Go, for messages: ServicePort."""
        return re.sub(r"^([A-Z][a-z]+)?V\d(?=[A-Z])", "", self.model)

    @property
    def fields(self) -> "Mapping[str, Schema]":
        return _fields(self.model)


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

_STRING = Scalar("string", (str,))
_INT_OR_STRING = Scalar("IntOrString", (int, str))
_QUANTITY = Scalar("Quantity", (int, float, str))
_ANY = Scalar("any", (object,))
_SCALARS = {
    "str": _STRING,
    "datetime": _STRING,
    "bytes": _STRING,  # in base64
    "int": Scalar("int32", (int,)),
    "float": Scalar("float64", (int, float)),
    "bool": Scalar("bool", (bool,)),
    "object": _INT_OR_STRING,
}
_QUANTITIES = {"limits", "requests", "capacity", "allocatable", "overhead", "sizeLimit", "divisor"}

# `patchMergeKey` of the API's Go types, with two exceptions. Ports of Services and containers merge
# by number *and* protocol: upstream's key is the number alone, which mixes up one number on TCP and
# UDP. A node's addresses merge by type and address: by type alone the second InternalIP of a
# dual-stack node is lost (upstream's own kubelet works around it).
_MERGE_KEYS: dict[tuple[str, str], tuple[str, ...]] = {
    ("ObjectMeta", "ownerReferences"): ("uid",),
    ("ServiceSpec", "ports"): ("port", "protocol"),
    ("NodeStatus", "addresses"): ("type", "address"),
    ("PodStatus", "podIPs"): ("ip",),
    ("PodStatus", "hostIPs"): ("ip",),
    ("PodSpec", "containers"): ("name",),
    ("PodSpec", "initContainers"): ("name",),
    ("PodSpec", "ephemeralContainers"): ("name",),
    ("PodSpec", "volumes"): ("name",),
    ("PodSpec", "imagePullSecrets"): ("name",),
    ("PodSpec", "hostAliases"): ("ip",),
    ("PodSpec", "topologySpreadConstraints"): ("topologyKey", "whenUnsatisfiable"),
    ("PodSpec", "resourceClaims"): ("name",),
    ("PodSpec", "schedulingGates"): ("name",),
    ("Container", "ports"): ("containerPort", "protocol"),
    ("Container", "env"): ("name",),
    ("Container", "volumeMounts"): ("mountPath",),
    ("Container", "volumeDevices"): ("devicePath",),
    ("ServiceAccount", "secrets"): ("name",),
}
_SETS = {("ObjectMeta", "finalizers"), ("NodeSpec", "podCIDRs")}

# What a merge key stands for where it is left out.
_KEY_DEFAULTS = {"protocol": "TCP"}


@cache
def _fields(model: str) -> Mapping[str, Schema]:
    # Imported here: who only names kinds (most of the lab's commands) does not pay for all models.
    from kubernetes.client import models

    found = getattr(models, model)
    struct = Struct(model).name
    return {
        name: _with_merge_key(struct, name, _parse(found.openapi_types[attribute], name))
        for attribute, name in found.attribute_map.items()
    }


def _parse(text: str, field: str) -> Schema:
    """The schema of a type as the library writes it: `List[V1Pod]`, `dict(str, str)`, `int`."""
    if collection := re.fullmatch(r"(?i)(list|dict)[\[(](?:str, ?)?(.+)[\])]", text):
        inner = _parse(collection[2], field)
        return ListOf(inner) if collection[1].lower() == "list" else MapOf(inner)
    if field in _QUANTITIES:
        return _QUANTITY
    if field == "fieldsV1":
        return _ANY
    return _SCALARS.get(text) or Struct(text)


def _with_merge_key(struct: str, field: str, schema: Schema) -> Schema:
    if not isinstance(schema, ListOf):
        return schema
    if (struct, field) in _SETS:
        return ListOf(schema.items, as_set=True)
    by_type = ("type",) if field == "conditions" else ()
    return ListOf(schema.items, _MERGE_KEYS.get((struct, field), by_type))


_JSON_NAMES = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "string",
    dict: "object",
    list: "array",
    type(None): "null",
}
_PLAIN_NAMES = {
    "string": "a string",
    "int32": "a whole number",
    "bool": "true or false",
    "IntOrString": "a whole number or a string",
    "Quantity": "a number or a string",
    "float64": "a number",
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


class UnknownField(NamedTuple):
    """A field that its object does not have. suggestion: the one that was meant, or ""."""

    field: str
    suggestion: str

    @property
    def hint(self) -> str:
        return f' (did you mean "{self.suggestion}"?)' if self.suggestion else ""

    def __str__(self) -> str:
        """As the API server words it, with a hint."""
        return f'unknown field "{self.field}"{self.hint}'


def decode(value: Any, schema: Schema, unknown: list[UnknownField]) -> Any:
    """A deep copy without fields that are null, which in JSON mean the same as no field, and
    without those that the schema does not know, which are added to `unknown`. WrongType at the
    first value that has another type than its field."""
    return _decode(value, schema, "", "", unknown)


def _decode(value: Any, schema: Schema, path: str, struct: str, unknown: list[UnknownField]) -> Any:
    match schema:
        case Scalar(name, types):
            # to Python, a bool is an int
            is_one = bool in types if isinstance(value, bool) else isinstance(value, types)
            if not is_one and schema is not _ANY:
                raise WrongType(path, struct, _json_name(value), name)
            return value
        case Struct():
            if not isinstance(value, dict):
                raise WrongType(path, struct, _json_name(value), "an object")
            fields, result = schema.fields, {}
            for key, item in value.items():
                place = f"{path}.{key}" if path else str(key)
                if key not in fields:
                    unknown.append(UnknownField(place, _closest(key, fields)))
                elif item is not None:
                    result[key] = _decode(item, fields[key], place, schema.name, unknown)
            return result
        case MapOf(values):
            if not isinstance(value, dict):
                raise WrongType(path, struct, _json_name(value), "an object")
            return {
                key: _decode(item, values, f"{path}.{key}", struct, unknown)
                for key, item in value.items()
                if item is not None
            }
        case ListOf(items):
            if not isinstance(value, list):
                raise WrongType(path, struct, _json_name(value), "a list")
            return [
                _decode(item, items, f"{path}[{index}]", struct, unknown)
                for index, item in enumerate(value)
            ]


def _closest(key: str, fields: Mapping[str, Schema]) -> str:
    by_lower = {name.lower(): name for name in fields}
    found = difflib.get_close_matches(str(key).lower(), by_lower, n=1, cutoff=0.65)
    return by_lower[found[0]] if found else ""


def _json_name(value: Any) -> str:
    return _JSON_NAMES.get(type(value), type(value).__name__)


def child(schema: Schema | None, key: str) -> Schema | None:
    """The schema of a field; None where nothing is known."""
    match schema:
        case Struct():
            return schema.fields.get(key)
        case MapOf(values):
            return values
    return None


def identity(item: Any, merge_key: tuple[str, ...]) -> tuple[Any, ...]:
    """What tells an item of a keyed list apart."""
    if not isinstance(item, dict):
        return (item,)
    return tuple(item.get(key, _KEY_DEFAULTS.get(key)) for key in merge_key)
