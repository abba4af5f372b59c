"""Checks the C programs with an ordinary compiler, warnings as errors.

    python -m tests.support.syntax [CLANG]

bcc rewrites map operations and compiles without most warnings; `bcc.h` beside this file stands for
what it provides, so that a plain clang can judge all the rest. Constants are the loader's.
"""

import os
import subprocess
import sys
from pathlib import Path

from ebpf_lb.datapath.layout import sources
from ebpf_lb.datapath.loader import source
from ebpf_lb.datapath.loader.programs import ADDED_ON_DEMAND, Unit, units
from ebpf_lb.datapath.settings import Settings
from ebpf_lb.model.values import Family

WITHOUT_BCC = Path(__file__).with_name("bcc.h")


EVERYTHING = Settings(xdp=True)


def command(clang: str, unit: Unit, family: Family, file: Path) -> list[str]:
    """Compiles nothing, only looks. A hook's function need not use its argument."""
    anywhere = Path("maps")
    constants = source.defines(unit, family, None, anywhere, anywhere, anywhere)
    return [
        clang, "-target", "bpf", "-fsyntax-only", "-O2", "-Wall", "-Wextra", "-Werror",
        "-Wno-unused-parameter",
        f"-D__{os.uname().machine}__", *constants, "-I", str(sources()),
        "-include", str(WITHOUT_BCC), str(file),
    ]  # fmt: skip


def main(clang: str = "clang-14") -> int:
    runs = [
        subprocess.run(command(clang, unit, family, sources() / unit.main), check=False)
        for unit in (*units(EVERYTHING), *ADDED_ON_DEMAND)
        for family in Family
    ]
    return max(run.returncode for run in runs)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
