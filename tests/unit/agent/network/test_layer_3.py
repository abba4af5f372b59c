"""Programs for devices without Ethernet header are loaded when there is such a device."""

import pytest

from ebpf_lb.agent.network.layer_3 import OnDemand
from ebpf_lb.datapath.attach.errors import AttachError
from ebpf_lb.datapath.loader import LoaderError
from tests.unit.agent.fakes import Control


def test_not_before_the_first_one_and_once() -> None:
    calls: list[str] = []
    hooks = OnDemand(Control(calls), lambda: calls.append("load"))
    assert hooks.attach(4, "pod") and hooks.attach(2, "uplink")
    assert calls == ["attach pod 4", "attach uplink 2"]
    assert hooks.attach(5, "l3") and hooks.attach(6, "l3")
    assert calls[2:] == ["load", "attach l3 5", "attach l3 6"]


def test_a_refusal_is_not_asked_for_again() -> None:
    tried = []

    def refuse() -> None:
        tried.append(1)
        raise LoaderError("the kernel refuses l3_ingress")

    hooks = OnDemand(Control([]), refuse)
    for _ in range(3):
        with pytest.raises(AttachError, match="the kernel refuses l3_ingress"):
            hooks.attach(5, "l3")
    assert len(tried) == 1
    assert hooks.attach(2, "uplink")
