"""Keeps the kernel as the network view asks: interfaces' entries in the maps and our programs on
them, the node's addresses to masquerade with, and the pods' networks.

An entry is written before the programs that read it are attached. Nothing is taken off an interface
when the agent ends.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol
from zlib import crc32

from ebpf_lb.agent.network.roles import Interface, NetworkView, Role
from ebpf_lb.agent.network.xdp import XdpUplinks
from ebpf_lb.datapath.attach.errors import AttachError, NotYetError
from ebpf_lb.datapath.attach.tcx import Foreign
from ebpf_lb.datapath.writer import NODE_SOURCE_ID, FullError
from ebpf_lb.model.values import Family, Network, family_of

_NUMBERS = range(NODE_SOURCE_ID + 1, 256)


class Control(Protocol):
    """What is asked of `datapath.attach.hooks.HookControl`."""

    def attach(self, ifindex: int, role: str = "pod") -> bool: ...
    def missing(self, ifindex: int, role: str = "pod") -> list[str]: ...
    def detach(self, ifindex: int) -> int: ...
    def disturbed(self, interfaces: Iterable[int]) -> set[int]: ...
    def ahead_of_us(self, ifindex: int) -> Iterable[Foreign]: ...


class InterfaceTables(Protocol):
    """What is asked of a family's writer here."""

    def set_interface(
        self,
        ifindex: int,
        bridge: int = 0,
        source_id: int = 0,
        mac: bytes = bytes(6),
        peer: bool = False,
    ) -> None: ...
    def delete_interface(self, ifindex: int) -> None: ...
    def interfaces(self) -> set[int]: ...
    def set_snat_source(self, source_id: int, address: bytes) -> None: ...
    def clear_snat_source(self, source_id: int) -> None: ...
    def set_pod_networks(self, networks: Iterable[Network]) -> None: ...


class SourceNumbers:
    """Which number stands for which address in `snat_sources`, beside NODE_SOURCE_ID.

    Flows keep the number. So one that is in the kernel keeps its meaning over restarts, and one
    whose address the node lost rests: it stands for no other address until no flow has it any more,
    `rest_s` later. Where the search begins follows from the address, so that an agent that starts,
    and knows nothing of what rests, will hardly ever hit upon it.
    """

    def __init__(
        self, held: Mapping[int, bytes], clock: Callable[[], float], rest_s: float
    ) -> None:
        self._numbers = {a: number for number, a in held.items() if number in _NUMBERS}
        self._clock = clock
        self._rest_s = rest_s
        self._resting: dict[int, tuple[bytes, float]] = {}  # its address, and until when

    def number(self, address: bytes) -> int:
        """0: there is none left; then the node's preferred address has to do."""
        number = self._numbers.get(address) or self._free(address)
        if number:
            self._resting.pop(number, None)
            self._numbers[address] = number
        return number

    def lose(self, addresses: Collection[bytes]) -> list[int]:
        """The node has these addresses and no others. Returns the numbers of those it lost."""
        lost = {a: number for a, number in self._numbers.items() if a not in addresses}
        until = self._clock() + self._rest_s
        for address, number in lost.items():
            del self._numbers[address]
            self._resting[number] = (address, until)
        return list(lost.values())

    def _free(self, address: bytes) -> int:
        now, taken = self._clock(), set(self._numbers.values())
        start = crc32(address) % len(_NUMBERS)
        number: int
        for number in (*_NUMBERS[start:], *_NUMBERS[:start]):
            before, until = self._resting.get(number, (address, now))
            if number not in taken and (before == address or until <= now):
                return number
        return 0


