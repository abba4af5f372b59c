"""What the agent needs of the machine: bpffs, one agent at a time, its namespace's name, memory."""

import ctypes
import gc
import os
import socket
from pathlib import Path

from ebpf_lb.errors import UserError

_SO_NETNS_COOKIE = 71  # linux 5.14, asm-generic/socket.h
_BPF_ROOT = Path("/sys/fs/bpf")
_M_ARENA_MAX = -8  # malloc.h


class HostError(UserError):
    """The machine is not as the agent needs it."""


def ensure_bpffs(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Sees to it that `folder` lies on a bpffs; True if one had to be mounted.

    Where there is none it goes to the usual place if `folder` is below that, else on `folder`.
    """
    folder = Path(os.path.realpath(folder))
    if filesystem(folder, mounts) == "bpf":
        return False
    place = _BPF_ROOT if folder.is_relative_to(_BPF_ROOT) else folder
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"Cannot make {place} for a bpffs: {error.strerror}.") from error
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", os.fsencode(place), b"bpf", 0, b"mode=0700") != 0:
        reason = os.strerror(ctypes.get_errno())
        raise HostError(
            f"No bpffs is mounted at {place}, and it cannot be mounted: {reason}; "
            f"try `mount -t bpf bpf {place}` as root."
        )
    return True


def filesystem(folder: Path, mounts: Path) -> str:
    """The type of the file system on which `folder` lies or would lie."""
    best, found = -1, ""
    for line in mounts.read_text().splitlines():
        before, _, after = line.partition(" - ")
        target = Path(before.split(" ")[4].encode().decode("unicode_escape"))
        # of two at one place, the later one lies on top
        if folder.is_relative_to(target) and len(target.parts) >= best:
            best, found = len(target.parts), after.split(" ")[0]
    return found


def be_the_only_one(bpffs: Path) -> socket.socket:
    """Two agents with one set of maps would undo each other's work. The lock is a name that goes
    with the process, however it ends; keep what is returned."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        lock.bind(f"\0ebpf-lb-agent:{os.path.realpath(bpffs)}")
    except OSError as error:
        lock.close()
        raise HostError(
            f"Another agent runs on this node with the maps in {bpffs}: end that one first."
        ) from error
    return lock


def netns_cookie() -> int:
    """The kernel's number of this network namespace, as programs see it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        cookie = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    return int.from_bytes(cookie, "little")


def limit_heaps() -> None:
    """One heap for all threads. By default each gets its own, and keeps what is free in it."""
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_memory_back() -> None:
    """After the first lists: what they took to read goes back to the kernel; what stays is not
    looked through for garbage again and again."""
    gc.collect()
    gc.freeze()
    ctypes.CDLL(None).malloc_trim(0)
