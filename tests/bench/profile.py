"""Where the time goes: the kernel's functions and our programs, by samples of the CPU's clock."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_LINE = re.compile(r"^\s*([\d.]+)%\s+\[k\]\s+(\S+)")
_PROGRAM = re.compile(r"bpf_prog_[0-9a-f]{16}_(\w+)")
_RECORD = ("record", "-q", "-e", "cpu-clock", "-F", "4999")
_STARTED_S = 0.8


def of_command(argv: Sequence[str]) -> tuple[str, dict[str, float]]:
    """What it prints; and how much of its time is whose in the kernel: {} without perf."""
    perf = shutil.which("perf")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        before = [perf, *_RECORD, "-o", str(data), "--"] if perf else []
        done = subprocess.run([*before, *argv], stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout, _report(perf, data) if perf else {}


def of_this_process(work: Callable[[], None]) -> dict[str, float]:
    """How much of the time that `work` takes is whose in the kernel: {} without perf."""
    perf = shutil.which("perf")
    if not perf:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        recorder = subprocess.Popen(
            [perf, *_RECORD, "-p", str(os.getpid()), "-o", str(data)], stderr=subprocess.DEVNULL
        )
        try:
            time.sleep(_STARTED_S)
            work()
        finally:
            with suppress(ProcessLookupError):
                recorder.terminate()
            recorder.wait()
        return _report(perf, data)


def _report(perf: str, data: Path) -> dict[str, float]:
    words = ["report", "-i", str(data), "--stdio", "--sort", "sym", "-F", "overhead,sym"]
    return parsed(subprocess.run([perf, *words], capture_output=True, text=True).stdout)


def parsed(report: str) -> dict[str, float]:
    """Shares of the kernel's time."""
    found: dict[str, float] = {}
    for line in report.splitlines():
        if match := _LINE.match(line):
            symbol = _PROGRAM.sub(r"program \1", match[2])
            found[symbol] = found.get(symbol, 0.0) + float(match[1]) / 100
    whole = sum(found.values()) or 1.0
    return {symbol: share / whole for symbol, share in found.items()}


def beyond(
    mine: Mapping[str, float], mine_us: float, base: Mapping[str, float], base_us: float
) -> list[tuple[str, float]]:
    """Who takes how many µs more than in `base`, the largest first."""
    more = {
        symbol: mine.get(symbol, 0) * mine_us - base.get(symbol, 0) * base_us
        for symbol in mine.keys() | base.keys()
    }
    ordered = sorted(more.items(), key=lambda item: -item[1])
    return [(symbol, round(us, 3)) for symbol, us in ordered[:8] if us > 0.01]
