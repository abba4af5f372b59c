"""TC filters on interfaces, by netlink. One is ours if its name begins with `ebpf-lb/`; others are
never touched.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ebpf_lb.datapath.attach.errors import AttachError, interface_name
from ebpf_lb.datapath.libbpf import Program
from ebpf_lb.datapath.pins import Build
from ebpf_lb.model.values import Family

PREFERENCE = 49000
"""Ours among a hook's filters, IPv6 one more; lower ones run first."""

NAME_PREFIX = "ebpf-lb/"
_HANDLE = 1
_ALL = 0x0003  # ETH_P_ALL
PROTOCOLS = {Family.IPV4: 0x0800, Family.IPV6: 0x86DD}


class Direction(IntEnum):
    """A hook of clsact, as the interface's own namespace sees it; the number is its TC parent."""

    INGRESS = 0xFFFFFFF2
    EGRESS = 0xFFFFFFF3


@dataclass(frozen=True, slots=True)
class Filter:
    """A TC filter. `protocol` is an Ethernet type; `name` is empty unless it is a BPF program."""

    ifindex: int
    direction: Direction
    preference: int
    protocol: int
    handle: int
    kind: str
    name: str

    @property
    def ours(self) -> bool:
        return self.name.startswith(NAME_PREFIX)


class TrafficControl:
    """TC hooks of this thread's network namespace, through one netlink socket."""

    def __init__(self, preference: int = PREFERENCE) -> None:
        self._preference = preference
        self._ip = IPRoute()
        self._programs: dict[str, dict[tuple[Direction, Family], Program]] = {}

    def use(self, build: Build, role: str = "pod") -> None:
        """What `attach` shall attach: the programs ROLE_ingress and ROLE_egress of this build.

        What a build does not have is not attached.
        """
        programs = {}
        for family in Family:
            for direction in Direction:
                with suppress(FileNotFoundError):
                    path = build.programs(family) / f"{role}_{direction.name.lower()}"
                    programs[direction, family] = Program.open(path)
        for program in self._programs.pop(role, {}).values():
            program.close()
        self._programs[role] = programs

    def attach(self, ifindex: int, role: str = "pod") -> bool:
        """Attaches or replaces this role's programs; False if the interface has gone meanwhile.

        Programs of another role that a build does not have for this one are taken off.
        """
        if not self._programs[role]:
            self.detach(ifindex)
            return True
        try:
            self._make_clsact(ifindex)
            for (direction, family), program in self._programs[role].items():
                self._ip.tc(
                    "replace-filter",
                    "bpf",
                    ifindex,
                    _HANDLE,
                    fd=program.fd,
                    name=NAME_PREFIX + program.name,
                    parent=direction,
                    prio=self._preference_of(family),
                    protocol=PROTOCOLS[family],
                    classid=1,
                    direct_action=True,
                )
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return False
            raise AttachError(
                f"Cannot attach to {interface_name(ifindex)}: {error.args[-1]}; a filter of other "
                f"kind at preference {self._preference} would stand in the way (see "
                f"`tc filter show dev {interface_name(ifindex)} ingress`, then choose another)."
            ) from error
        return True

    def missing(self, ifindex: int, role: str = "pod") -> list[str]:
        """The names of this role's programs that are not where `attach` puts them, whoever took
        them off; none if the interface has gone."""
        there = {(one.direction, one.preference, one.name) for one in self.filters(ifindex)}
        lacking = [
            f"{family.directory}/{program.name}"
            for (direction, family), program in self._programs[role].items()
            if (direction, self._preference_of(family), NAME_PREFIX + program.name) not in there
        ]
        return lacking if _exists(ifindex) else []

    def filters(self, ifindex: int) -> list[Filter]:
        """All filters at both hooks, in the order in which they run; none if it has gone."""
        return [found for hook in Direction for found in self._filters(ifindex, hook)]

    def ahead_of_us(self, ifindex: int) -> list[Filter]:
        """Other people's filters that run before ours and may end the chain there."""
        protocols = {_ALL, *PROTOCOLS.values()}
        return [
            found
            for found in self.filters(ifindex)
            if not found.ours
            and found.protocol in protocols
            and found.preference < self._preference
        ]

    def detach(self, ifindex: int) -> int:
        """Removes our filters, and clsact if that leaves it empty; how many they were."""
        filters = self.filters(ifindex)
        ours = [found for found in filters if found.ours]
        for found in ours:
            with suppress_gone():
                self._ip.tc(
                    "del-filter",
                    found.kind,
                    ifindex,
                    found.handle,
                    parent=found.direction,
                    prio=found.preference,
                    protocol=found.protocol,
                )
        if ours and len(ours) == len(filters):
            with suppress_gone():
                self._ip.tc("del", "clsact", ifindex)
        return len(ours)

    def with_clsact(self) -> set[int]:
        """The ifindexes of those that have clsact, whoever's."""
        qdiscs = self._ip.get_qdiscs()
        return {one["index"] for one in qdiscs if one.get_attr("TCA_KIND") == "clsact"}

    def interfaces(self) -> list[int]:
        """The ifindexes of all interfaces in this namespace."""
        return [link["index"] for link in self._ip.get_links()]

    def close(self) -> None:
        for programs in self._programs.values():
            for program in programs.values():
                program.close()
        self._programs.clear()
        self._ip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _make_clsact(self, ifindex: int) -> None:
        try:
            self._ip.tc("add", "clsact", ifindex)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
            kinds = {qdisc.get_attr("TCA_KIND") for qdisc in self._ip.get_qdiscs(ifindex)}
            # it takes filters for egress, too, and would run them at ingress
            if "ingress" in kinds and "clsact" not in kinds:
                name = interface_name(ifindex)
                raise AttachError(
                    f"Cannot attach to {name}: it has an `ingress` qdisc of somebody else's, which "
                    f"has no egress hook; put clsact in its place (`tc qdisc show dev {name}`)."
                ) from error

    def _preference_of(self, family: Family) -> int:
        # one preference holds filters of one protocol only
        return self._preference + (family is Family.IPV6)

    def _filters(self, ifindex: int, direction: Direction) -> Iterator[Filter]:
        try:
            messages = list(self._ip.get_filters(ifindex, parent=direction))
        except NetlinkError as error:
            # EINVAL: no clsact there
            if error.code in (errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP):
                return
            raise
        for message in messages:
            found = _parse_filter(message, ifindex, direction)
            if found is not None:
                yield found


def _exists(ifindex: int) -> bool:
    try:
        socket.if_indextoname(ifindex)
    except OSError:
        return False
    return True


def suppress_gone() -> Any:
    """Whatever was to be removed may have gone by itself."""
    return _SuppressGone()


class _SuppressGone:
    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, traceback: object) -> bool:
        gone = (errno.ENODEV, errno.ENOENT, errno.EINVAL)
        return isinstance(error, NetlinkError) and error.code in gone


def _parse_filter(message: Any, ifindex: int, direction: Direction) -> Filter | None:
    """One filter; None for the line about a preference as a whole, which has no handle."""
    if not message["handle"] or message["index"] != ifindex or message["parent"] != direction:
        return None
    options = message.get_attr("TCA_OPTIONS")
    return Filter(
        ifindex,
        direction,
        message["info"] >> 16,
        socket.ntohs(message["info"] & 0xFFFF),
        message["handle"],
        message.get_attr("TCA_KIND"),
        (options.get_attr("TCA_BPF_NAME") if hasattr(options, "get_attr") else None) or "",
    )
