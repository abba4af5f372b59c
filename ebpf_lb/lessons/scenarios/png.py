"""Drawings as PNG, for what shows no SVG: by the library resvg-py where it is installed, else by
the program rsvg-convert where that is at hand."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from ebpf_lb.errors import UserError

_WIDTH = 1920  # of the picture, in pixels
_PROGRAM = "rsvg-convert"
_FONTS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
# the drawings' first choice: the library leaves out letters of families that it does not find
_LETTERS = {"DejaVuSans.ttf", "DejaVuSansMono.ttf"}


def write(drawing: str, file: Path) -> None:
    """An SVG document into a file: as PNG if its name ends so, else as it is. UserError, before
    anything is written."""
    if is_png(file):
        file.write_bytes(to_png(drawing))
    else:
        file.write_text(drawing)


def is_png(file: Path) -> bool:
    return file.suffix.lower() == ".png"


def check() -> None:
    """UserError where `to_png` would have nothing to draw by."""
    if _library() is None and shutil.which(_PROGRAM) is None:
        raise UserError(
            "PNG needs the library resvg-py (pip install resvg-py) or the program "
            f"{_PROGRAM} (Debian: librsvg2-bin): install one of them, or write FILE.svg."
        )
    if not _has_fonts():
        raise UserError(
            "PNG needs the fonts DejaVu Sans and DejaVu Sans Mono: install them (Debian: "
            "fonts-dejavu-core), or write FILE.svg."
        )


def to_png(drawing: str) -> bytes:
    """UserError."""
    check()
    if (library := _library()) is not None:
        return bytes(library.svg_to_bytes(svg_string=drawing, width=_WIDTH))
    done = subprocess.run(
        [_PROGRAM, "--width", str(_WIDTH), "--keep-aspect-ratio", "--format", "png"],
        input=drawing.encode(), capture_output=True,
    )  # fmt: skip
    if done.returncode:
        raise UserError(f"{_PROGRAM} drew nothing: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _library() -> Any:
    """The module; None where it is not installed."""
    try:
        import resvg_py
    except ImportError:
        return None
    return resvg_py


def _has_fonts() -> bool:
    found = (file for folder in _FONTS for file in Path(folder).expanduser().rglob("*.ttf"))
    return {file.name for file in found} >= _LETTERS
