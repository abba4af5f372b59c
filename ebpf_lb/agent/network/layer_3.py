"""TC hooks, with programs for devices without Ethernet header (WireGuard, IP-in-IP, tun) that are
loaded when there is such a device: most nodes have none, and their agents start sooner.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from ebpf_lb.agent.network.attachments import Control
from ebpf_lb.agent.network.roles import LAYER_3_PROGRAMS, Facts, Framing
from ebpf_lb.datapath.attach.errors import AttachError, NotYetError
from ebpf_lb.datapath.attach.tcx import Foreign
from ebpf_lb.datapath.loader import LoaderError


def wanted(facts: Facts) -> bool:
    """Is there such a device already?"""
    return any(link.up and link.framing is Framing.NONE for link in facts.links.values())


class OnDemand:
    """`control`: the hooks. `load`: brings those programs into the kernel, or says with LoaderError
    why not; `use`: has `control` know them."""

    def __init__(self, control: Control, load: Callable[[], None], use: Callable[[], None]) -> None:
        self._control = control
        self._load = load
        self._use = use
        self._loading: Future[None] | None = None
        self._in_use = False

    def attach(self, ifindex: int, role: str = "pod") -> bool:
        """As the control's. NotYetError: the first device of the kind has just come, and programs
        for it are being loaded. That takes seconds, for which Services do not wait."""
        if role == LAYER_3_PROGRAMS and not self._in_use:
            if self._loading is None:
                self._loading = Future()
                threading.Thread(target=self._run, name="loader", daemon=True).start()
            self._come_into_use(self._loading)
        return self._control.attach(ifindex, role)

    def prepare(self) -> None:
        """At the agent's start, where what runs at the hooks must be replaced before older programs
        are let go of: as long as it takes. What is refused, `attach` will say."""
        self._loading = Future()
        self._run()

    def missing(self, ifindex: int, role: str = "pod") -> list[str]:
        return self._control.missing(ifindex, role)

    def detach(self, ifindex: int) -> int:
        return self._control.detach(ifindex)

    def disturbed(self, interfaces: Iterable[int]) -> set[int]:
        return self._control.disturbed(interfaces)

    def ahead_of_us(self, ifindex: int) -> Iterable[Foreign]:
        return self._control.ahead_of_us(ifindex)

    def _run(self) -> None:
        assert self._loading is not None
        try:
            self._load()
        except Exception as error:
            self._loading.set_exception(error)
        else:
            self._loading.set_result(None)

    def _come_into_use(self, loading: "Future[None]") -> None:
        """What the kernel has refused it would refuse again, so it is asked once."""
        if not loading.done():
            raise NotYetError("programs for devices without Ethernet header are being loaded")
        try:
            loading.result()
        except LoaderError as error:
            raise AttachError(str(error)) from error
        self._use()
        self._in_use = True
