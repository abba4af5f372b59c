"""A lab whose cluster DNS is CoreDNS: the program that the rig builds."""

import io
import os

import pytest

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from ebpf_lb.lessons.tutorial import course
from tests.capabilities import LAB, needs
from tests.cluster.test_kubernetes import PROGRAMS, THE_PROGRAMS

pytestmark = needs(*LAB, THE_PROGRAMS)


def test_the_tutorials_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COREDNS", str(PROGRAMS / "coredns"))
    lab = Lab(f"t{os.getpid()}dns")
    try:
        lab.up(Options(nodes=1), progress=lambda *_: None)
        course.run(lab, course.find("dns"), io.StringIO())
        [first, *_] = (pod for pod in lab.pods() if pod.namespace == "kube-system")
        said = lab.log(f"pods/{first.namespace}_{first.name}").read_text()
        assert "CoreDNS-" in said
    finally:
        lab.down()
