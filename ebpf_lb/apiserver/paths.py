"""Places in objects by paths, as in messages: `spec.type`, `spec.ports[*].protocol`.

Tables of such paths say which values a kind's fields have by default, what they must look like,
what columns show, and what selectors compare.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any


def find(object_: Any, path: str) -> Iterator[tuple[str, Any]]:
    """What is there, each with its place, such as `spec.ports[0].protocol`. An empty text is
    nothing, as in the API."""
    found = [("", object_)]
    for step in path.split("."):
        name, each = step.removesuffix("[*]"), step.endswith("[*]")
        found = [
            (f"{place}.{name}" if place else name, value[name])
            for place, value in found
            if isinstance(value, dict) and value.get(name) not in (None, "")
        ]
        if each:
            found = [
                (f"{place}[{index}]", item)
                for place, items in found
                for index, item in enumerate(items)
            ]
    yield from found


def values(object_: Any, path: str) -> list[Any]:
    return [value for _, value in find(object_, path)]


def value(object_: Any, path: str, otherwise: Any = "") -> Any:
    """The first one."""
    return next(iter(values(object_, path)), otherwise)


def set_defaults(object_: Any, defaults: Mapping[str, Any]) -> None:
    """Gives fields that are left out their values, with the objects that they stand in; an item of
    a list gets them where it is there."""
    for path, default in defaults.items():
        *above, name = path.split(".")
        found = [object_]
        for step in above:
            field = step.removesuffix("[*]")
            if step.endswith("[*]"):
                found = [item for parent in found for item in parent.get(field) or ()]
            else:
                found = [parent.setdefault(field, {}) for parent in found]
        for parent in found:
            parent.setdefault(name, deepcopy(default))
