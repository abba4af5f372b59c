"""Programs at interfaces' own hooks: in front of others, by links that outlive the agent."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from ebpf_lb.datapath.attach.hooks import HookControl
from ebpf_lb.datapath.attach.tc import TrafficControl
from ebpf_lb.datapath.attach.tcx import TcxControl, supported
from ebpf_lb.datapath.cleanup import cleanup
from ebpf_lb.datapath.libbpf import InterfaceHook, Link, Program, programs_at
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.model.values import Family

from ..capabilities import BPF, BPFFS, NETNS, ROOT, TCX, needs
from .pinned import load_program, pins
from .test_attach import cache, ifindex, pin_programs, tc

pytestmark = needs(ROOT, BPF, BPFFS, NETNS, TCX)

__all__ = ["cache", "ifindex"]  # fixtures

PASS = 0  # TCX_PASS: ends the chain
EVERYTHING = ["ipv4/pod_egress", "ipv4/pod_ingress", "ipv6/pod_egress", "ipv6/pod_ingress"]


@pytest.fixture
def node() -> Iterator[Pins]:
    with pins("tcx") as where:
        yield where


def program_id(build: Build, family: Family, name: str) -> int:
    with Program.open(build.programs(family) / name) as program:
        return program.info().id


def ours(build: Build, hook: InterfaceHook) -> list[int]:
    return [program_id(build, family, f"pod_{hook.name.lower()}") for family in Family]


def at_work(ifindex: int) -> dict[InterfaceHook, list[int]]:
    return {hook: programs_at(ifindex, hook) for hook in InterfaceHook}


def test_the_kernel_says_whether_it_can() -> None:
    assert supported()


def test_both_hooks_and_families_in_front_of_others(node: Pins, ifindex: int) -> None:
    """Also of a program that is there already and ends the chain, and without any qdisc."""
    build = pin_programs(node, "one")
    with (
        load_program("foreign", PASS) as program,
        Link.attach_interface(program, ifindex, InterfaceHook.INGRESS),
    ):
        foreign = program.info().id
        with HookControl(node) as control:
            assert control.kind == "tcx"
            control.use(build)
            assert control.attach(ifindex)
            assert at_work(ifindex) == {
                InterfaceHook.INGRESS: [*ours(build, InterfaceHook.INGRESS), foreign],
                InterfaceHook.EGRESS: ours(build, InterfaceHook.EGRESS),
            }
            assert control.ahead_of_us(ifindex) == [] and control.missing(ifindex) == []
        assert "clsact" not in tc("qdisc", "show", "dev", "d0")
        # the agent is gone, and they stay
        assert at_work(ifindex)[InterfaceHook.INGRESS][:2] == ours(build, InterfaceHook.INGRESS)


def test_a_new_build_takes_the_old_ones_place(node: Pins, ifindex: int) -> None:
    for build in (pin_programs(node, "old"), pin_programs(node, "new")):
        for _ in range(2):  # a second agent finds the first one's links
            with HookControl(node) as control:
                control.use(build)
                control.attach(ifindex)
            assert at_work(ifindex) == {hook: ours(build, hook) for hook in InterfaceHook}
    assert len(list(node.tcx.iterdir())) == 4


def test_a_program_that_comes_before_ours_is_named(node: Pins, ifindex: int) -> None:
    with HookControl(node) as control:
        control.use(pin_programs(node, "one"))
        control.attach(ifindex)
        assert control.disturbed([ifindex]) == set()
        with load_program("intruder", PASS) as program:
            link = Link.attach_interface(program, ifindex, InterfaceHook.EGRESS)
        assert control.disturbed([ifindex]) == {ifindex}
        assert control.disturbed([ifindex]) == set()
        (ahead,) = control.ahead_of_us(ifindex)
        assert (ahead.direction, ahead.name) == ("egress", "intruder")
        link.close()
        assert control.disturbed([ifindex]) == {ifindex}
        assert control.ahead_of_us(ifindex) == []


def test_what_somebody_detached_is_missing(node: Pins, ifindex: int) -> None:
    build = pin_programs(node, "one")
    with HookControl(node) as control:
        control.use(build)
        assert sorted(control.missing(ifindex)) == EVERYTHING
        control.attach(ifindex)
        with Link.open(node.tcx / f"{ifindex}-ingress-ipv4") as link:
            link.detach()
        assert control.disturbed([ifindex]) == {ifindex}
        assert control.missing(ifindex) == ["ipv4/pod_ingress"]
        control.attach(ifindex)
        assert control.missing(ifindex) == []
        assert at_work(ifindex) == {hook: ours(build, hook) for hook in InterfaceHook}
        subprocess.run(["ip", "link", "del", "d0"], check=True)
        assert control.missing(ifindex) == [], "its end is not a loss"
        assert not control.attach(ifindex)
        assert list(node.tcx.iterdir()) == []


def test_lost_pins_are_made_again(node: Pins, ifindex: int) -> None:
    build = pin_programs(node, "one")
    with HookControl(node) as control:
        control.use(build)
        control.attach(ifindex)
        shutil.rmtree(node.tcx)
        assert at_work(ifindex) == {hook: ours(build, hook) for hook in InterfaceHook}
        assert control.disturbed([ifindex]) == {ifindex}
        assert control.missing(ifindex) == []
        assert control.disturbed([ifindex]) == set()
    assert at_work(ifindex) == {hook: ours(build, hook) for hook in InterfaceHook}


def test_a_role_without_a_hook_takes_it_off(node: Pins, ifindex: int) -> None:
    build = pin_programs(node, "one")
    with load_program("loopback_egress", -1) as program:
        program.pin(build.programs(Family.IPV4) / "loopback_egress")
        number = program.info().id
    with HookControl(node) as control:
        control.use(build, "pod")
        control.use(build, "loopback")
        control.attach(ifindex, "pod")
        control.attach(ifindex, "loopback")
        assert at_work(ifindex) == {InterfaceHook.INGRESS: [], InterfaceHook.EGRESS: [number]}
        control.attach(ifindex, "pod")
        for hook, programs in at_work(ifindex).items():
            assert sorted(programs) == sorted(ours(build, hook))


def test_a_number_that_another_interface_had(node: Pins, ifindex: int) -> None:
    build = pin_programs(node, "one")
    with HookControl(node) as control:
        control.use(build)
        control.attach(ifindex)
    subprocess.run(["ip", "link", "del", "d0"], check=True)
    subprocess.run(["ip", "link", "add", "d2", "index", str(ifindex), "type", "veth"], check=True)
    assert socket.if_nametoindex("d2") == ifindex
    with HookControl(node) as control:
        control.use(build)
        control.attach(ifindex)
        assert at_work(ifindex) == {hook: ours(build, hook) for hook in InterfaceHook}


@pytest.mark.parametrize("kinds", [("clsact", "tcx"), ("tcx", "clsact")], ids="-".join)
def test_from_one_kind_to_the_other_without_a_gap(
    node: Pins, ifindex: int, kinds: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade of an agent that attached filters, and back: never neither."""
    build = pin_programs(node, "one")

    def both() -> tuple[int, int]:
        with TrafficControl() as filters:
            at_filters = sum(one.ours for one in filters.filters(ifindex))
        return at_filters, sum(map(len, at_work(ifindex).values()))

    with HookControl(node, kind=kinds[0]) as control:
        control.use(build)
        control.attach(ifindex)
    assert both() == ((4, 0) if kinds[0] == "clsact" else (0, 4))
    seen = []
    old = TrafficControl if kinds[0] == "clsact" else TcxControl
    detach = old.detach

    def watched(self: TrafficControl | TcxControl, index: int) -> int:
        seen.append(both())
        return detach(self, index)  # type: ignore[arg-type]

    monkeypatch.setattr(old, "detach", watched)
    with HookControl(node, kind=kinds[1]) as control:
        control.use(build)
        control.attach(ifindex)
        control.attach(ifindex)
    assert seen == [(4, 4)]
    assert both() == ((4, 0) if kinds[1] == "clsact" else (0, 4))


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_the_bandwidth_plugins_qdisc_in_either_order(node: Pins, ifindex: int, first: str) -> None:
    """CNI's plugin puts an `ingress` qdisc on the host's end of a pod's wire, with a filter that
    leads to a device that shapes."""

    def theirs() -> None:
        subprocess.run(["ip", "link", "add", "shaper", "type", "ifb"], check=True)
        tc("qdisc", "add", "dev", "d0", "ingress")
        words = "filter add dev d0 parent ffff: protocol all u32 match u32 0 0"
        tc(*f"{words} action mirred egress redirect dev shaper".split())

    build = pin_programs(node, "one")
    with HookControl(node) as control:
        control.use(build)
        if first == "theirs":
            theirs()
        control.attach(ifindex)
        if first == "ours":
            theirs()
        assert at_work(ifindex) == {hook: ours(build, hook) for hook in InterfaceHook}
        assert control.missing(ifindex) == [] and control.ahead_of_us(ifindex) == []
        control.detach(ifindex)
    assert "mirred" in tc("filter", "show", "dev", "d0", "ingress")


def test_cleanup_takes_links_off(node: Pins, ifindex: int) -> None:
    build = pin_programs(node, "one")
    with HookControl(node) as control:
        control.use(build)
        control.attach(ifindex)
    (node.root / "current").symlink_to(os.path.relpath(build.path, node.root))
    assert cleanup(node.root).filters == 4
    assert at_work(ifindex) == {InterfaceHook.INGRESS: [], InterfaceHook.EGRESS: []}
    assert not cleanup(node.root)
