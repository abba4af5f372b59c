"""Which programs the sources declare, and what cannot be understood."""

from pathlib import Path

import pytest

from ebpf_lb.datapath import layout
from ebpf_lb.datapath.layout import DeclaredProgram, ProgramKind
from ebpf_lb.datapath.layout.headers import HeaderError
from ebpf_lb.datapath.layout.programs import declared_programs
from ebpf_lb.datapath.loader.programs import UNITS, Unit
from ebpf_lb.model.values import Family

NAMES = {"CALL_A": 1, "CALLS_OF_B": 8}
MAIN = """
/* TC_PROGRAM(in_a_comment) */
TC_PROGRAM(plain)
{
	return 0;
}

#if FAMILY == 4
SOCKET_PROGRAM(INET4_CONNECT, connect4)
{
}
#endif

TC_CALL(CALLS_OF_B + CALL_A, called)
{
}
"""


def declared(tmp_path: Path, text: str, family: Family) -> tuple[DeclaredProgram, ...]:
    main = tmp_path / "main.c"
    main.write_text(text)
    return declared_programs(main, family, NAMES)


def test_hooks_calls_and_families(tmp_path: Path) -> None:
    plain = DeclaredProgram("plain", ProgramKind.TC)
    called = DeclaredProgram("called", ProgramKind.TC, 9)
    connect = DeclaredProgram("connect4", ProgramKind.SOCKET, hook="INET4_CONNECT")
    assert declared(tmp_path, MAIN, Family.IPV4) == (plain, connect, called)
    assert declared(tmp_path, MAIN, Family.IPV6) == (plain, called)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("TC_PROGRAM(a, b)", "not a declaration of a program"),
        ("TC_CALL(CALL_OTHER, a)", "no number: CALL_OTHER"),
        ("TC_PROGRAM(plain)", "the name or the number of plain"),
        ("TC_CALL(9, other)", "the name or the number of called"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, line: str, sentence: str) -> None:
    with pytest.raises(HeaderError, match=f"main.c:{MAIN.count(chr(10)) + 1}: .*{sentence}"):
        declared(tmp_path, MAIN + line + "\n", Family.IPV4)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_every_function_that_a_packet_or_a_socket_comes_to_is_declared(unit: Unit) -> None:
    """None is left to which only the compiler would know the way."""
    text = (layout.sources() / unit.main).read_text()
    assert "(struct " not in text
    assert unit.slow_paths and set(unit.slow_paths.values()) <= set(unit.programs[Family.IPV4])
    room = layout.load(Family.IPV4).map("calls").max_entries
    assert isinstance(room, int) and max(unit.slow_paths) < room
