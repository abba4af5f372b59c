"""Processes that outlive the command which started them, each known by its id and start time."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ebpf_lb.lab import cgroups, namespaces


@dataclass(frozen=True, slots=True)
class Process:
    """A process: ids are given out again, but never with the same start time (clock ticks)."""

    pid: int
    start: int

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.start

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal; to nobody if the process has ended."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive:  # and if it ends now, the descriptor still names no other process
                signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)

    def wait(self, timeout_s: float) -> bool:
        """Whether the process has ended within `timeout_s`."""
        end = time.monotonic() + timeout_s
        while self.alive:
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True

    def end(self, grace_s: float = 5) -> None:
        """Asks the process to end, and kills it if it has not after `grace_s`."""
        self.signal(signal.SIGTERM)
        if not self.wait(grace_s):
            self.signal(signal.SIGKILL)
            self.wait(10)


def start_time(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(b")")[2].split()  # the name before may contain anything
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process runs: a network namespace, a cgroup, what its environment says, and files
    of its own in the places of the machine's (/etc/resolv.conf -> where it lies)."""

    netns: Path | None
    cgroup: Path
    environment: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)

    def enter(self) -> None:
        """Moves this process there; of its threads, only the calling one changes namespace."""
        cgroups.join(self.cgroup)
        if self.netns is not None:
            namespaces.enter(self.netns)
        if self.files:
            namespaces.replace_files(self.files)

    def full_environment(self) -> dict[str, str]:
        """This process's, the place's, and a path on which `ebpf-lb` itself is found."""
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
        return {**os.environ, "PATH": path, **self.environment}


def spawn(
    place: Place,
    argv: Sequence[str],
    log: Path,
    pass_fds: Sequence[int] = (),
    record: Callable[[Process], None] | None = None,
) -> Process:
    """Starts a process that stays; its output is appended to `log`.

    It is in its cgroup before it executes anything, so `down` finds it whatever happens here.
    `record` is called with it before anything else is done."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=place.full_environment(),
            start_new_session=True,
            preexec_fn=place.enter,
            pass_fds=pass_fds,
        )
    # Started, therefore not yet reaped: it has a start time even if it has ended.
    process = Process(child.pid, start_time(child.pid) or 0)
    if record:
        record(process)
    threading.Thread(target=child.wait, daemon=True).start()  # leaves no zombie in long-lived users
    return process
