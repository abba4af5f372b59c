"""Removing every trace of the data path from a node."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ebpf_lb.datapath.accept_local import restore
from ebpf_lb.datapath.attach.cgroup import remove_link
from ebpf_lb.datapath.attach.hooks import HookControl
from ebpf_lb.datapath.attach.xdp import XdpControl
from ebpf_lb.datapath.libbpf import Link, Program, link_ids
from ebpf_lb.datapath.loader import cache
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.errors import UserError


@dataclass(frozen=True, slots=True)
class Removed:
    """How much there was; `filters`: programs at interfaces' TC hooks, by filters or links."""

    filters: int
    xdp: int
    links: int
    pins: int
    compiled: int  # builds in the loader's cache

    def __bool__(self) -> bool:
        return bool(self.filters or self.xdp or self.links or self.pins or self.compiled)


def cleanup(root: Path, cgroup: Path | None = None) -> Removed:
    """Removes our TC filters and XDP programs in this network namespace, cgroup links, our pins
    below `root`, and the compiled programs on disk.

    Other people's filters, programs and files stay. A link whose pin is lost but which somebody
    keeps open is recognised by its program, which is pinned; with `cgroup`, only on that cgroup.
    UserError if `root` is not a folder of bpffs.
    """
    if root.exists() and not _in_bpffs(root):
        raise UserError(f"{root} is not in bpffs, so it holds no pins of ours: check --bpffs.")
    pins = Pins(root)
    with HookControl(pins) as hooks:
        filters = sum(hooks.detach(ifindex) for ifindex in hooks.interfaces())
    with XdpControl(pins) as control:
        xdp = sum(control.detach(ifindex) for ifindex in control.ours())
    links = _remove_links(pins, cgroup)
    count = 0
    restore(pins)
    pins.current.path.unlink(missing_ok=True)
    for folder in (pins.builds, pins.links, pins.tcx):
        if folder.exists():
            count += sum(len(files) for _, _, files in os.walk(folder))
            shutil.rmtree(folder)
    with suppress(OSError):  # absent, or somebody else's pins are in it
        root.rmdir()
    return Removed(filters, xdp, links, count, cache.clear())


def _in_bpffs(path: Path) -> bool:
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == number:
            return after.split()[0] == "bpf"
    return False


def _remove_links(pins: Pins, cgroup: Path | None) -> int:
    count = 0
    if pins.links.exists():
        for pin in sorted(pins.links.iterdir()):
            remove_link(pin)
            count += 1
    ours = set(_program_ids(pins))
    cgroup_id = cgroup.stat().st_ino if cgroup else None
    for number in link_ids() if ours else ():
        # it may go by itself while we look
        with suppress(FileNotFoundError), Link.by_id(number) as link:
            info = link.info()
            if info.program_id in ours and info.cgroup_id and cgroup_id in (None, info.cgroup_id):
                link.detach()
                count += 1
    return count


def _program_ids(pins: Pins) -> Iterator[int]:
    for path in pins.builds.glob("*/*/programs/*"):
        try:
            with Program.open(path) as program:
                yield program.info().id
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise
