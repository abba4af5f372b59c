"""Loaders that are killed while they compile."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ebpf_lb.datapath.libbpf import Map, MapType
from ebpf_lb.datapath.loader import ensure_loaded
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.datapath.settings import Settings
from tests.capabilities import BCC, BPF, BPFFS, ROOT, needs

pytestmark = needs(ROOT, BPF, BPFFS, BCC)

WITHIN_S = 120
LOAD = """
import sys
from pathlib import Path
from ebpf_lb.datapath.loader import ensure_loaded
from ebpf_lb.datapath.settings import Settings
ensure_loaded(Path(sys.argv[1]), Settings(), anew=True)
"""


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that everything is compiled: not the one that `sources` shares."""
    monkeypatch.setenv("EBPF_LB_CACHE", str(tmp_path / "cache"))


def test_what_one_left_is_no_obstacle_to_the_next_of_its_number(root: Path, sources: Path) -> None:
    """In a container every agent has the same process id."""
    left = Pins(root).builds / f"compiling_{os.getpid()}" / "ipv4"
    left.mkdir(parents=True)
    with Map.create(MapType.ARRAY, 4, 4, 1, 0, "left") as one:
        one.pin(left / "frontends")
    assert ensure_loaded(root, Settings(), sources).compiled
    assert not left.exists()


def compilers(root: Path) -> list[int]:
    """Those for this folder that live and have got as far as importing bcc."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes()
            ours = str(root).encode() in words and b"loader.compiler" in words
            if ours and "libbcc" in (process / "maps").read_text():
                found.append(int(process.name))
    return found


def wait(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not done():
        assert time.monotonic() < deadline, f"{what} within {WITHIN_S} s"
        time.sleep(0.01)


def test_its_compilers_end_with_it(root: Path) -> None:
    started: list[int] = []
    # a session of its own: what is stopped in it is not hung up on when its parent ends
    loader = subprocess.Popen([sys.executable, "-c", LOAD, str(root)], start_new_session=True)
    try:
        wait(lambda: bool(started.extend(compilers(root)) or started), "it compiles")
        for one in started:
            os.kill(one, signal.SIGSTOP)  # they will not end by themselves
        loader.kill()
        loader.wait()
        wait(lambda: not set(started) & set(compilers(root)), "its compilers end")
    finally:
        loader.kill()
        loader.wait()
        for one in compilers(root):
            os.kill(one, signal.SIGKILL)
