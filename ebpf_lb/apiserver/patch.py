"""Patches: JSON merge patch (RFC 7386) and strategic merge patch.

Functions return a new value and leave their arguments alone.
"""

import copy
from typing import Any

from ebpf_lb.apiserver.errors import bad_request
from ebpf_lb.apiserver.schema import ListOf, Schema, child, identity

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
TYPES = (MERGE, STRATEGIC)


def apply_patch(patch_type: str, target: Any, patch: Any, schema: Schema) -> Any:
    """`target` patched. StatusError (400) if the patch is none or does not fit."""
    if not isinstance(patch, dict):
        raise bad_request(f"a patch of type {patch_type} must be a JSON object")
    if patch_type == MERGE:
        return merge_patch(target, patch)
    return strategic_merge(target, patch, schema)


def merge_patch(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


# --- strategic merge patch
# (Kubernetes' own: "sig-api-machinery/strategic-merge-patch.md" in the community repository)

_DIRECTIVE = "$patch"
_DELETE_VALUES = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"
_RETAIN_KEYS = "$retainKeys"


def strategic_merge(target: Any, patch: dict[str, Any], schema: Schema | None) -> Any:
    result = dict(target) if isinstance(target, dict) else {}
    if patch.get(_DIRECTIVE) == "replace":
        return {key: value for key, value in patch.items() if key != _DIRECTIVE}
    if _RETAIN_KEYS in patch:
        result = {key: value for key, value in result.items() if key in patch[_RETAIN_KEYS]}
    for key, value in patch.items():
        if key.startswith(_DELETE_VALUES):
            name = key.removeprefix(_DELETE_VALUES)
            result[name] = [item for item in result.get(name) or [] if item not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            if value.get(_DIRECTIVE) == "delete":
                result.pop(key, None)
            else:
                result[key] = strategic_merge(result.get(key), value, child(schema, key))
        elif isinstance(value, list):
            order = patch.get(_ORDER + key)
            result[key] = _merge_list(result.get(key) or [], value, child(schema, key), order)
        else:
            result[key] = value
    for key, order in patch.items():
        name = key.removeprefix(_ORDER)
        if key.startswith(_ORDER) and name not in patch and name in result:
            result[name] = _merge_list(result[name], [], child(schema, name), order)
    return result


def _merge_list(
    target: list[Any], patch: list[Any], schema: Schema | None, order: list[Any] | None
) -> list[Any]:
    if not isinstance(schema, ListOf) or not (schema.merge_key or schema.as_set):
        return copy.deepcopy(patch)
    if schema.as_set:
        return target + [item for item in patch if item not in target]
    if any(isinstance(item, dict) and item.get(_DIRECTIVE) == "replace" for item in patch):
        return [item for item in patch if _DIRECTIVE not in item]
    result = list(target)
    for item in patch:
        if not isinstance(item, dict) or schema.merge_key[0] not in item:
            raise bad_request(
                f"map: {item} does not contain declared merge key: {schema.merge_key[0]}"
            )
        key = identity(item, schema.merge_key)
        positions = [
            index for index, old in enumerate(result) if identity(old, schema.merge_key) == key
        ]
        if item.get(_DIRECTIVE) == "delete":
            result = [old for index, old in enumerate(result) if index not in positions]
        elif positions:
            first = positions[0]
            result[first] = strategic_merge(result[first], item, schema.items)
        else:
            result.append(copy.deepcopy(item))
    if order:
        # The order lists may name items by the first merge key alone.
        first_keys = [item.get(schema.merge_key[0]) for item in order if isinstance(item, dict)]
        rank = {key: index for index, key in reversed(list(enumerate(first_keys)))}
        result.sort(key=lambda item: rank.get(item.get(schema.merge_key[0]), len(rank)))
    return result
