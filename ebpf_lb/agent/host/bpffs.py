"""The file system on which maps and programs are pinned."""

import ctypes
import os
from pathlib import Path

from ebpf_lb.errors import UserError

_BPF_ROOT = Path("/sys/fs/bpf")


class BpffsError(UserError):
    """There is no bpffs, and none can be mounted."""


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
        raise BpffsError(f"Cannot make {place} for a bpffs: {error.strerror}.") from error
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", os.fsencode(place), b"bpf", 0, b"mode=0700") != 0:
        reason = os.strerror(ctypes.get_errno())
        raise BpffsError(
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
