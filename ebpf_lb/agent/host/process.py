"""The agent as a process: alone with its maps, its namespace's name, and its memory."""

import ctypes
import gc
import os
import socket
from pathlib import Path

from ebpf_lb.errors import UserError

_SO_NETNS_COOKIE = 71  # linux 5.14, asm-generic/socket.h
_M_ARENA_MAX = -8  # malloc.h
_THRESHOLDS = gc.get_threshold()


class AlreadyRunning(UserError):
    """Another agent works with the same maps."""


def be_the_only_one(bpffs: Path) -> socket.socket:
    """Two agents with one set of maps would undo each other's work. The lock is a name that goes
    with the process, however it ends; keep what is returned."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        lock.bind(f"\0ebpf-lb-agent:{os.path.realpath(bpffs)}")
    except OSError as error:
        lock.close()
        raise AlreadyRunning(
            f"An agent runs on this node with the maps in {bpffs}: end it first."
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


def collect_rarely() -> None:
    """Until the first lists are in the maps: nearly all that is made stays, so that looking for
    garbage among it is a third of the work and finds none."""
    gc.set_threshold(50_000, 20, 100)


def give_memory_back() -> None:
    """After the first lists: what they took to read goes back to the kernel; what stays is not
    looked through for garbage again and again."""
    gc.set_threshold(*_THRESHOLDS)
    gc.collect()
    gc.freeze()
    ctypes.CDLL(None).malloc_trim(0)
