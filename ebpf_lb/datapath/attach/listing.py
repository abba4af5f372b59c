"""Which of our programs run at an interface, whoever put them there and by which kind of hook."""

from contextlib import suppress
from typing import Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ebpf_lb.datapath.attach.tc import NAME_PREFIX, PROTOCOLS, TrafficControl
from ebpf_lb.datapath.attach.xdp import PROGRAM as XDP_PROGRAM
from ebpf_lb.datapath.attach.xdp import attached_programs
from ebpf_lb.datapath.libbpf import InterfaceHook, Program, programs_at
from ebpf_lb.datapath.pins import Build
from ebpf_lb.model.values import Family

_ROLES = ("pod", "uplink", "loopback", "l3")


class Listing:
    """Of the current build, for `with`; reads only."""

    def __init__(self, build: Build) -> None:
        self._build = build
        self._filters = TrafficControl()
        self._ids: dict[int, str] = {}
        self._built: dict[tuple[Family, InterfaceHook, str], int] = {}
        for family in Family:
            for role in _ROLES:
                for hook in InterfaceHook:
                    name = f"{role}_{hook.name.lower()}"
                    path = build.programs(family) / name
                    with suppress(FileNotFoundError), Program.open(path) as program:
                        self._ids[program.info().id] = name
                        self._built[family, hook, role] = program.info().id

    def programs(self, ifindex: int) -> list[str]:
        """Their names, sorted; none if the interface has gone."""
        found = {
            one.name.removeprefix("ebpf-lb/") for one in self._filters.filters(ifindex) if one.ours
        }
        for hook in InterfaceHook:
            with suppress(OSError):  # before Linux 6.6 there is no such hook
                there = programs_at(ifindex, hook)
                found |= {self._ids[number] for number in there if number in self._ids}
        return sorted(found)

    def at_xdp(self, ifindex: int) -> bool:
        """Whether ours is at the interface's XDP hook, in whatever mode."""
        path = self._build.programs(Family.IPV4) / XDP_PROGRAM
        with suppress(OSError, NetlinkError), IPRoute() as ip, Program.open(path) as program:
            (link,) = ip.get_links(ifindex)
            return program.info().id in attached_programs(link).values()
        return False

    def missing(self, ifindex: int, role: str) -> list[str]:
        """The names of this role's programs of this build that do not run there."""
        by_filters = {
            (one.protocol, one.name) for one in self._filters.filters(ifindex) if one.ours
        }
        at_hooks: dict[InterfaceHook, list[int]] = {}
        for hook in InterfaceHook:
            with suppress(OSError):
                at_hooks[hook] = programs_at(ifindex, hook)
        return [
            f"{family.directory}/{self._ids[number]}"
            for (family, hook, of), number in self._built.items()
            if of == role
            and number not in at_hooks.get(hook, ())
            and (PROTOCOLS[family], f"{NAME_PREFIX}{self._ids[number]}") not in by_filters
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._filters.close()
