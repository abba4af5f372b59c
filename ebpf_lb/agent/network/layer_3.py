"""TC hooks, with programs for devices without Ethernet header (WireGuard, IP-in-IP, tun) that are
loaded when the first such device appears: most nodes have none, and their agents start sooner.
"""

from collections.abc import Callable, Iterable
from typing import Any

from ebpf_lb.agent.network.attachments import Control
from ebpf_lb.agent.network.roles import LAYER_3_PROGRAMS
from ebpf_lb.datapath.attach.errors import AttachError
from ebpf_lb.datapath.loader import LoaderError


class OnDemand:
    """`control`: the hooks. `load`: has it know those programs; LoaderError. That takes seconds,
    in which the data path works on and changes to Services wait."""

    def __init__(self, control: Control, load: Callable[[], None]) -> None:
        self._control = control
        self._load = load
        self._loaded = False
        self._refusal = ""

    def attach(self, ifindex: int, role: str = "pod") -> bool:
        if role == LAYER_3_PROGRAMS and not self._loaded:
            self._load_once()
        return self._control.attach(ifindex, role)

    def detach(self, ifindex: int) -> int:
        return self._control.detach(ifindex)

    def ahead_of_us(self, ifindex: int) -> Iterable[Any]:
        return self._control.ahead_of_us(ifindex)

    def _load_once(self) -> None:
        """What the kernel has refused it would refuse again."""
        if self._refusal:
            raise AttachError(self._refusal)
        try:
            self._load()
        except LoaderError as error:
            self._refusal = str(error)
            raise AttachError(self._refusal) from error
        self._loaded = True
