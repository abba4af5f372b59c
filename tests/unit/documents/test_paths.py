"""What documents and comments name is in the repository: files, folders, and nothing beside it."""

import re
from functools import cache

import pytest

from tests.support.prose import ROOT, prose, tracked

# Not ours: the system's headers, Kubernetes' documents; the wheel's folders, and what is built.
ELSEWHERE = re.compile(
    r"^(?:linux/|uapi/|asm|net/|sys/|malloc\.h|sig-[a-z-]+/|ebpf_lb/(?:bpf|manifests)$|ebpf_lb/objects\b)"
)
_FILE = re.compile(
    r"(?<![\w/.:~<>{}*$-])((?:\.{1,2}/)*[\w-]+(?:/[\w.-]+)*\.(?:py|h|c|md|toml|lock))(?![\w/*(-])"
)
_FOLDER = re.compile(
    r"(?<![\w/.:~<>{}*$-])((?:bpf|ebpf_lb|tests|docs|manifests)/[\w/.-]*\w)(?![\w/*-])"
)
_OUTSIDE = re.compile(r"(?<![\w.])(?:\.\./)+(?:shared|work)\b|\bSEMANTICS\b|\bFAULTS\b")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@cache
def tails() -> frozenset[str]:
    """All that may stand for a file or folder: its path from the top, or from any folder above."""
    found = set()
    for name in tracked():
        parts = name.split("/")
        for end in range(1, len(parts) + 1):
            found.update("/".join(parts[begin:end]) for begin in range(end))
    return frozenset(found)


def missing(name: str, text: str) -> list[str]:
    """Sentences about what a file names and the repository lacks."""
    found = []
    for number, line in prose(name, text):
        named = {match[1] for pattern in (_FILE, _FOLDER) for match in pattern.finditer(line)}
        for one in sorted(named):
            if ELSEWHERE.match(one) or one.lstrip("./") in tails():
                continue
            found.append(f"{name}:{number}: there is no {one}")
        found += [
            f"{name}:{number}: {match[0]} is not in the repository"
            for match in _OUTSIDE.finditer(line)
        ]
        if name.endswith(".md") and not name.startswith("docs/"):  # these the site looks after
            for link in _LINK.findall(line):
                target = (ROOT / name).parent / link.partition("#")[0]
                if "://" not in link and not target.exists():
                    found.append(f"{name}:{number}: the link leads nowhere: {link}")
    return found


def test_nothing_names_what_is_not_there() -> None:
    found = []
    for name in sorted(tracked() - {"LICENSE", "tests/unit/documents/test_paths.py"}):
        path = ROOT / name
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += missing(name, text)
    assert found == [], "\n".join(found)


@cache
def defined() -> frozenset[str]:
    """What is called like a function, a macro or a class, anywhere in the sources."""
    sources = (ROOT / name for name in tracked() if name.endswith((".py", ".h", ".c")))
    words = re.compile(r"\b(\w+)\(|\bclass (\w+)")
    return frozenset(
        first or second for path in sources for first, second in words.findall(path.read_text())
    )


def unknown(text: str) -> list[str]:
    """`function()` and `TestClass` that a document names and no source has."""
    named = re.findall(r"`([a-z]\w+)\(\)`|`(Test[A-Z]\w+)`", text)
    return [first or second for first, second in named if (first or second) not in defined()]


def test_documents_name_functions_that_are_there() -> None:
    found = {
        name: words
        for name in sorted(tracked())
        if name.endswith(".md") and (words := unknown((ROOT / name).read_text()))
    }
    assert found == {}
    nobody = "of_nobody"
    assert unknown(f"`decide()`, `{nobody}()`, `TestNobody`") == [nobody, "TestNobody"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("README.md", "see [this](docs/nothing.md)", 2),
        ("README.md", "see [this](docs/index.md) and `make test`", 0),
        ("x.md", "in `bpf/services/decide.h`, `services/decide.h` and `decide.h`", 0),
        ("x.md", "in `bpf/decided.h`", 1),
        ("x.md", "the folder ebpf_lb/planned", 1),
        ("x.py", '"""As ../shared/x says."""\nx = "bpf/none.h"  # as SEMANTICS says\n', 2),
        ("x.h", '#include "none.h"\n/* as gone.h */ // tests/none\n', 2),
        ("x.h", "/* bpf_helpers of linux/bpf.h, and 10.0.0.0/8 */", 0),
    ],
)
def test_the_check_itself(name: str, text: str, says: int) -> None:
    assert len(missing(name, text)) == says, missing(name, text)
