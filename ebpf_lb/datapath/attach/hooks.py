"""Our programs at interfaces: by tcx where the kernel has it, else by TC filters in clsact.

A change from one to the other, by an upgrade of ours or of the kernel, leaves no packet without:
the new ones are there before the old ones go. What both see, the second leaves alone, since what
the first has translated is not a Service's any more.
"""

from collections.abc import Iterable
from typing import Self

from ebpf_lb.datapath.attach.tc import PREFERENCE, TrafficControl
from ebpf_lb.datapath.attach.tcx import Foreign, TcxControl, supported
from ebpf_lb.datapath.pins import Build, Pins


class HookControl:
    """Hooks of this thread's network namespace. `kind`: one of tcx.KINDS."""

    def __init__(self, pins: Pins, preference: int = PREFERENCE, kind: str = "auto") -> None:
        self._filters = TrafficControl(preference)
        self._links = TcxControl(pins)
        self.kind = kind if kind != "auto" else ("tcx" if supported() else "clsact")
        """What is used: `tcx` or `clsact`."""
        self._others: set[int] | None = None  # interfaces that may have ours of the other kind

    def use(self, build: Build, role: str = "pod") -> None:
        """What `attach` shall attach: the programs ROLE_ingress and ROLE_egress of this build.

        What a build does not have is not attached.
        """
        if self.kind == "tcx":
            self._links.use(build, role)
        else:
            self._filters.use(build, role)

    def attach(self, ifindex: int, role: str = "pod") -> bool:
        """Attaches or replaces this role's programs; False if the interface has gone meanwhile.
        AttachError: the kernel refuses, or somebody else's qdisc stands in the way."""
        if self._others is None:
            by_filters = self.kind == "tcx"
            self._others = self._filters.with_clsact() if by_filters else self._links.interfaces()
        if self.kind == "tcx":
            there = self._links.attach(ifindex, role)
            other: TrafficControl | TcxControl = self._filters
        else:
            there = self._filters.attach(ifindex, role)
            other = self._links
        if there and ifindex in self._others:
            other.detach(ifindex)
            self._others.discard(ifindex)
        return there

    def missing(self, ifindex: int, role: str = "pod") -> list[str]:
        """The names of this role's programs that are not where `attach` puts them, whoever took
        them off; none if the interface has gone."""
        if self.kind == "tcx":
            return self._links.missing(ifindex, role)
        return self._filters.missing(ifindex, role)

    def disturbed(self, interfaces: Iterable[int]) -> set[int]:
        """Those at whose hooks somebody did something that no event tells of."""
        return self._links.disturbed(interfaces) if self.kind == "tcx" else set()

    def ahead_of_us(self, ifindex: int) -> list[Foreign]:
        """Other people's programs that run before ours and may end the chain there."""
        if self.kind == "tcx":
            return self._links.ahead_of_us(ifindex)
        return [
            Foreign(
                one.direction.name.lower(), one.name or one.kind, f"preference {one.preference}"
            )
            for one in self._filters.ahead_of_us(ifindex)
        ] + self._links.ahead_of_us(ifindex)

    def detach(self, ifindex: int) -> int:
        """Removes our programs, of both kinds; how many they were."""
        return self._links.detach(ifindex) + self._filters.detach(ifindex)

    def interfaces(self) -> list[int]:
        """The ifindexes of all interfaces here, and of those that had links of ours."""
        return sorted({*self._filters.interfaces(), *self._links.interfaces()})

    def close(self) -> None:
        self._links.close()
        self._filters.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
