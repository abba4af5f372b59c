"""Brings the C programs into the kernel.

`ensure_loaded` compares what is pinned with what should be, and where they differ runs the compiler
in a process of its own. A build becomes the current one by one rename, after everything in it has
been verified, so that a failure leaves the running data path as it was. The hooks change over when
the agent attaches the new programs; only then `retire_old_builds` lets go of the old ones.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ebpf_lb.datapath.loader import source
from ebpf_lb.datapath.loader.errors import LoaderError
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.datapath.settings import Settings

__all__ = ["Loaded", "LoaderError", "ensure_loaded", "retire_old_builds"]

_COMPILE_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Loaded:
    """`changed`: another build than the one that was current before."""

    build: Build
    changed: bool

    @property
    def build_id(self) -> str:
        return self.build.path.name


def ensure_loaded(bpffs: Path, settings: Settings) -> Loaded:
    """Makes the build that belongs to the sources and `settings` the current one.

    bpffs: the node's folder, on a mounted bpffs; made if missing. Nothing is compiled if that build
    is current already. LoaderError: it could not be built; the current one is untouched.
    """
    pins = Pins(bpffs)
    name = source.build_id(settings)
    build = pins.build(name)
    try:
        pins.builds.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LoaderError(
            f"{bpffs} cannot be made: {error.strerror}; is a bpffs mounted there and are you root?"
        ) from error
    if _current(pins) == name:
        return Loaded(build, changed=False)
    _compile(bpffs, settings)
    following = bpffs / "next"
    following.unlink(missing_ok=True)
    following.symlink_to(Path("builds") / name)
    following.rename(bpffs / "current")
    return Loaded(build, changed=True)


def retire_old_builds(bpffs: Path) -> list[str]:
    """Unpins every build but the current one, and returns their ids.

    To be called when all hooks run the current build: a program array loses its content with its
    last pin, even while programs use it.
    """
    pins = Pins(bpffs)
    current = _current(pins)
    retired = []
    for folder in sorted(pins.builds.iterdir()):
        if current is not None and folder.name != current:
            shutil.rmtree(folder)
            retired.append(folder.name)
    return retired


def _current(pins: Pins) -> str | None:
    try:
        target = pins.current.path.readlink()
    except OSError:
        return None
    return target.name if pins.current.path.exists() else None


def _compile(bpffs: Path, settings: Settings) -> None:
    arguments = [str(bpffs), json.dumps(dataclasses.asdict(settings))]
    command = [sys.executable, "-m", "ebpf_lb.datapath.loader.compiler", *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMPILE_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise LoaderError(
            f"compiling the programs took longer than {_COMPILE_TIMEOUT_S} s and was ended."
        ) from error
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()
        raise LoaderError(words or f"the loader ended with status {done.returncode}.")
