"""Attaching to the sockets of a cgroup: links, pinned, updated in one step by a new build."""

import errno
import os
from collections.abc import Collection
from pathlib import Path

from ebpf_lb.datapath.layout import ProgramKind, programs_of
from ebpf_lb.datapath.libbpf import CgroupHook, Link, Program
from ebpf_lb.datapath.pins import Build
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Family

# IPv4's build is at the INET6 hooks, too: for sockets with v4-mapped addresses
PROGRAMS: dict[Family, dict[str, CgroupHook]] = {
    family: {
        one.name: CgroupHook[one.hook]
        for one in programs_of("programs/stack.c", family)
        if one.kind is ProgramKind.SOCKET
    }
    for family in Family
}


def attach_cgroup(build: Build, links: Path, cgroup: Path) -> list[str]:
    """Attaches the build's socket programs to a cgroup; the names of the links, which are pinned.

    A link to this cgroup is updated, one to another is replaced, and one without a program in this
    build is removed. UserError if `cgroup` is not a cgroup of version 2.
    """
    links.mkdir(parents=True, exist_ok=True)
    try:
        cgroup_fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"The cgroup {cgroup} cannot be opened: {error.strerror}.") from error
    attached = []
    try:
        cgroup_id = os.fstat(cgroup_fd).st_ino
        for family, programs in PROGRAMS.items():
            for name, hook in programs.items():
                path = build.programs(family) / name
                if path.exists():
                    pin = links / f"{family.directory}-{name}"
                    with Program.open(path) as program:
                        _attach(program, hook, pin, cgroup_fd, cgroup_id)
                    attached.append(pin.name)
    except OSError as error:
        if error.errno == errno.EBADF:
            raise UserError(f"{cgroup} is not a cgroup of version 2: name one.") from error
        raise
    finally:
        os.close(cgroup_fd)
    remove_links(links, attached)
    return attached


def lost_links(links: Path, names: Collection[str]) -> list[str]:
    """Those of these names that no longer run at any cgroup: their pin, their attachment or the
    cgroup itself was removed."""
    return [name for name in names if not _runs(links / name)]


def wrong_links(build: Build, links: Path, cgroup: Path) -> list[str]:
    """The names of those that do not run this build's programs at this cgroup."""
    cgroup_id = cgroup.stat().st_ino
    return [
        name
        for family, programs in PROGRAMS.items()
        for program in programs
        if (build.programs(family) / program).exists()
        and not _runs_at(
            links / (name := f"{family.directory}-{program}"),
            build.programs(family) / program,
            cgroup_id,
        )
    ]


def _runs_at(pin: Path, program: Path, cgroup_id: int) -> bool:
    try:
        with Link.open(pin) as link, Program.open(program) as wanted:
            info = link.info()
            return info.cgroup_id == cgroup_id and info.program_id == wanted.info().id
    except FileNotFoundError:
        return False


def remove_links(links: Path, but: Collection[str] = ()) -> None:
    """Ends all pinned links except those of these names."""
    for pin in sorted(links.iterdir()) if links.exists() else ():
        if pin.name not in but:
            remove_link(pin)


def remove_link(pin: Path) -> None:
    """Ends a pinned link, whoever else has it open, and removes the pin."""
    with Link.open(pin) as link:
        link.detach()
    pin.unlink()


def _runs(pin: Path) -> bool:
    try:
        with Link.open(pin) as link:
            return link.info().cgroup_id != 0
    except FileNotFoundError:
        return False


def _attach(program: Program, hook: CgroupHook, pin: Path, cgroup_fd: int, cgroup_id: int) -> None:
    if pin.exists():
        with Link.open(pin) as link:
            info = link.info()
            if info.cgroup_id == cgroup_id and info.hook == hook:
                if info.program_id != program.info().id:
                    link.update(program)
                return
        remove_link(pin)
    with Link.attach_cgroup(program, cgroup_fd, hook) as link:
        link.pin(pin)
