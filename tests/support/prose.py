"""What people read in the repository's files: documents, and sources' comments."""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def tracked() -> frozenset[str]:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return frozenset(name for name in listed if (ROOT / name).exists())


def prose(name: str, text: str) -> Iterator[tuple[int, str]]:
    """Lines that people read, with their numbers: documents whole, of sources the comments."""
    if name.endswith(".py"):
        yield from _of_python(text)
    elif name.endswith((".h", ".c")):
        for match in re.finditer(r"/\*.*?\*/|//[^\n]*", text, re.DOTALL):
            first = text.count("\n", 0, match.start()) + 1
            yield from enumerate(match[0].split("\n"), first)
    elif name.endswith((".md", ".toml", ".yaml", ".sh")) or "." not in name or name == ".ci/run":
        yield from enumerate(text.split("\n"), 1)


def _of_python(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            said = node.value.value
            if isinstance(said, str):
                yield from enumerate(said.split("\n"), node.lineno)
