"""What a lab remembers between two commands, and the lock for changing it.

Namespaces, cgroups and pins are found by name and need no record; here are the options, the
processes, and how far `up` came.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ebpf_lb.errors import UserError
from ebpf_lb.lab.names import LabNames
from ebpf_lb.lab.options import Options
from ebpf_lb.lab.processes import Process


class NotUpError(UserError):
    """There is no such lab."""


class StrangeStateError(UserError):
    """The record is not one of ours."""


class BusyError(UserError):
    """Another command is changing the lab."""


@dataclass
class State:
    """Written before the thing that it tells of is made. complete: `up` came to its end. made_by:
    who called `up`, where it was not a person."""

    names: LabNames
    options: Options
    complete: bool = False
    processes: dict[str, Process] = field(default_factory=dict)
    made_by: str = ""

    @classmethod
    def load(cls, names: LabNames) -> Self:
        """Raises NotUpError, StrangeStateError."""
        try:
            stored: dict[str, Any] = json.loads(names.state_file.read_text())
        except FileNotFoundError:
            raise NotUpError(
                f"there is no lab {names.name!r}: start it with "
                f"`ebpf-lb lab up{name_option(names.name)}`"
            ) from None
        try:
            return cls(
                names,
                Options(**stored["options"]),
                stored["complete"],
                {name: Process(**process) for name, process in stored["processes"].items()},
                stored["made_by"],
            )
        except (KeyError, TypeError):
            raise StrangeStateError(
                f"lab {names.name!r} was started by another version of ebpf-lb: "
                f"remove it with `ebpf-lb lab down{name_option(names.name)}`"
            ) from None

    def save(self) -> None:
        """Replaces the file by one rename, so that readers and a kill find a whole one."""
        stored = {
            "options": self.options.to_json(),
            "complete": self.complete,
            "made_by": self.made_by,
            "processes": {
                name: {"pid": process.pid, "start": process.start}
                for name, process in self.processes.items()
            },
        }
        write_whole(self.names.state_file, json.dumps(stored, indent=1) + "\n")

    def recorder(self, name: str) -> Callable[[Process], None]:
        """What takes note of a process as soon as it is started."""

        def record(process: Process) -> None:
            self.processes[name] = process
            self.save()

        return record


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that nobody ever sees half of it."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text)
    temporary.replace(path)


def name_option(name: str) -> str:
    """How to name this lab on a command line, in messages."""
    return "" if name == "lab" else f" --name {name}"


@contextmanager
def locked(names: LabNames) -> Iterator[None]:
    """Holds the state folder, which is made if need be. The kernel lets go of it with the process.

    Raises BusyError."""
    while not _is_still(fd := _take(names), names):
        os.close(fd)  # a `down` was faster: that folder is gone
    try:
        yield
    finally:
        # a process that another thread begins just now has this file open until it runs its program
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


@contextmanager
def alone(file: Path, busy: UserError) -> Iterator[None]:
    """Holds a lock by a file of its own, which is made if need be. The kernel lets go of it with
    the process. Raises `busy` while somebody else holds it."""
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # as in `locked`


def _take(names: LabNames) -> int:
    names.dir.mkdir(parents=True, exist_ok=True)
    fd = os.open(names.dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise BusyError(
            f"another command is at work on lab {names.name!r}: wait until it has ended"
        ) from None
    return fd


def _is_still(fd: int, names: LabNames) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), names.dir.stat())
    except FileNotFoundError:
        return False
