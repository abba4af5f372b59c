"""The three-way merge of `kubectl apply`: what an earlier apply set, what is there, what this one
says.

Fields that this manifest names get its values; fields that the last one named and this one does
not, go; all others (defaults, what controllers wrote) stay. Lists that have a merge key are merged
item by item in the same way.
"""

import copy
from typing import Any

from ebpf_lb.apiserver.schema import ListOf, Schema, child, identity


def three_way_merge(last: Any, live: Any, wanted: Any, schema: Schema | None) -> Any:
    """The object as it should be. `last` is None at the first apply."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        return _merge_objects(last if isinstance(last, dict) else {}, live, wanted, schema)
    if isinstance(wanted, list) and isinstance(live, list) and isinstance(schema, ListOf):
        before = last if isinstance(last, list) else []
        if schema.as_set:
            return _merge_sets(before, live, wanted)
        if schema.merge_key and _has_keys([*before, *live, *wanted], schema.merge_key):
            return _merge_lists(before, live, wanted, schema)
    return copy.deepcopy(wanted)


def _merge_objects(
    last: dict[str, Any], live: dict[str, Any], wanted: dict[str, Any], schema: Schema | None
) -> dict[str, Any]:
    result = {}
    for key, value in live.items():
        if key in wanted:
            if wanted[key] is not None:
                result[key] = three_way_merge(last.get(key), value, wanted[key], child(schema, key))
        elif key not in last:
            result[key] = value
    for key, value in wanted.items():
        if key not in live and value is not None:
            result[key] = copy.deepcopy(value)
    return result


def _merge_lists(last: list[Any], live: list[Any], wanted: list[Any], schema: ListOf) -> list[Any]:
    """In the order of the manifest; what others added follows."""

    def by_key(items: list[Any]) -> dict[tuple[Any, ...], Any]:
        return {identity(item, schema.merge_key): item for item in items}

    before, present, asked = by_key(last), by_key(live), by_key(wanted)
    result = [
        three_way_merge(before.get(key), present[key], item, schema.items)
        if key in present
        else copy.deepcopy(item)
        for key, item in asked.items()
    ]
    result += [item for key, item in present.items() if key not in asked and key not in before]
    return result


def _merge_sets(last: list[Any], live: list[Any], wanted: list[Any]) -> list[Any]:
    others = [item for item in live if item not in wanted and item not in last]
    return [*wanted, *others]


def _has_keys(items: list[Any], merge_key: tuple[str, ...]) -> bool:
    return all(isinstance(item, dict) and merge_key[0] in item for item in items)
