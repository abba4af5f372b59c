"""Rules of docs/semantics.md: what there is, which code carries each, and which tests hold it.

A rule is defined where a list item or a table row begins with its id: "- {rule}`EP-1` **Title.**".
Code names the rules that it carries in a comment, `rule: EP-1` or `rule: EP-1, EP-2`; a test names
those that it holds by `@pytest.mark.rule("EP-1")`. All of it is found by reading the files: nothing
is imported.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAW = ROOT / "docs" / "semantics.md"
NOT_HELD_YET = ROOT / "docs" / "not-held-yet.md"

CODE = ("bpf", "ebpf_lb")
# What `make test` runs: what only a cluster or another kernel would show may break unseen.
TESTS = tuple(
    f"tests/{part}" for part in ("unit", "api", "oracle", "datapath", "differential", "lab")
)

ID = r"[A-Z]{2}-\d+"
DEFINITION = re.compile(rf"^(?:- |\| )\{{rule\}}`({ID})`(?:[^*]*?\*\*(.+?)\*\*)?", re.MULTILINE)
_ENTRY = re.compile(rf"^- \{{rule\}}`({ID})`:? (.+)$", re.MULTILINE)
_MARKER = re.compile(rf"(?:/\*|\*|//|#)\s*rule: ({ID}(?:, {ID})*)\s*(?:\*/)?$")
_LOOKS_LIKE_ONE = re.compile(r"(?:/\*|\*|//|#)\s*rules?: [A-Z]{2}-")


@dataclass(frozen=True, slots=True)
class Rule:
    id: str
    title: str


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """`name`: the function or class, where a test has one; the file alone says enough of code."""

    file: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.file}::{self.name}" if self.name else self.file


class MarkerError(Exception):
    """A marker that cannot be read; the sentence names file and line."""


def defined(law: str) -> list[Rule]:
    """The rules in their order on the page."""
    return [Rule(match[1], (match[2] or "").rstrip(".")) for match in DEFINITION.finditer(law)]


def not_held_yet(page: str) -> dict[str, str]:
    """Rules that code or tests still lack: id -> why."""
    return {match[1]: match[2] for match in _ENTRY.finditer(page)}


def in_code(root: Path = ROOT) -> dict[str, set[Place]]:
    """The code that carries each rule."""
    found: dict[str, set[Place]] = {}
    for file in _files(root, CODE, (".h", ".c", ".py")):
        for number, line in enumerate((root / file).read_text().splitlines(), 1):
            match = _MARKER.search(line.rstrip())
            if match is None:
                if _LOOKS_LIKE_ONE.search(line):
                    raise MarkerError(f"{file}:{number}: write `rule: XX-1, XX-2`: {line.strip()}")
                continue
            for one in match[1].split(", "):
                found.setdefault(one, set()).add(Place(file))
    return found


def in_tests(root: Path = ROOT) -> dict[str, set[Place]]:
    """The tests that hold each rule."""
    found: dict[str, set[Place]] = {}
    for file in _files(root, TESTS, (".py",)):
        text = (root / file).read_text()
        if "mark.rule" not in text:
            continue
        for name, ids in _marks(ast.parse(text), file):
            for one in ids:
                found.setdefault(one, set()).add(Place(file, name))
    return found


def _files(root: Path, folders: tuple[str, ...], endings: tuple[str, ...]) -> Iterator[str]:
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in endings and "__pycache__" not in path.parts:
                yield path.relative_to(root).as_posix()


def _marks(tree: ast.Module, file: str) -> Iterator[tuple[str, list[str]]]:
    """Marks with the test they stand on; those of a whole module, or of values that many tests
    share, have no name."""
    inside: dict[ast.AST, str] = {}

    def visit(node: ast.AST, name: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{name}::{node.name}" if name else node.name
        inside[node] = name
        for child in ast.iter_child_nodes(node):
            visit(child, name)

    visit(tree, "")
    for node, name in inside.items():
        if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.rule"):
            continue
        ids = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        words = [one for one in ids if isinstance(one, str)]
        if len(words) != len(node.args) or not words or node.keywords:
            raise MarkerError(f"{file}:{node.lineno}: give the rules' ids as plain strings")
        yield name, words
