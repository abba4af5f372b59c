"""Label and field selectors."""

from typing import Any

import pytest

from ebpf_lb.apiserver.errors import StatusError
from ebpf_lb.apiserver.selectors import label_selector, parse_fields, parse_labels

LABELS = {"app": "web", "tier": "front", "size": "5", "example.com/x": "y"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app=db", False),
        ("app!=db", True),
        ("app!=web", False),
        ("none!=x", True),
        ("app", True),
        ("none", False),
        ("!none", True),
        ("!app", False),
        ("app in (web, db)", True),
        ("app in (db)", False),
        ("app notin (db)", True),
        ("app notin (db,web)", False),
        ("none notin (x)", True),
        ("size > 4", True),
        ("size<5", False),
        ("app=web,tier in (front,back),!none", True),
        ("app=web,tier in (back)", False),
        ("example.com/x=y", True),
        ("none=", False),
    ],
)
def test_labels(text: str, matches: bool) -> None:
    assert parse_labels(text)(LABELS) is matches


def test_no_selector() -> None:
    with pytest.raises(StatusError) as caught:
        parse_labels("app in web")
    assert caught.value.code == 400


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("metadata.name=web", True),
        ("metadata.name!=web", False),
        ("metadata.namespace==default,metadata.name=web", True),
        ("spec.nodeName=", True),
        ("spec.nodeName=node1", False),
    ],
)
def test_fields(text: str, matches: bool) -> None:
    object_ = {"metadata": {"name": "web", "namespace": "default"}, "spec": {}}
    assert parse_fields(text)(object_) is matches


def test_unknown_field() -> None:
    with pytest.raises(StatusError, match="field label not supported"):
        parse_fields("spec.colour=red")


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ({"key": "app", "operator": "In", "values": ["web"]}, True),
        ({"key": "app", "operator": "NotIn", "values": ["web"]}, False),
        ({"key": "none", "operator": "DoesNotExist"}, True),
        ({"key": "app", "operator": "Exists"}, True),
    ],
)
def test_expressions(expression: dict[str, Any], matches: bool) -> None:
    selector = label_selector({"matchLabels": {"tier": "front"}, "matchExpressions": [expression]})
    assert selector(LABELS) is matches
