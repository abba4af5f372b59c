"""Every rule of the law is carried by code and held by a test, and no marker names another."""

from pathlib import Path

import pytest

from docs.extensions import rules
from docs.extensions.rules import MarkerError, Place

DEFINED = {rule.id: rule for rule in rules.defined(rules.LAW.read_text())}
WAITING = rules.not_held_yet(rules.NOT_HELD_YET.read_text())


def test_every_rule_has_one_id_and_a_title() -> None:
    found = rules.defined(rules.LAW.read_text())
    ids = [rule.id for rule in found]
    assert len(ids) > 90
    assert sorted(set(ids)) == sorted(ids)
    assert [rule.id for rule in found if not rule.title] == []


@pytest.mark.parametrize("where", ["code", "tests"])
def test_every_rule_is_held(where: str) -> None:
    held = rules.in_code() if where == "code" else rules.in_tests()
    missing = [one for one in DEFINED if one not in held and one not in WAITING]
    assert missing == [], f"no {where}; mark them, or say why not in {rules.NOT_HELD_YET.name}"


@pytest.mark.parametrize("where", ["code", "tests", "not-held-yet"])
def test_no_marker_names_what_is_no_rule(where: str) -> None:
    named = {"code": rules.in_code, "tests": rules.in_tests, "not-held-yet": lambda: WAITING}
    found = named[where]()
    unknown = {one: sorted(map(str, found[one])) for one in found if one not in DEFINED}
    assert unknown == {}


def test_what_is_held_by_now_does_not_wait() -> None:
    code, tests = rules.in_code(), rules.in_tests()
    held = [one for one in WAITING if one in code and one in tests]
    assert held == [], f"held: take them out of {rules.NOT_HELD_YET.name}"


# the reading itself

LAW = """
- {rule}`AB-1` **First.** See {rule}`AB-9`.
- {rule}`AB-2` goes on, **and its title** comes late.
| {rule}`AB-3` | **In a table** | {rule}`AB-1` |
  {rule}`AB-4` **A mention.**
"""


def test_rules_are_read_where_they_are_defined() -> None:
    found = rules.defined(LAW)
    assert [rule.id for rule in found] == ["AB-1", "AB-2", "AB-3"]
    assert [rule.title for rule in found] == ["First", "and its title", "In a table"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in ("bpf", "ebpf_lb", "tests/unit"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def test_markers_in_code(tree: Path) -> None:
    (tree / "bpf" / "a.h").write_text("/* rule: AB-1, AB-2 */\nint a;\n/*\n * rule: AB-3\n */\n")
    (tree / "ebpf_lb" / "b.py").write_text("# rule: AB-1\nx = 1  # the rule: of thumb\n")
    assert rules.in_code(tree) == {
        "AB-1": {Place("bpf/a.h"), Place("ebpf_lb/b.py")},
        "AB-2": {Place("bpf/a.h")},
        "AB-3": {Place("bpf/a.h")},
    }


@pytest.mark.parametrize("text", ["# rules: AB-1", "# rule: AB-1 AB-2", "/* rule: AB-1,AB-2 */"])
def test_a_marker_that_is_misspelt_is_told(tree: Path, text: str) -> None:
    (tree / "ebpf_lb" / "b.py").write_text(text)
    with pytest.raises(MarkerError, match=r"ebpf_lb/b\.py:1"):
        rules.in_code(tree)


def test_markers_on_tests(tree: Path) -> None:
    (tree / "tests" / "unit" / "test_a.py").write_text(
        '@pytest.mark.rule("AB-1", "AB-2")\n'
        "def test_one():\n    pass\n\n"
        "class TestMore:\n"
        '    @pytest.mark.rule("AB-2")\n'
        "    def test_two(self):\n        pass\n\n"
        'CASES = [pytest.param(1, marks=pytest.mark.rule("AB-3"))]\n'
    )
    one = Place("tests/unit/test_a.py", "test_one")
    assert rules.in_tests(tree) == {
        "AB-1": {one},
        "AB-2": {one, Place("tests/unit/test_a.py", "TestMore::test_two")},
        "AB-3": {Place("tests/unit/test_a.py")},
    }


def test_a_mark_that_cannot_be_read_is_told(tree: Path) -> None:
    (tree / "tests" / "unit" / "test_a.py").write_text(
        "@pytest.mark.rule(*IDS)\ndef test_one():\n    pass\n"
    )
    with pytest.raises(MarkerError, match=r"test_a\.py:1"):
        rules.in_tests(tree)
