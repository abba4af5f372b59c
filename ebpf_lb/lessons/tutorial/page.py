"""A step that was gone through, as a page: its sentences, what was seen, its pictures."""

import itertools
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_WIDTH = 110


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing (SVG). text: what it shows, for who does not see it."""

    name: str
    text: str
    svg: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was applied, to be opened by who wants to read it."""

    text: str


Told = str | Picture | Manifest


def write(folder: Path, name: str, title: str, text: str, told: Sequence[Told]) -> Path:
    """Writes a page (Markdown) and its pictures. told: lines as they were printed, and what else
    stands between them."""
    for one in told:
        if isinstance(one, Picture):
            (folder / f"{one.name}.svg").write_text(one.svg)
    path = folder / f"{name}.md"
    path.write_text(page(title, text, told))
    return path


def page(title: str, text: str, told: Sequence[Told]) -> str:
    """Lines that are indented were typed or seen, the others are sentences."""
    parts = [f"# {title}", _paragraph([text])]
    lines = (line for one in told for line in (one.split("\n") if isinstance(one, str) else [one]))
    for kind, group in itertools.groupby(lines, key=_kind):
        if kind == "seen":
            block = textwrap.dedent("\n".join(str(line).rstrip() for line in group))
            parts.append(f"```text\n{block}\n```")
        elif kind == "sentence":
            parts.append(_paragraph(str(line) for line in group))
        elif kind == "manifest":
            parts += [_opened(one.text) for one in group if isinstance(one, Manifest)]
        elif kind == "picture":
            parts += [f"![{one.text}]({one.name}.svg)" for one in group if isinstance(one, Picture)]
    return "\n\n".join(parts) + "\n"


def _opened(manifest: str) -> str:
    heading = "<details><summary>The manifest</summary>"
    return f"{heading}\n\n```yaml\n{manifest.strip()}\n```\n\n</details>"


def _kind(line: Told) -> str:
    if not isinstance(line, str):
        return "picture" if isinstance(line, Picture) else "manifest"
    if not line:
        return "nothing"
    return "seen" if line.startswith(" ") else "sentence"


def _paragraph(lines: Iterable[str]) -> str:
    """As Markdown, in which some characters mean something else."""
    text = re.sub(r"([*_<\[`])", r"\\\1", " ".join(lines))
    return textwrap.fill(text, _WIDTH, break_on_hyphens=False, break_long_words=False)
