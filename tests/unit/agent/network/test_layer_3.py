"""Programs for devices without Ethernet header are loaded when there is such a device."""

import threading
import time
from collections.abc import Callable

import pytest

from ebpf_lb.agent.network.layer_3 import OnDemand, wanted
from ebpf_lb.agent.network.roles import Facts, Framing, Link
from ebpf_lb.datapath.attach.errors import AttachError, NotYetError
from ebpf_lb.datapath.loader import LoaderError
from tests.unit.agent.fakes import Control


def attached_soon(hooks: OnDemand, ifindex: int) -> bool:
    """Tries as often as the agent would, only faster."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            return hooks.attach(ifindex, "l3")
        except NotYetError:
            time.sleep(0.01)
    return False


def test_nobody_waits_for_what_the_first_one_needs() -> None:
    calls: list[str] = []
    go_on = threading.Event()

    def load() -> None:
        assert go_on.wait(60)
        calls.append("load")

    hooks = OnDemand(Control(calls), load, lambda: calls.append("use"))
    for _ in range(3):
        with pytest.raises(NotYetError):
            hooks.attach(5, "l3")
    assert hooks.attach(4, "pod") and hooks.attach(2, "uplink")
    assert calls == ["attach pod 4", "attach uplink 2"]
    go_on.set()
    assert attached_soon(hooks, 5) and hooks.attach(6, "l3")
    assert calls[2:] == ["load", "use", "attach l3 5", "attach l3 6"]


def test_prepared_at_the_start() -> None:
    calls: list[str] = []
    hooks = OnDemand(Control(calls), lambda: calls.append("load"), lambda: calls.append("use"))
    hooks.prepare()
    assert hooks.attach(5, "l3")
    assert calls == ["load", "use", "attach l3 5"]


@pytest.mark.parametrize("start", [OnDemand.prepare, lambda hooks: None], ids=["start", "later"])
def test_a_refusal_is_not_asked_for_again(start: Callable[[OnDemand], None]) -> None:
    tried = []

    def refuse() -> None:
        tried.append(1)
        raise LoaderError("the kernel refuses l3_ingress")

    hooks = OnDemand(Control([]), refuse, lambda: None)
    start(hooks)
    for _ in range(3):
        with pytest.raises(AttachError, match="the kernel refuses l3_ingress"):
            attached_soon(hooks, 5)
    assert len(tried) == 1
    assert hooks.attach(2, "uplink")


@pytest.mark.parametrize(
    ("framing", "up", "expected"),
    [(Framing.NONE, True, True), (Framing.NONE, False, False), (Framing.ETHERNET, True, False)],
)
def test_wanted(framing: Framing, up: bool, expected: bool) -> None:
    device = Link(5, "tunl0", "ipip", 0, False, framing=framing, up=up)
    assert wanted(Facts({5: device})) is expected
