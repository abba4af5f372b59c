"""The rig beside this file, as tests use it."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

RIG = Path(__file__).parent / "rig" / "rig.py"
PROGRAMS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kube-rig" / "bin"


def rig(*words: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RIG), *words],
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **keywords,
    )


def said(*words: str, **keywords: Any) -> str:
    """What it prints; it must be well."""
    done = rig(*words, **keywords)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}"
    return done.stdout


def kubectl(*words: str, **keywords: Any) -> str:
    return said("kubectl", *words, **keywords)


@contextmanager
def running(*words: str) -> Iterator[None]:
    """A rig, `up` with these words; taken down again whatever happens. With TEST_RIG=1: the one
    that runs, which stays."""
    if os.environ.get("TEST_RIG"):
        yield
        return
    if rig("status").stdout.strip() != "down":
        pytest.fail("a rig runs already, and may be somebody's: `rig.py down` ends it")
    try:
        said("up", *words)
        yield
    finally:
        down = rig("down")
    assert down.returncode == 0, down.stdout


def agnhost() -> str:
    """The name of the test image that the rig's nodes have."""
    done = subprocess.run(
        [PROGRAMS / "e2e.test", "--list-images"], text=True, check=True, capture_output=True
    )
    [*_, image] = sorted(line for line in done.stdout.split() if "e2e-test-images/agnhost:" in line)
    return image


def on(host: str, *command: str) -> list[str]:
    """The words that start a command there: node1, router, client."""
    return [sys.executable, str(RIG), "exec", host, "--", *command]


def lines(text: str) -> Sequence[str]:
    return [line for line in text.splitlines() if line.strip()]
