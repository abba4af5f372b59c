"""Drawings as PNG: by the library, by the program, or a sentence that says what to install."""

import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from ebpf_lb.cli.main import main
from ebpf_lb.errors import UserError
from ebpf_lb.lessons.scenarios import png

DRAWING = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 9"/>'


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with fonts, and with nothing that draws. The folder is its path."""
    fonts, programs = tmp_path / "fonts", tmp_path / "bin"
    fonts.mkdir()
    programs.mkdir()
    for name in png._LETTERS:
        (fonts / name).touch()
    monkeypatch.setattr(png, "_FONTS", (str(fonts),))
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(png, "_PROGRAM", "rsvg-convert-of-this-test")
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    return programs


def test_by_the_library(bare: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def svg_to_bytes(**arguments: Any) -> list[int]:
        asked.update(arguments)
        return [137, 80, 78, 71]

    monkeypatch.setitem(sys.modules, "resvg_py", SimpleNamespace(svg_to_bytes=svg_to_bytes))
    png.write(DRAWING, tmp_path / "way.png")
    assert (tmp_path / "way.png").read_bytes() == b"\x89PNG"
    assert asked == {"svg_string": DRAWING, "width": 1920}
    png.write(DRAWING, tmp_path / "way.svg")
    assert (tmp_path / "way.svg").read_text() == DRAWING


def test_letters_are_drawn(tmp_path: Path) -> None:
    """As `make setup` leaves a machine: 1920 pixels wide, and not without its text."""

    def drawn(family: str, said: str) -> bytes:
        file = tmp_path / "way.png"
        text = f'<text x="1" y="5" font-size="3" font-family="{family}">{said}</text>'
        png.write(DRAWING.replace("/>", f">{text}</svg>"), file)
        return file.read_bytes()

    for family in ("'DejaVu Sans', sans-serif", "'DejaVu Sans Mono', monospace"):
        blank, snat, dnat = (drawn(family, said) for said in ("", "SNAT", "DNAT"))
        assert struct.unpack(">II", blank[16:24]) == (1920, 1080)
        assert len({blank, snat, dnat}) == 3


def test_by_the_program(bare: Path) -> None:
    program = bare / png._PROGRAM
    program.write_text('#!/bin/sh\necho "$@"; cat\n')
    program.chmod(0o755)
    made = png.to_png(DRAWING).decode()
    assert made == f"--width 1920 --keep-aspect-ratio --format png\n{DRAWING}"
    program.write_text("#!/bin/sh\necho no such thing >&2; exit 1\n")
    with pytest.raises(UserError, match="drew nothing: no such thing"):
        png.to_png(DRAWING)


def test_what_is_missing_is_said(bare: Path, tmp_path: Path) -> None:
    file = tmp_path / "way.png"
    with pytest.raises(UserError, match=r"pip install resvg-py.*librsvg2-bin"):
        png.write(DRAWING, file)
    assert not file.exists()
    (tmp_path / "fonts" / "DejaVuSansMono.ttf").unlink()
    (bare / png._PROGRAM).touch(0o755)
    with pytest.raises(UserError, match="fonts-dejavu-core"):
        png.write(DRAWING, file)


def test_a_lesson_says_so_before_it_begins(bare: Path, tmp_path: Path) -> None:
    words = ["lab", "scenario", "run", "hostnames", "-o", str(tmp_path / "way.png")]
    result = CliRunner().invoke(main, words, env={"EBPF_LB_LAB": "there-is-none"})
    assert result.exit_code == 1
    assert "PNG needs" in result.output
