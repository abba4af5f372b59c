"""Programs at an interface's own hooks (tcx, Linux 6.6 and later), by links that are pinned: they
stay when the agent ends, and a new build takes an old one's place in one step.

Ours are put in front. Whoever is attached before them may end the chain, so that we see nothing of
the packet; filters of clsact and of an `ingress` qdisc all run later. There is no event about these
hooks: who wants to know what others did there asks (`disturbed`).
"""

import errno
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ebpf_lb.datapath.attach.errors import AttachError, interface_name
from ebpf_lb.datapath.libbpf import InterfaceHook, Link, Program, programs_at
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.model.values import Family

KINDS = ("auto", "tcx", "clsact")
"""How programs may be put on interfaces; auto: by tcx where the kernel has it."""

_LOOPBACK = 1
_GONE = (errno.ENODEV, errno.ENOLINK, errno.ENOENT)


@dataclass(frozen=True, slots=True)
class Foreign:
    """Somebody else's program that runs before ours and may end the chain there."""

    direction: str
    name: str
    place: str


def supported() -> bool:
    """Does this kernel have such hooks?"""
    try:
        programs_at(_LOOPBACK, InterfaceHook.INGRESS)
    except OSError as error:
        return error.errno == errno.ENODEV
    return True


class TcxControl:
    """tcx hooks of this thread's network namespace. `pins`: where links are pinned.

    Links are held open, too: if somebody removes the pins, programs go on running, and are pinned
    again.
    """

    def __init__(self, pins: Pins) -> None:
        self._folder = pins.tcx
        self._programs: dict[str, dict[tuple[InterfaceHook, Family], Program]] = {}
        self._ids: dict[str, dict[tuple[InterfaceHook, Family], int]] = {}
        self._links: dict[int, dict[tuple[InterfaceHook, Family], Link]] = {}
        self._seen: dict[tuple[int, InterfaceHook], list[int]] = {}

    def use(self, build: Build, role: str) -> None:
        """What `attach` shall attach: the programs ROLE_ingress and ROLE_egress of this build."""
        programs = {}
        # what is attached last runs first: IPv4
        for family in (Family.IPV6, Family.IPV4):
            for hook in InterfaceHook:
                with suppress(FileNotFoundError):
                    path = build.programs(family) / f"{role}_{hook.name.lower()}"
                    programs[hook, family] = Program.open(path)
        for program in self._programs.pop(role, {}).values():
            program.close()
        self._programs[role] = programs
        self._ids[role] = {key: program.info().id for key, program in programs.items()}

    def attach(self, ifindex: int, role: str) -> bool:
        """Attaches or replaces this role's programs; False if the interface has gone meanwhile."""
        wanted = self._programs[role]
        held = self._held(ifindex)
        try:
            for key in held.keys() - wanted.keys():
                self._end(held.pop(key), self._pin(ifindex, *key))
            for key, program in wanted.items():
                held[key] = self._attach_one(held.pop(key, None), program, ifindex, key)
                if not self._pin(ifindex, *key).exists():
                    self._folder.mkdir(parents=True, exist_ok=True)
                    held[key].pin(self._pin(ifindex, *key))
        except OSError as error:
            if error.errno in _GONE:
                self._forget(ifindex)
                return False
            raise AttachError(f"Cannot attach to {interface_name(ifindex)}: {error}.") from error
        self._look(ifindex)
        return True

    def missing(self, ifindex: int, role: str) -> list[str]:
        """The names of this role's programs that do not run there, whoever took them off; none if
        the interface has gone. Pins that are lost are made again."""
        try:
            there = {hook: programs_at(ifindex, hook) for hook in InterfaceHook}
        except OSError as error:
            if error.errno in _GONE:
                return []
            raise
        for key, link in self._links.get(ifindex, {}).items():
            pin = self._pin(ifindex, *key)
            if not pin.exists():
                with suppress(OSError):  # the agent says that pins are lost
                    self._folder.mkdir(parents=True, exist_ok=True)
                    link.pin(pin)
        return [
            f"{family.directory}/{role}_{hook.name.lower()}"
            for (hook, family), number in self._ids[role].items()
            if number not in there[hook]
        ]

    def disturbed(self, interfaces: Iterable[int]) -> set[int]:
        """Those at whose hooks something is otherwise than when it was looked at last, or whose
        pins are lost."""
        found = set()
        for ifindex in interfaces:
            held = self._links.get(ifindex, {})
            pinned = all(self._pin(ifindex, *key).exists() for key in held)
            if self._look(ifindex) or not pinned:
                found.add(ifindex)
        return found

    def ahead_of_us(self, ifindex: int) -> list[Foreign]:
        found = []
        ours = {number for role in self._ids.values() for number in role.values()}
        with suppress(OSError):
            for hook in InterfaceHook:
                there = programs_at(ifindex, hook)
                first = min((there.index(one) for one in ours if one in there), default=0)
                for place, number in enumerate(there[:first]):
                    found.append(Foreign(hook.name.lower(), _name(number), f"tcx, {place + 1}"))
        return found

    def detach(self, ifindex: int) -> int:
        """Removes our programs, also those of an earlier agent; how many they were."""
        held = self._held(ifindex)
        for key, link in held.items():
            self._end(link, self._pin(ifindex, *key))
        count = len(held)
        self._forget(ifindex)
        return count

    def interfaces(self) -> set[int]:
        """Those that have links of ours pinned, of which some may be gone."""
        if not self._folder.exists():
            return set()
        return {int(path.name.partition("-")[0]) for path in self._folder.iterdir()}

    def close(self) -> None:
        for programs in self._programs.values():
            for program in programs.values():
                program.close()
        self._programs.clear()
        for ifindex in list(self._links):
            self._forget(ifindex)

    def _attach_one(
        self, link: Link | None, program: Program, ifindex: int, key: tuple[InterfaceHook, Family]
    ) -> Link:
        if link is not None:
            info = link.interface_info()
            if info.ifindex == ifindex:
                if info.program_id != program.info().id:
                    link.update(program)
                return link
            self._end(link, self._pin(ifindex, *key))  # of an interface that had this number before
        return Link.attach_interface(program, ifindex, key[0])

    def _held(self, ifindex: int) -> dict[tuple[InterfaceHook, Family], Link]:
        """The links of an interface, those of an earlier agent included."""
        held = self._links.setdefault(ifindex, {})
        for hook in InterfaceHook:
            for family in Family:
                if (hook, family) not in held:
                    with suppress(FileNotFoundError):
                        held[hook, family] = Link.open(self._pin(ifindex, hook, family))
        return held

    def _look(self, ifindex: int) -> bool:
        """Is anything otherwise than before?"""
        changed = False
        for hook in InterfaceHook:
            try:
                there = programs_at(ifindex, hook)
            except OSError:
                return changed  # gone; that will be heard otherwise
            if self._seen.get((ifindex, hook)) != there:
                self._seen[ifindex, hook] = there
                changed = True
        return changed

    def _forget(self, ifindex: int) -> None:
        """Also pins of an interface that has gone; those of one that is there stay with it."""
        for key, link in self._links.pop(ifindex, {}).items():
            if link.fd >= 0:
                with suppress(OSError):
                    if link.interface_info().ifindex != ifindex:
                        self._pin(ifindex, *key).unlink(missing_ok=True)
            link.close()
        for hook in InterfaceHook:
            self._seen.pop((ifindex, hook), None)

    def _end(self, link: Link, pin: Path) -> None:
        with suppress(OSError):  # it has ended with its interface
            link.detach()
        pin.unlink(missing_ok=True)
        link.close()

    def _pin(self, ifindex: int, hook: InterfaceHook, family: Family) -> Path:
        return self._folder / f"{ifindex}-{hook.name.lower()}-{family.directory}"


def _name(number: int) -> str:
    try:
        with Program.by_id(number) as program:
            return program.info().name or f"program {number}"
    except OSError:
        return f"program {number}"
