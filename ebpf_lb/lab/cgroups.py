"""Control groups (v2): every process of a lab is in one of the lab's, so that programs attached to
a node's see that node's sockets only, and so that `down` ends all of them and nothing else."""

import contextlib
import os
import time
from pathlib import Path

from ebpf_lb.errors import UserError


class CgroupError(UserError):
    """A cgroup whose processes would not end."""


def make(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)


def join(path: Path) -> None:
    """Moves this process, with all its threads, into a cgroup."""
    fd = os.open(path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


def joined() -> str:
    """The path of this process's cgroup v2, below its mount: "/" for the root."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:]
    return "/"


def kill(path: Path, reaped_within_s: float = 0, timeout_s: float = 10) -> None:
    """Ends every process in a cgroup and below; a cgroup that is gone is fine.

    They have then ended, but their parents may not have taken note of it yet: that is waited for
    during `reaped_within_s`. Raises CgroupError if one is still there after `timeout_s`."""
    pids = _pids(path)
    try:
        (path / "cgroup.kill").write_text("1")
    except FileNotFoundError:
        return
    end = time.monotonic() + timeout_s
    while "populated 1" in (path / "cgroup.events").read_text():
        if time.monotonic() > end:
            raise CgroupError(f"processes in {path} do not end: its cgroup.procs files list them")
        time.sleep(0.005)
    end = time.monotonic() + reaped_within_s
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.005)


def _pids(path: Path) -> list[str]:
    found = []
    for folder, _, _ in os.walk(path):
        with contextlib.suppress(FileNotFoundError):
            found += (Path(folder) / "cgroup.procs").read_text().split()
    return found


def remove(path: Path) -> None:
    """Removes a cgroup without processes, and those below it; gone already is fine."""
    for folder, _, _ in os.walk(path, topdown=False):
        Path(folder).rmdir()
