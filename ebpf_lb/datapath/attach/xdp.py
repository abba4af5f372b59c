"""Attaching the XDP program to interfaces, by netlink: it stays when the agent ends.

An interface has one XDP program only, so the kernel is asked to put ours there if there is none, or
in the place of the very program that we saw there and that was ours. Somebody else's is never
replaced or removed. Ours is what is pinned in one of our builds; or, where the pins were lost, a
program of our name that works on nothing but maps of our names.
"""

import errno
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.ifinfmsg import (
    XDP_FLAGS_DRV_MODE,
    XDP_FLAGS_HW_MODE,
    XDP_FLAGS_REPLACE,
    XDP_FLAGS_SKB_MODE,
    XDP_FLAGS_UPDATE_IF_NOEXIST,
)

from ebpf_lb.datapath import layout
from ebpf_lb.datapath.attach.errors import AttachError, interface_name
from ebpf_lb.datapath.libbpf import Map, Program
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.model.values import Family

PROGRAM = "xdp_ingress"
"""The one program for frames of both families, pinned among IPv4's."""

_ENTRY_FAMILY = Family.IPV4
_NAME_LENGTH = 15  # of programs and maps, in the kernel: BPF_OBJ_NAME_LEN
_NONE = -1  # instead of a program
_ATTEMPTS = 3  # others may change the interface between our look and our request


class Mode(Enum):
    """Where the program runs. The value is the word for people.

    NATIVE: in the driver, before the kernel makes a packet of the frame. GENERIC: right after that;
    every driver can, and it saves little. HARDWARE: on the card; never ours.
    """

    NATIVE = "native"
    GENERIC = "generic"
    HARDWARE = "hardware"


_FLAGS = {
    Mode.NATIVE: XDP_FLAGS_DRV_MODE,
    Mode.GENERIC: XDP_FLAGS_SKB_MODE,
    Mode.HARDWARE: XDP_FLAGS_HW_MODE,
}
# linux/if_link.h: one program a mode; IFLA_XDP_PROG_ID repeats it where there is only one
_PROGRAM_IDS = {
    "IFLA_XDP_DRV_PROG_ID": Mode.NATIVE,
    "IFLA_XDP_SKB_PROG_ID": Mode.GENERIC,
    "IFLA_XDP_HW_PROG_ID": Mode.HARDWARE,
}


@dataclass(frozen=True, slots=True)
class Attached:
    """An XDP program on an interface."""

    mode: Mode
    program_id: int
    name: str
    ours: bool


class XdpRefusedError(AttachError):
    """The program is not on the interface. The text says why and, if possible, what to do."""


def attached_programs(link: Any) -> dict[Mode, int]:
    """The ids of the XDP programs on an interface, from a message of netlink's about it."""
    found = link.get_attr("IFLA_XDP")
    if found is None:
        return {}
    ids = {mode: found.get_attr(name) for name, mode in _PROGRAM_IDS.items()}
    return {mode: number for mode, number in ids.items() if number}


