"""Network namespaces, named as ip-netns(8) does it, but entered alone: `ip netns exec` also mounts
a new /sys, where bpffs and the cgroups are missing."""

import ctypes
import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_CLONE_NEWNS = 0x00020000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_SLAVE = 1 << 19
_MS_SHARED = 1 << 20
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: object) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(what))


def enter(path: Path) -> None:
    """Moves this thread into a network namespace."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, _CLONE_NEWNET), path)
    finally:
        os.close(fd)


@contextmanager
def entered(path: Path) -> Iterator[None]:
    """This thread is in a network namespace meanwhile; what it opens there stays there."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(path)
        try:
            yield
        finally:
            _check(_libc.setns(own, _CLONE_NEWNET), "own network namespace")
    finally:
        os.close(own)


def create(path: Path) -> None:
    """A new network namespace, kept by a mount on `path`; FileExistsError if the path is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _share(path.parent)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        try:
            source = b"/proc/thread-self/ns/net"
            _check(_libc.mount(source, bytes(path), b"none", _MS_BIND, None), path)
        finally:
            _check(_libc.setns(own, _CLONE_NEWNET), "own network namespace")
    finally:
        os.close(own)


def _share(folder: Path) -> None:
    """Makes the folder a mount of its own whose changes all mount namespaces see, as ip-netns(8)
    does with its first namespace. If that came after us, its mount would hide ours, which then
    could not be taken off any more."""
    if _libc.mount(b"", bytes(folder), b"none", _MS_SHARED | _MS_REC, None) == 0:
        return
    if ctypes.get_errno() != errno.EINVAL:  # EINVAL: it is not a mount yet
        _check(-1, folder)
    bind = _MS_BIND | _MS_REC
    _check(_libc.mount(bytes(folder), bytes(folder), b"none", bind, None), folder)
    _check(_libc.mount(b"", bytes(folder), b"none", _MS_SHARED | _MS_REC, None), folder)


def remove(path: Path) -> None:
    """Lets go of a namespace, also of one whose creation stopped half-way; gone already is fine.

    The kernel takes it down with everything in it as soon as its last process and socket are gone.
    """
    while _libc.umount2(bytes(path), _MNT_DETACH) == 0:
        pass  # mounted twice by somebody: all of them
    path.unlink(missing_ok=True)


def replace_files(files: Mapping[str, str]) -> None:
    """From now on this thread, and what it starts, sees other files in these places. A place that
    the machine does not have stays empty."""
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None), "/")
    for place, source in files.items():
        if Path(place).exists():
            bound = _libc.mount(source.encode(), place.encode(), b"none", _MS_BIND, None)
            _check(bound, place)


def set_sysctls(settings: Mapping[str, object]) -> None:
    """Writes settings such as net/ipv4/ip_forward into the network namespace of this thread."""
    for name, value in settings.items():
        Path("/proc/sys", name).write_text(f"{value}\n")
