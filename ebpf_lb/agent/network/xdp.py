"""The XDP program on the uplinks, as configured, and TC alone wherever that cannot be.

TC's programs are on every uplink in any case: what XDP passes on is theirs, so an uplink without
XDP is slower and nothing else. That is why a refusal is never an error of the interface: it is said
once, with the reason, and tried again when something of the interface changes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ebpf_lb.agent.config.parsers import XDP_MODES
from ebpf_lb.agent.network.roles import Interface, Role
from ebpf_lb.datapath.attach.errors import AttachError, interface_name
from ebpf_lb.datapath.attach.xdp import Mode

OFF, GENERIC, NATIVE, AUTO = XDP_MODES
TC = "tc"
"""How an uplink is served that has no XDP program of ours."""


class Control(Protocol):
    """What is asked of `datapath.attach.xdp.XdpControl`."""

    def attach(self, ifindex: int, mode: Mode) -> bool: ...
    def detach(self, ifindex: int) -> int: ...
    def holds(self, ifindex: int) -> bool: ...
    def ours(self) -> Iterable[int]: ...


@dataclass(frozen=True, slots=True)
class Served:
    """How an uplink is served: native, generic or tc; and in the last case why."""

    interface: str
    mode: str
    reason: str = ""


class XdpUplinks:
    """`mode`: one of XDP_MODES. `log`: structlog's."""

    def __init__(self, control: Control, mode: str, log: Any) -> None:
        self._control = control
        self._mode = mode
        self._log = log
        self._served: dict[int, Served] = {}
        self.restored = 0
        """How often a program that somebody had removed was attached again."""

    def retain(self, interfaces: Iterable[Interface]) -> None:
        """Takes our programs off all interfaces but those of these that may have one: what earlier
        runs left, perhaps by another configuration."""
        keep = {one.index for one in interfaces if self._belongs(one)}
        for index in set(self._control.ours()) - keep:
            self._control.detach(index)
            self._log.info("XDP detached", interface=interface_name(index))

    def set_up(self, interface: Interface) -> None:
        """Attaches, replaces or removes, as it should be here."""
        index = interface.index
        if not self._belongs(interface):
            self._leave_to_tc(interface)
            return
        if self._mode == AUTO and interface.xdp and interface.xdp.paired:
            self._control.detach(index)
            self._note(
                index,
                Served(
                    interface.name,
                    TC,
                    f"{interface.name} is one end of a veth pair, where what XDP sends back is "
                    "lost unless the other end has an XDP program, too, which cannot be seen from "
                    "here: say `native` if it has.",
                ),
            )
            return
        mode = Mode.GENERIC if self._mode == GENERIC else Mode.NATIVE
        served = Served(interface.name, mode.value)
        try:
            removed = self._served.get(index) == served and not self._control.holds(index)
            if not self._control.attach(index, mode):
                return  # gone; its disappearance is on the way to us
        except (AttachError, OSError) as error:
            self._note(index, Served(interface.name, TC, str(error)))
        else:
            self._note(index, served)
            if removed:
                self.restored += 1
                self._log.warning(
                    "our XDP program had been removed and is attached again",
                    interface=interface.name,
                )

    def forget(self, index: int) -> None:
        """One that has gone, or is not an uplink any more."""
        if self._served.pop(index, None) is not None:
            self._control.detach(index)  # it may be there still, as something else

    @property
    def problems(self) -> list[str]:
        """What was asked for and cannot be, in sentences. With `auto` nothing was asked for."""
        if self._mode == AUTO:
            return []
        return [one.reason for one in list(self._served.values()) if one.reason]

    def counts(self) -> Mapping[str, int]:
        """How many uplinks are served in each way."""
        return Counter(one.mode for one in list(self._served.values()))

    def status(self) -> dict[str, Any]:
        """As `/status` shows it. Another thread may ask."""
        return {
            "mode": self._mode,
            "interfaces": {
                one.interface: {"mode": one.mode, **({"reason": one.reason} if one.reason else {})}
                for one in sorted(self._served.values(), key=lambda one: one.interface)
            },
        }

    def _leave_to_tc(self, interface: Interface) -> None:
        """Also aloud, where somebody could have expected XDP."""
        if self._mode == OFF or interface.role is not Role.UPLINK or not interface.bridge:
            self.forget(interface.index)
            return
        if self._control.holds(interface.index):
            self._control.detach(interface.index)
        bridge = interface_name(interface.bridge)
        self._note(
            interface.index,
            Served(
                interface.name,
                TC,
                f"{interface.name} is a port of the bridge {bridge}, by which XDP cannot send: "
                "what it sent on would go past the bridge's other ports and its addresses. "
                "For XDP, give the node's address to the network card itself.",
            ),
        )

    def _belongs(self, interface: Interface) -> bool:
        return interface.xdp is not None and self._mode != OFF

    def _note(self, index: int, served: Served) -> None:
        if self._served.get(index) == served:
            return
        self._served[index] = served
        if not served.reason:
            self._log.info("XDP attached", interface=served.interface, mode=served.mode)
            return
        tell = self._log.info if self._mode == AUTO else self._log.warning
        tell("no XDP here, TC does it all", interface=served.interface, reason=served.reason)
