"""The runbook's commands, and what each is said to print."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "runbook.md"
NAMESPACE = "shop"
_SECTION = re.compile(r"^## (.+?)\n.*?```console\n\$ (.+?)\n(.+?)```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Section:
    """`lines`: what the command prints, among other things."""

    title: str
    command: str
    lines: tuple[str, ...]

    def words(self, namespace: str) -> list[str]:
        return shlex.split(self.command.replace(f"{NAMESPACE}/", f"{namespace}/"))

    def missing(self, output: str, namespace: str) -> list[str]:
        """Lines that are not in the output: numbers and addresses are examples, and where lines
        break is the terminal's affair."""
        joined = " ".join(output.split())
        return [line for line in self.lines if not _pattern(line, namespace).search(joined)]


def sections() -> dict[str, Section]:
    """By title."""
    found = {}
    for title, command, lines in _SECTION.findall(PAGE.read_text()):
        found[title] = Section(title, command, tuple(lines.strip().splitlines()))
    return found


def _pattern(line: str, namespace: str) -> re.Pattern[str]:
    text = re.escape(line.replace(f"{NAMESPACE}/", f"{namespace}/"))
    named, kept = re.escape(namespace), "\0"
    text = text.replace(named, kept)
    text = re.sub(r"(?:\d|\\\.|:)*\d", lambda found: r"[\d.:]+", text)
    return re.compile(text.replace(kept, named))