class Attachments:
    """`xdp`: what is put on uplinks besides. `numbers`: a family's numbers of SNAT sources, as the
    kernel has them. `log`: structlog's."""

    def __init__(
        self,
        control: Control,
        xdp: XdpUplinks,
        writers: Mapping[Family, InterfaceTables],
        numbers: Mapping[Family, SourceNumbers],
        log: Any,
    ) -> None:
        self._control = control
        self._xdp = xdp
        self._writers = writers
        self._numbers = numbers
        self._log = log
        self._wanted: Mapping[int, Interface] = {}
        self._done: dict[int, Interface] = {}
        self._failed: dict[int, str] = {}
        self._suspects: set[int] = set()
        self._ahead: dict[int, list[str]] = {}
        self.restored = 0
        """How often programs that somebody had removed were attached again."""
        self._primary: tuple[bytes, ...] = ()
        self._pod_networks: tuple[Network, ...] | None = None
        self._attaching = False

    def attached(self, role: Role) -> list[str]:
        """Names of the interfaces that have this role's programs on. Another thread may ask."""
        return sorted(one.name for one in list(self._done.values()) if one.role is role)

    @property
    def uplinks(self) -> frozenset[int]:
        """Their ifindexes. Another thread may ask."""
        done = list(self._done.items())
        return frozenset(index for index, one in done if one.role is Role.UPLINK)

    @property
    def neighbourhoods(self) -> frozenset[int]:
        """Where the neighbours are whom our programs send to: at uplinks, and at bridges, for the
        backends on a pod's own. Another thread may ask."""
        done = list(self._done.values())
        return self.uplinks | {one.bridge for one in done if one.bridge}

    @property
    def failed(self) -> Mapping[int, str]:
        """What could not be done, in a sentence, by ifindex."""
        return self._failed

    def begin(self, view: NetworkView) -> None:
        """Forgets interfaces that went, or lost their role, while no agent ran, and attaches from
        now on."""
        self._attaching = True
        for writer in self._writers.values():
            for index in writer.interfaces() - view.interfaces.keys():
                self._control.detach(index)
                writer.delete_interface(index)
        self.apply(view)
        self._xdp.retain(view.interfaces.values())

    def apply(self, view: NetworkView) -> None:
        """Does what differs from the last time."""
        self._primary = view.primary
        self._write_primary()
        self._set_pod_networks(view.pod_networks)
        self._wanted = view.interfaces
        if self._attaching:
            for index in (self._done.keys() | self._failed.keys()) - view.interfaces.keys():
                self._forget(index)
            self.retry()
        # last: interfaces have other sources by now
        self._clear_lost_sources(view)

    def retry(self) -> None:
        """What is wanted and not done: new interfaces, and those that failed."""
        for index, interface in self._wanted.items():
            if self._done.get(index) != interface:
                self._set_up(interface)
        for index in self._failed.keys() - self._wanted.keys():
            del self._failed[index]

    def write_again(self) -> None:
        """All that the maps should say of interfaces, addresses and networks; what they say already
        is left alone."""
        for index in list(self._done):
            self._write_entry(self._done[index])
        self._write_primary()
        for family, writer in self._writers.items():
            for index in writer.interfaces() - self._wanted.keys():
                writer.delete_interface(index)
            if self._pod_networks is not None:
                writer.set_pod_networks(one for one in self._pod_networks if one.family is family)

    def suspect(self, interfaces: Iterable[int] | None) -> None:
        """Something changed at the TC hooks of these, of any for None: `restore` shall look."""
        self._suspects.update(self._done if interfaces is None else interfaces)

    def restore(self) -> None:
        """Attaches again what somebody removed: filters, or clsact with all that was in it. To be
        called every second or so, and not at each change: whoever removes them does so one by one,
        and perhaps again and again."""
        suspects, self._suspects = self._suspects, set()
        suspects |= self._control.disturbed(list(self._done))
        for index in suspects & self._done.keys():
            interface = self._done[index]
            if not interface.role.has_programs:
                continue
            missing = self._control.missing(index, interface.programs)
            if not missing:
                self._look_ahead(interface)
                continue
            del self._done[index]
            self._set_up(interface)
            if index in self._done:  # else it is said why not, and tried again
                self.restored += 1
                self._log.warning(
                    "our programs had been removed from an interface and are attached again",
                    interface=interface.name,
                    programs=missing,
                )

    def _set_up(self, interface: Interface) -> None:
        before = self._done.get(interface.index)
        try:
            self._write_entry(interface)
            if before is None or before.programs != interface.programs:
                self._change_role(interface, before)
            self._xdp.set_up(interface)
        except (AttachError, FullError, OSError) as error:
            sentence = str(error)
            if self._failed.get(interface.index) != sentence:
                self._failed[interface.index] = sentence
                if isinstance(error, NotYetError):
                    self._log.info("interface waits", interface=interface.name, reason=sentence)
                else:
                    self._log.error("interface failed", interface=interface.name, error=sentence)
            return
        self._failed.pop(interface.index, None)
        self._done[interface.index] = interface

    def _write_entry(self, interface: Interface) -> None:
        for family, writer in self._writers.items():
            source = interface.source(family)
            number = self._source_id(family, source) if source is not None else 0
            writer.set_interface(
                interface.index,
                interface.bridge,
                number,
                interface.mac or bytes(6),
                interface.peer,
            )

    def _change_role(self, interface: Interface, before: Interface | None) -> None:
        index = interface.index
        if not interface.role.has_programs:
            self._control.detach(index)  # it may have been an uplink to an agent before this one
            return
        if not self._control.attach(index, interface.programs):
            return  # gone; its disappearance is on the way to us
        self._log.debug("attached", interface=interface.name, role=interface.role.value)
        self._look_ahead(interface)

    def _look_ahead(self, interface: Interface) -> None:
        """Who gets packets before us may keep them from us."""
        before = self._ahead.pop(interface.index, [])
        found = []
        for foreign in self._control.ahead_of_us(interface.index):
            found.append(
                f"{interface.name}, {foreign.direction}: the program {foreign.name} runs before "
                f"ours ({foreign.place}); what it does not hand on, we do not serve. Have it "
                "attached after ours."
            )
            if found[-1] not in before:
                self._log.warning(
                    "somebody else's program runs before ours and may end the chain",
                    interface=interface.name,
                    direction=foreign.direction,
                    program=foreign.name,
                    place=foreign.place,
                )
        if found:
            self._ahead[interface.index] = found

    @property
    def ahead(self) -> list[str]:
        """Sentences about others' programs that run before ours. Another thread may ask."""
        return sorted(one for sentences in list(self._ahead.values()) for one in sentences)

    def _forget(self, index: int) -> None:
        interface = self._done.pop(index, None)
        self._failed.pop(index, None)
        self._ahead.pop(index, None)
        if interface is None or interface.role.has_programs:
            self._control.detach(index)  # it may be there still, as something else
        self._xdp.forget(index)
        for writer in self._writers.values():
            writer.delete_interface(index)
        self._log.debug("forgotten", interface=interface.name if interface else index)

    def _write_primary(self) -> None:
        for address in self._primary:
            writer = self._writers.get(family_of(address))
            if writer is not None:
                writer.set_snat_source(NODE_SOURCE_ID, address)

    def _set_pod_networks(self, networks: tuple[Network, ...] | None) -> None:
        """Unknown ones stay as they are: at a restart the Node object comes a little later."""
        if networks is None or networks == self._pod_networks:
            return
        for family, writer in self._writers.items():
            writer.set_pod_networks(one for one in networks if one.family is family)
        self._pod_networks = networks

    def _clear_lost_sources(self, view: NetworkView) -> None:
        """What was masqueraded with an address that the node lost begins anew."""
        for family, writer in self._writers.items():
            for number in self._numbers[family].lose(frozenset(view.addresses)):
                writer.clear_snat_source(number)
            if not any(family_of(address) is family for address in view.primary):
                writer.clear_snat_source(NODE_SOURCE_ID)

    def _source_id(self, family: Family, address: bytes) -> int:
        writer = self._writers.get(family)
        if writer is None:
            return 0
        number = self._numbers[family].number(address)
        if number:
            writer.set_snat_source(number, address)
        return number
