"""The rules of docs/contributing/style.md that a program can hold: phrases, and what to write.

    python -m tests.support.style [FILE…]

Looks at what people read: documents whole, of sources the comments, docstrings and messages.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.prose import ROOT, prose, tracked

# It must quote what it forbids.
QUOTES = ("docs/contributing/style.md", "tests/support/style.py", "tests/unit/documents/")


@dataclass(frozen=True, slots=True)
class Phrase:
    pattern: str
    instead: str


PHRASES = (
    # "there is no" is English, and so are "is no longer", "be no larger than"
    Phrase(
        r"(?<!there )(?<!There )\b(?:is|are|was|were|be) no (?!(?:longer|more|sooner|later|less|"
        r"worse|better|greater|other)\b|\w+er than)",
        '"is not a …"',
    ),
    Phrase(r"(?<!there )(?<!There )\b(?:is|are) none of\b", '"is not one of …"'),
    Phrase(r"(?:;|,|^)\s*[Ww]ithout:", '"default: …"'),
    Phrase(r"\bone an? (?:address|family|node|subset|line|open|backend|packet|hook|map)\b",
           '"one for each …"'),
    Phrase(r"\ban? (?:family|node|packet|hook|map|port|folder|line) each\b", '"one for each …"'),
    Phrase(r"\b[Ss]ource translation\b", '"SNAT"'),
    Phrase(r"\b[Dd]estination translation\b", '"DNAT"'),
    Phrase(r"\btail-call\b(?!s? array)", '"tail call"'),
    Phrase(r"\bcon(?:nection)?-track(?:ing)?\b", '"conntrack"'),
    Phrase(r"\bas yet\b", '"yet"'),
    Phrase(r"\b[Ss]o-called\b", "the thing's name alone"),
    Phrase(r"\bone's own\b", '"your own"'),
    Phrase(r"\b(?:who|whom|which) ails?\b|\bails\b", '"is affected", "fails"'),
)  # fmt: skip


def faults(text: str) -> Iterator[tuple[str, str]]:
    """Phrases in a line, and what to write instead."""
    for phrase in PHRASES:
        match = re.search(phrase.pattern, text)
        if match:
            yield match[0].strip(), phrase.instead


def messages(text: str) -> Iterator[tuple[int, str]]:
    """Strings of Python's that hold words, docstrings apart."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "x" for part in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def look(name: str, text: str) -> list[str]:
    """Sentences about what is wrong in a file."""
    lines = list(prose(name, text))
    if name.endswith(".py"):
        lines += messages(text)
    found = {
        f'{name}:{number}: "{phrase}": write {instead}'
        for number, line in lines
        for phrase, instead in faults(" ".join(line.split()))
    }
    return sorted(found)


def main(names: list[str]) -> int:
    found = []
    for name in names or sorted(tracked()):
        if not name.startswith(QUOTES):
            try:
                found += look(name, (ROOT / name).read_text())
            except UnicodeDecodeError:
                continue
    print("\n".join(found) or "Nothing found.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
