"""How many instructions the verifier goes through for each program, and how many it may.

    python -m tests.datapath.budget        (`make budget`) measures here and writes verified.json

Verification is part of each agent's start, and the kernel refuses what needs more than a million.
The figures are of the kernel that wrote them; others go through more or less, hence the margin.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ebpf_lb.datapath.libbpf import Program
from ebpf_lb.datapath.loader import ensure_layer_3
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family
from tests.datapath.conftest import SETTINGS
from tests.datapath.kernel import loaded

FILE = Path(__file__).with_name("verified.json")
GROWTH = 2.5  # how far above the file's figure a program may be
OTHER_KERNEL = (
    6.0  # likewise, where another kernel goes through it, and in other builds (host routing)
)
SMALL = 5000  # and this besides, for what is small
NEW = 100_000  # what a program may need that the file does not know yet

Key = tuple[str, str]
"""A family's directory and a program's name."""


@dataclass(frozen=True)
class Figure:
    instructions: int
    verified: int


def figures(build: Build) -> dict[Key, Figure]:
    """Of all programs that are pinned in a build."""
    found = {}
    for family in Family:
        for path in build.programs(family).iterdir():
            with Program.open(path) as program:
                info = program.info()
            found[family.directory, path.name] = Figure(
                info.instructions, info.verified_instructions
            )
    return found


def measured(root: Path, settings: Settings) -> dict[Key, int]:
    """Verified instructions of the build under a folder of bpffs, programs for layer 3 included."""
    build = Pins(root).build(Pins(root).current.path.resolve().name)
    ensure_layer_3(build, settings)
    return {key: one.verified for key, one in figures(build).items()}


def read() -> dict[Key, int]:
    return {
        (family, program): verified
        for family, programs in json.loads(FILE.read_text())["verified"].items()
        for program, verified in programs.items()
    }


def over(verified: Mapping[Key, int], growth: float = GROWTH) -> list[str]:
    """A sentence for each program that is over its budget."""
    budget = read()
    sentences = []
    for key, count in sorted(verified.items()):
        most = int(budget[key] * growth) + SMALL if key in budget else NEW
        if count > most:
            sentences.append(
                f"{' '.join(key)}: the verifier went through {count:,} instructions, and {most:,}"
                " are the most that is meant; `make budget` writes new figures where that is well"
            )
    return sentences


def write(verified: Mapping[Key, int]) -> None:
    by_family: dict[str, dict[str, int]] = {}
    for (family, program), count in sorted(verified.items()):
        by_family.setdefault(family, {})[program] = count
    content = {"kernel": os.uname().release, "verified": by_family}
    FILE.write_text(json.dumps(content, indent=2) + "\n")


def main() -> int:
    with loaded("budget", SETTINGS) as root:
        found = measured(root, SETTINGS)
    before = read() if FILE.exists() else {}
    write(found)
    for key in sorted(found.keys() | before.keys()):
        if found.get(key) != before.get(key):
            print(f"{' '.join(key):30} {before.get(key, 0):9,} -> {found.get(key, 0):9,}")
    print(f"{sum(before.values()):,} -> {sum(found.values()):,} instructions in all, {FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
