"""Documents, messages and comments keep to the rules of style that a program can hold."""

import pytest

from tests.support import style
from tests.support.prose import tracked

LOOKED_AT = (".md", ".py", ".h", ".c", ".yaml", ".toml", "Makefile", "Vagrantfile", ".ci/run")


def test_what_people_read() -> None:
    found = []
    for name in sorted(tracked()):
        if name.endswith(LOOKED_AT) and not name.startswith(style.QUOTES):
            found += style.look(name, (style.ROOT / name).read_text())
    assert found == [], "\n".join(found)


@pytest.mark.parametrize(
    ("line", "faulty"),
    [
        ("'x' is no whole number", True),
        ("packets that are no Service's", True),
        ("there is no such Service", False),
        ("the API server is no longer away", False),
        ("it must be no larger than 5", False),
        ("tables are no wider than the terminal", False),
        ("There are no hints", False),
        ("Credentials; without: those of a pod.", True),
        ("Credentials; default: those of a pod.", False),
        ("a pod without: nothing", False),
        ("it is none of TCP, UDP and SCTP", True),
        ("there is none of that name", False),
        ("one a family", True),
        ("one address of a family", False),
        ("source translation", True),
        ("there are no pods as yet", True),
        ("there are no pods yet", False),
        ("a scenario of one's own", True),
    ],
)
def test_the_rules(line: str, faulty: bool) -> None:
    assert bool(list(style.faults(line))) is faulty


def test_where_is_looked() -> None:
    """In comments, docstrings and messages, and what an f-string puts together."""
    code = (
        '"""It is no room."""\n'
        "x = 'no'  # that is no news\n"
        'raise ValueError(f"{x!r} is no list")\n'
        'help("Where; without: here.")\n'
        "this_is_no_phrase = 1\n"
    )
    assert len(style.look("a.py", code)) == 4
    assert len(style.look("a.h", "/* it is no room */ int is_no;\n// nor is no news\n")) == 2
