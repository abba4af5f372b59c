"""How files are now: what changes when one is written, or replaced."""

from collections.abc import Iterable
from pathlib import Path

Stamp = tuple[int, ...] | None
"""None: there is no such file."""


def stamps(files: Iterable[str]) -> tuple[Stamp, ...]:
    """Links are followed: it is by one that the kubelet changes a pod's files."""
    return tuple(_stamp(file) for file in files)


def _stamp(file: str) -> Stamp:
    try:
        now = Path(file).stat()
    except OSError:
        return None
    return now.st_dev, now.st_ino, now.st_mtime_ns, now.st_size
