"""The OpenAPI documents (version 3), made from the kinds and their schemas.

kubectl reads in them which of `dryRun` and `fieldValidation` a kind takes, and prints the rest with
`kubectl explain`. How lists merge it knows by itself: no patch is described as strategic here.
"""

from typing import Any

from ebpf_lb.apiserver.kinds import KINDS, Kind
from ebpf_lb.apiserver.schema import ListOf, MapOf, Scalar, Schema, Struct

Json = dict[str, Any]

_TYPES: dict[str, Json] = {
    "string": {"type": "string"},
    "int32": {"type": "integer", "format": "int32"},
    "float64": {"type": "number"},
    "bool": {"type": "boolean"},
    "IntOrString": {"type": "string", "format": "int-or-string"},
    "Quantity": {"type": "string"},
    "any": {"type": "object"},
}


def document(path: str) -> Json | None:
    """The document of a path; None if it is not one of these."""
    match path.strip("/").split("/"):
        case ["openapi", "v3"]:
            places = {_place(kind) for kind in KINDS}
            return {
                "paths": {
                    place: {"serverRelativeURL": f"/openapi/v3/{place}"} for place in sorted(places)
                }
            }
        case ["openapi", "v3", *rest]:
            kinds = [kind for kind in KINDS if _place(kind) == "/".join(rest)]
            return _group_version(kinds) if kinds else None
    return None


def _place(kind: Kind) -> str:
    return kind.collection_path(None).strip("/").rpartition("/")[0]


def _group_version(kinds: list[Kind]) -> Json:
    schemas: dict[str, Json] = {}
    paths: dict[str, Json] = {}
    for kind in kinds:
        _describe(kind.schema, schemas)
        schemas[kind.schema.name]["x-kubernetes-group-version-kind"] = [_type(kind)]
        reference = {"$ref": f"#/components/schemas/{kind.schema.name}"}
        content = {"application/json": {"schema": reference}}
        parameters = [
            {"name": name, "in": "query", "schema": {"type": "string"}}
            for name in ("dryRun", "fieldValidation")
        ]
        operation = {
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": content}},
            "x-kubernetes-group-version-kind": _type(kind),
        }
        collection = kind.collection_path("{namespace}")
        paths[collection] = {"post": {"x-kubernetes-action": "post"} | operation}
        paths[f"{collection}/{{name}}"] = {
            "get": {"x-kubernetes-action": "get"} | operation,
            "put": {"x-kubernetes-action": "put"} | operation,
            "patch": {"x-kubernetes-action": "patch"} | operation,
        }
    return {
        "openapi": "3.0.0",
        "info": {"title": "ebpf-lb lab", "version": "v1"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _type(kind: Kind) -> Json:
    return {"group": kind.group, "version": kind.version, "kind": kind.name}


def _describe(struct: Struct, schemas: dict[str, Json]) -> None:
    """Adds a struct, and all that it is made of."""
    if struct.name in schemas:
        return
    properties: dict[str, Json] = {}
    schemas[struct.name] = {"type": "object", "properties": properties}
    for name, field in struct.fields.items():
        properties[name] = _field(field, schemas)


def _field(schema: Schema, schemas: dict[str, Json]) -> Json:
    match schema:
        case Scalar(name):
            return _TYPES[name]
        case ListOf(items):
            return {"type": "array", "items": _field(items, schemas)}
        case MapOf(values):
            return {"type": "object", "additionalProperties": _field(values, schemas)}
        case Struct():
            _describe(schema, schemas)
            return {"allOf": [{"$ref": f"#/components/schemas/{schema.name}"}]}