class XdpControl:
    """XDP hooks of this thread's network namespace. `pins`: where our builds are."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins
        self._ip = IPRoute(ext_ack=True)  # the kernel says in words why it refuses
        self._program: Program | None = None
        self._number = 0

    def use(self, build: Build) -> None:
        """What `attach` shall attach. OSError if the build has none."""
        program = Program.open(build.programs(_ENTRY_FAMILY) / PROGRAM)
        self._close_program()
        self._program, self._number = program, program.info().id

    def attach(self, ifindex: int, mode: Mode) -> bool:
        """Attaches the program in this mode, or in the place of one of ours; False if the interface
        has gone meanwhile.

        Raises XdpRefusedError; then no program of ours is on the interface.
        """
        assert self._program is not None, "`use` comes first"
        for left in reversed(range(_ATTEMPTS)):
            try:
                self._attach(ifindex, mode, self._program)
                return True
            except NetlinkError as error:
                if error.code == errno.ENODEV:
                    return False
                # what we saw is not there any more, or something is that was not: look again
                if error.code in (errno.EEXIST, errno.EBUSY) and left:
                    continue
                self.detach(ifindex)  # an older build's, whose maps nobody will fill
                raise XdpRefusedError(_refusal(ifindex, mode, error)) from error
        raise AssertionError("the last attempt returns or raises")

    def detach(self, ifindex: int) -> int:
        """Removes our programs; how many they were."""
        return sum(self._remove(ifindex, one) for one in self.attached(ifindex) if one.ours)

    def holds(self, ifindex: int) -> bool:
        """Is a program of ours on the interface?"""
        return any(one.ours for one in self.attached(ifindex))

    def attached(self, ifindex: int) -> list[Attached]:
        """All XDP programs on an interface; none if it has gone."""
        try:
            [link] = self._ip.link("get", index=ifindex)
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return []
            raise
        pinned = self._pinned()
        return [_attached(mode, number, pinned) for mode, number in attached_programs(link).items()]

    def ours(self) -> list[int]:
        """The ifindexes of all interfaces in this namespace that have a program of ours."""
        pinned = self._pinned()
        return [
            link["index"]
            for link in self._ip.get_links()
            if any(_attached(m, n, pinned).ours for m, n in attached_programs(link).items())
        ]

    def close(self) -> None:
        self._close_program()
        self._ip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _close_program(self) -> None:
        if self._program is not None:
            self._program.close()
            self._program = None

    def _attach(self, ifindex: int, mode: Mode, program: Program) -> None:
        there = self.attached(ifindex)
        foreign = next((one for one in there if not one.ours), None)
        if foreign is not None:
            for one in there:
                if one.ours:
                    self._remove(ifindex, one)
            raise XdpRefusedError(_taken(ifindex, foreign))
        before = next((one for one in there if one.mode is mode), None)
        for other in there:
            if other is not before:  # the kernel takes no second mode beside the first
                self._remove(ifindex, other)
        if before is None:
            self._set(ifindex, program.fd, _FLAGS[mode] | XDP_FLAGS_UPDATE_IF_NOEXIST)
        elif before.program_id != self._number:
            with self._open(before.program_id) as old:
                self._set(ifindex, program.fd, _FLAGS[mode] | XDP_FLAGS_REPLACE, expected=old.fd)

    def _remove(self, ifindex: int, one: Attached) -> bool:
        """Whether it was there still."""
        try:
            with self._open(one.program_id) as program:
                flags = _FLAGS[one.mode] | XDP_FLAGS_REPLACE
                self._set(ifindex, _NONE, flags, expected=program.fd)
        except FileNotFoundError:
            return False
        except NetlinkError as error:
            if error.code not in (errno.ENODEV, errno.EEXIST):
                raise
            return False
        return True

    def _open(self, number: int) -> Program:
        """By its pin, if it has one: by its number it takes CAP_SYS_ADMIN."""
        for program in _pinned(self._pins):
            if program.info().id == number:
                return program
        return Program.by_id(number)

    def _set(self, ifindex: int, fd: int, flags: int, expected: int | None = None) -> None:
        attributes = [("IFLA_XDP_FD", fd), ("IFLA_XDP_FLAGS", flags)]
        if expected is not None:
            attributes.append(("IFLA_XDP_EXPECTED_FD", expected))
        self._ip.link("set", index=ifindex, xdp={"attrs": attributes})

    def _pinned(self) -> set[int]:
        """The ids of the programs that are pinned in our builds."""
        return {program.info().id for program in _pinned(self._pins)}


def _pinned(pins: Pins) -> Iterator[Program]:
    """Our builds' programs; whoever takes none further closes it by forgetting it."""
    for path in pins.builds.glob(f"*/{_ENTRY_FAMILY.directory}/programs/{PROGRAM}"):
        # builds are retired while we look
        with suppress(FileNotFoundError):
            yield Program.open(path)


def _attached(mode: Mode, number: int, pinned: set[int]) -> Attached:
    try:
        with Program.by_id(number) as program:
            name = program.info().name
            return Attached(mode, number, name, number in pinned or _is_orphan(program))
    except PermissionError:  # without CAP_SYS_ADMIN we know our pinned ones and nobody else
        return Attached(mode, number, PROGRAM if number in pinned else "", number in pinned)
    except FileNotFoundError:
        return Attached(mode, number, "", ours=False)  # gone since; asked for again if need be


def _is_orphan(program: Program) -> bool:
    """Is it ours although no pin says so? Somebody may have removed our folder in bpffs; what is
    left then would go on with maps that nobody fills."""
    if program.info().name != PROGRAM[:_NAME_LENGTH]:
        return False
    known = {name[:_NAME_LENGTH] for name in layout.load(_ENTRY_FAMILY).maps}
    names = []
    for number in program.map_ids():
        with suppress(FileNotFoundError), Map.by_id(number) as one:
            names.append(one.info().name)
    return bool(names) and known.issuperset(names)


def _taken(ifindex: int, foreign: Attached) -> str:
    name = interface_name(ifindex)
    called = f" {foreign.name!r}" if foreign.name else ""
    return (
        f"{name} has an XDP program{called} (id {foreign.program_id}) that is not ours, and takes "
        f"one only: `ip link set dev {name} xdp off` would remove it."
    )


def _refusal(ifindex: int, mode: Mode, error: NetlinkError) -> str:
    name, text = interface_name(ifindex), str(error.args[-1])
    advice = ""
    if error.code == errno.EOPNOTSUPP:
        advice = "; its driver has no native XDP, so there is nothing to win here"
    elif "mtu" in text.lower() or error.code in (errno.ERANGE, errno.EFBIG):
        advice = (
            "; frames must fit into a memory page with native XDP: lower the MTU of both ends of "
            "the wire if the network allows it"
        )
    return f"{name} takes no {mode.value} XDP program: {text}{advice}."
