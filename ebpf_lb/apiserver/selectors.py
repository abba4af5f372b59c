"""Label and field selectors of list and watch, and label selectors inside objects."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from ebpf_lb.apiserver.errors import bad_request
from ebpf_lb.apiserver.paths import value

Matcher = Callable[[dict[str, Any]], bool]
LabelMatcher = Callable[[Mapping[str, str]], bool]

# Fields that selectors may name, for every kind; as the real server refuses others.
_FIELDS = (
    *("metadata.name", "metadata.namespace"),
    *("spec.nodeName", "spec.clusterIP", "spec.type", "status.phase", "type", "reason"),
    *(f"involvedObject.{field}" for field in ("kind", "name", "namespace", "uid")),
)

_SET_BASED = re.compile(r"^\s*(\S+)\s+(in|notin)\s*\(([^)]*)\)\s*$")
_NUMERIC = re.compile(r"^\s*([^\s<>]+)\s*([<>])\s*(-?\d+)\s*$")
_EQUALITY = re.compile(r"^\s*([^\s!=]+)\s*(==|=|!=)\s*([^\s!=]*)\s*$")
_EXISTS = re.compile(r"^\s*(!?)\s*([^\s!=,()<>]+)\s*$")


def parse_labels(text: str) -> LabelMatcher:
    """`app=web,tier in (a, b),!canary`; StatusError (400) if it is not a selector."""
    requirements = [_label_requirement(part) for part in _split(text) if part.strip()]
    return lambda labels: all(requirement(labels) for requirement in requirements)


def _split(text: str) -> list[str]:
    """At the commas that are outside parentheses."""
    return re.split(r",(?![^(]*\))", text)


def _label_requirement(text: str) -> LabelMatcher:
    if match := _SET_BASED.match(text):
        key, operator, inside = match.groups()
        values = {value.strip() for value in inside.split(",")}
        return _requirement(key, "In" if operator == "in" else "NotIn", values)
    if match := _EQUALITY.match(text):
        key, operator, value = match.groups()
        return _requirement(key, "NotIn" if operator == "!=" else "In", {value})
    if match := _NUMERIC.match(text):
        key, sign, number = match.groups()
        return _requirement(key, "Lt" if sign == "<" else "Gt", {number})
    if match := _EXISTS.match(text):
        absent, key = match.groups()
        return _requirement(key, "DoesNotExist" if absent else "Exists", set())
    raise bad_request(f"unable to parse requirement: {text.strip()!r} is not a label selector")


def _requirement(key: str, operator: str, values: set[str]) -> LabelMatcher:
    match operator:
        case "In":
            return lambda labels: labels.get(key) in values
        case "NotIn":  # objects without the label match too
            return lambda labels: labels.get(key) not in values
        case "Exists":
            return lambda labels: key in labels
        case "DoesNotExist":
            return lambda labels: key not in labels
        case "Lt" | "Gt":
            (bound,) = map(int, values)
            sign = 1 if operator == "Gt" else -1

            def compare(labels: Mapping[str, str]) -> bool:
                value = labels.get(key, "")
                return value.lstrip("-").isdigit() and (int(value) - bound) * sign > 0

            return compare
    raise bad_request(f'"{operator}" is not a valid label selector operator')


def parse_fields(text: str) -> Matcher:
    """`metadata.name=web,spec.nodeName!=node1`; StatusError (400) for an unknown field."""
    requirements = [_field_requirement(part) for part in text.split(",") if part.strip()]
    return lambda object_: all(requirement(object_) for requirement in requirements)


def _field_requirement(text: str) -> Matcher:
    match = re.match(r"^\s*([^!=]+?)\s*(==|=|!=)\s*(.*?)\s*$", text)
    if not match:
        raise bad_request(f"invalid field selector: {text.strip()!r}")
    path, operator, wanted = match.groups()
    if path not in _FIELDS:
        raise bad_request(f"field label not supported: {path}")
    return lambda object_: (value(object_, path) == wanted) == (operator != "!=")


def object_matcher(label_selector: str, field_selector: str) -> Matcher | None:
    """Both selectors of a request as one; None if they let everything pass."""
    if not label_selector and not field_selector:
        return None
    labels = parse_labels(label_selector)
    fields = parse_fields(field_selector)
    return lambda object_: labels(object_["metadata"].get("labels") or {}) and fields(object_)


def label_selector(selector: Mapping[str, Any]) -> LabelMatcher:
    """A LabelSelector (`matchLabels`, `matchExpressions`) of a Deployment or the like."""
    requirements = [
        _requirement(key, "In", {value})
        for key, value in (selector.get("matchLabels") or {}).items()
    ] + [
        _requirement(term["key"], term["operator"], set(term.get("values") or ()))
        for term in selector.get("matchExpressions") or ()
    ]
    return lambda labels: all(requirement(labels) for requirement in requirements)
