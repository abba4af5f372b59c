"""Compiled programs are kept on disk, so that one machine compiles the same thing once.

    /var/cache/ebpf-lb/KEY        images of one unit of a build; EBPF_LB_CACHE names another folder
    /var/cache/ebpf-lb/lock       held while one is compiled: whoever needs the same waits for it

What is read here goes into the kernel, so the folder must be ours alone. Without a usable one
everything works, only slower.
"""

import fcntl
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ebpf_lb.datapath.loader import archive
from ebpf_lb.datapath.loader.archive import Images

VARIABLE = "EBPF_LB_CACHE"
_DEFAULT = "/var/cache/ebpf-lb"
_KEPT = 16  # units of builds; one is some 300 kB at most
_LOCK = "lock"

_log = logging.getLogger(__name__)


def images(key: str, compile_: Callable[[], Images]) -> tuple[Images, bool]:
    """The images of that key, and whether `compile_` was called for them; its errors pass."""
    folder = _folder()
    if folder is None:
        return compile_(), True
    with _locked(folder):
        found = _read(folder / key)
        if found is not None:
            return found, False
        made = compile_()
        _write(folder, key, made)
        return made, True


def find(key: str) -> Images | None:
    """The images of that key, where they are here."""
    folder = _folder()
    return None if folder is None else _read(folder / key)


def clear() -> int:
    """Removes the cache and says how many builds it held; the next loader compiles again."""
    folder = _folder()
    if folder is None:
        return 0
    with _locked(folder):
        builds = [path for path in folder.iterdir() if path.name != _LOCK]
        for path in builds:
            path.unlink(missing_ok=True)
        (folder / _LOCK).unlink(missing_ok=True)
    with suppress(OSError):  # somebody has put something else there
        folder.rmdir()
    return len(builds)


def _folder() -> Path | None:
    folder = Path(os.environ.get(VARIABLE) or _DEFAULT)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.stat(follow_symlinks=False)
    except OSError as error:
        _log.debug("no cache: %s", error)
        return None
    if (
        not stat.S_ISDIR(facts.st_mode)
        or facts.st_uid != os.geteuid()
        or facts.st_mode & 0o077
        or not os.access(folder, os.W_OK)
    ):
        _log.debug("no cache: %s is not a folder of ours alone (mode 0700)", folder)
        return None
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        _log.debug("no lock on the cache: %s", error)
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _read(path: Path) -> Images | None:
    try:
        found = archive.unpack(path.read_bytes())
        os.utime(path)  # the ones used last are kept
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.debug("%s is made anew: %s", path, error)
        return None
    return found


def _write(folder: Path, key: str, made: Images) -> None:
    unfinished = folder / f"{key}.{os.getpid()}"
    try:
        unfinished.write_bytes(archive.pack(made))
        unfinished.rename(folder / key)
        _forget_oldest(folder)
    except OSError as error:
        _log.debug("not kept: %s", error)
        with suppress(OSError):
            unfinished.unlink()


def _forget_oldest(folder: Path) -> None:
    """Whoever holds the lock; what an interrupted one left unfinished ages like the rest."""
    kept = [path for path in folder.iterdir() if path.name != _LOCK]
    kept.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in kept[_KEPT:]:
        path.unlink(missing_ok=True)
