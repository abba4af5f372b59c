"""XDP on real interfaces: put on, replaced, taken off, and never in anybody's way."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from pyroute2.netlink.rtnl import RTMGRP_LINK
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from ebpf_lb.cli.main import main
from ebpf_lb.datapath.attach.xdp import (
    PROGRAM,
    Attached,
    Mode,
    XdpControl,
    XdpRefusedError,
    attached_programs,
)
from ebpf_lb.datapath.layout import load as load_layout
from ebpf_lb.datapath.libbpf import Program
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.lab import namespaces
from ebpf_lb.model.values import Family

from ..capabilities import BPF, BPFFS, NETNS, ROOT, needs
from .pinned import XDP, create_map, load_program, pins

pytestmark = needs(ROOT, BPF, BPFFS, NETNS)

NAMESPACE = Path(f"/run/netns/eblb-xdp-{os.getpid()}")
PASS = 2  # XDP_PASS
MODES = pytest.mark.parametrize("mode", [Mode.NATIVE, Mode.GENERIC])


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@pytest.fixture
def veth() -> Iterator[int]:
    """One end of a pair, in a namespace of its own, which this thread is in meanwhile."""
    namespaces.create(NAMESPACE)
    try:
        with namespaces.entered(NAMESPACE):
            ip("link add d0 type veth peer name d1")
            ip("link set d0 up")  # of others the kernel does not tell when they change
            yield socket.if_nametoindex("d0")
    finally:
        namespaces.remove(NAMESPACE)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cleanup` removes it: not the one that other tests find their programs in."""
    monkeypatch.setenv("EBPF_LB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def node() -> Iterator[Pins]:
    with pins("xdp") as where:
        yield where


@pytest.fixture
def foreign(node: Pins) -> Iterator[Callable[..., int]]:
    """Puts somebody else's program on an interface, and yields its id. It is called nearly as
    ours are, and like ours pinned, but elsewhere."""

    def attach(name: str = "xdp_ingress2", mode: str = "xdpdrv") -> int:
        path = node.root / name
        with load_program(name, PASS, kind=XDP) as program:
            program.pin(path)
            number = program.info().id
        ip(f"link set dev d0 {mode} pinned {path}")
        return number

    yield attach
    for path in node.root.glob("xdp_*"):
        path.unlink()


def pin_program(where: Pins, name: str) -> tuple[Build, int]:
    build = where.build(name)
    folder = build.programs(Family.IPV4)
    folder.mkdir(parents=True)
    with load_program(PROGRAM, PASS, kind=XDP) as program:
        program.pin(folder / PROGRAM)
        return build, program.info().id


def shown() -> str:
    return subprocess.run(
        ["ip", "link", "show", "d0"], check=True, capture_output=True, text=True
    ).stdout


@MODES
def test_on_and_off(node: Pins, veth: int, mode: Mode) -> None:
    build, number = pin_program(node, "one")
    with XdpControl(node) as control:
        control.use(build)
        assert control.attached(veth) == []
        for _ in range(2):
            assert control.attach(veth, mode)
            assert control.attached(veth) == [Attached(mode, number, PROGRAM, ours=True)]
            assert control.ours() == [veth]
        word = {"native": "xdp", "generic": "xdpgeneric"}[mode.value]
        assert f" {word}" in shown()
        assert f"prog/xdp id {number} " in shown()
        assert control.detach(veth) == 1
        assert control.detach(veth) == 0
        assert control.attached(veth) == control.ours() == []
    assert "prog/xdp" not in shown()


@MODES
def test_it_stays_when_we_are_gone_and_is_known_again(node: Pins, veth: int, mode: Mode) -> None:
    build, number = pin_program(node, "one")
    with XdpControl(node) as control:
        control.use(build)
        control.attach(veth, mode)
    assert f"prog/xdp id {number} " in shown()
    with XdpControl(node) as again:
        assert [one.ours for one in again.attached(veth)] == [True]


@MODES
def test_a_new_build_replaces_the_old_one_in_one_step(node: Pins, veth: int, mode: Mode) -> None:
    (old, _), (new, number) = pin_program(node, "old"), pin_program(node, "new")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as events:
        events.bind((0, RTMGRP_LINK))
        events.settimeout(5)
        with XdpControl(node) as control:
            control.use(old)
            control.attach(veth, mode)
            control.use(new)
            control.attach(veth, mode)
        ip("link set dev d0 alias end")
        told = []  # every state that anybody could see
        while not told or told[-1][0] != "end":
            for message in MarshalRtnl().parse(events.recv(1 << 16)):
                if message["index"] == veth:
                    alias = message.get_attr("IFLA_IFALIAS")
                    told.append((alias, bool(attached_programs(message))))
        assert [one.program_id for one in XdpControl(node).attached(veth)] == [number]
    assert len(told) >= 3
    assert all(attached for _, attached in told), "for an instant there was none"


def test_native_and_generic_take_turns(node: Pins, veth: int) -> None:
    build, number = pin_program(node, "one")
    newer, newest = pin_program(node, "two")
    with XdpControl(node) as control:
        control.use(build)
        for mode in (Mode.NATIVE, Mode.GENERIC, Mode.NATIVE):
            assert control.attach(veth, mode)
            assert control.attached(veth) == [Attached(mode, number, PROGRAM, ours=True)]
        control.use(newer)  # another mode and another build at once
        assert control.attach(veth, Mode.GENERIC)
        assert control.attached(veth) == [Attached(Mode.GENERIC, newest, PROGRAM, ours=True)]


@pytest.mark.parametrize("theirs", ["xdpdrv", "xdpgeneric"])
@MODES
def test_a_foreign_program_is_left_and_named(
    node: Pins, veth: int, foreign: Callable[..., int], mode: Mode, theirs: str
) -> None:
    number = foreign(mode=theirs)
    with XdpControl(node) as control:
        control.use(pin_program(node, "one")[0])
        with pytest.raises(XdpRefusedError) as caught:
            control.attach(veth, mode)
        sentence = str(caught.value)
        assert sentence.startswith(f"d0 has an XDP program 'xdp_ingress2' (id {number}) that is")
        assert "ip link set dev d0 xdp off" in sentence
        assert control.detach(veth) == 0
        assert control.ours() == []
        assert [(one.program_id, one.ours) for one in control.attached(veth)] == [(number, False)]


def test_one_of_our_name_that_is_not_ours(
    node: Pins, veth: int, foreign: Callable[..., int]
) -> None:
    number = foreign(name=PROGRAM)
    with XdpControl(node) as control:
        control.use(pin_program(node, "one")[0])
        with pytest.raises(XdpRefusedError, match=f"id {number}"):
            control.attach(veth, Mode.NATIVE)
        assert control.detach(veth) == 0


def between_look_and_request(
    control: XdpControl, act: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> tuple[Callable[[int], list[Attached]], list[int]]:
    """Has somebody attach a program as soon as `control` has looked. Returns how to look without
    that, and the list in which the program's number will be."""
    look, numbers = control.attached, list[int]()

    def slow(ifindex: int) -> list[Attached]:
        seen = look(ifindex)
        if not numbers:
            numbers.append(act())
        return seen

    monkeypatch.setattr(control, "attached", slow)
    return look, numbers


def test_somebody_who_comes_between_look_and_request(
    node: Pins, veth: int, foreign: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with XdpControl(node) as control:
        control.use(pin_program(node, "one")[0])
        look, numbers = between_look_and_request(control, foreign, monkeypatch)
        with pytest.raises(XdpRefusedError, match="is not ours"):
            control.attach(veth, Mode.NATIVE)
        assert [one.program_id for one in look(veth)] == numbers


def test_somebody_who_replaces_ours_between_look_and_request(
    node: Pins, veth: int, foreign: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = pin_program(node, "old")[0], pin_program(node, "new")[0]
    with XdpControl(node) as control:
        control.use(old)
        control.attach(veth, Mode.NATIVE)
        control.use(new)

        def replace() -> int:
            ip("link set dev d0 xdpdrv off")
            return foreign()

        look, numbers = between_look_and_request(control, replace, monkeypatch)
        with pytest.raises(XdpRefusedError, match="is not ours"):
            control.attach(veth, Mode.NATIVE)
        assert [one.program_id for one in look(veth)] == numbers


def test_an_orphan_of_ours_is_known_by_its_maps(node: Pins, veth: int) -> None:
    """The pins went with the folder; it would go on with maps that nobody fills."""
    declared = load_layout(Family.IPV4).maps
    with (
        create_map(declared["frontends"]) as frontends,
        create_map(declared["interfaces"]) as interfaces,
        load_program(PROGRAM, PASS, kind=XDP, maps=[frontends, interfaces]) as orphan,
    ):
        path = node.root / "xdp_lost"
        orphan.pin(path)
        ip(f"link set dev d0 xdpdrv pinned {path}")
        path.unlink()
    build, number = pin_program(node, "one")
    with XdpControl(node) as control:
        control.use(build)
        assert [one.ours for one in control.attached(veth)] == [True]
        assert control.attach(veth, Mode.NATIVE)
        assert [one.program_id for one in control.attached(veth)] == [number]


def test_a_driver_without_native_mode(node: Pins, veth: int) -> None:
    ip("link add br0 type bridge")
    bridge = socket.if_nametoindex("br0")
    with XdpControl(node) as control:
        control.use(pin_program(node, "one")[0])
        with pytest.raises(XdpRefusedError, match=r"^br0 takes no native XDP program: .*driver"):
            control.attach(bridge, Mode.NATIVE)
        assert control.attached(bridge) == []
        assert control.attach(bridge, Mode.GENERIC)
        # the mode that is refused leaves none of the other behind either
        with pytest.raises(XdpRefusedError):
            control.attach(bridge, Mode.NATIVE)
        assert control.attached(bridge) == []


def test_frames_too_large_for_a_page(node: Pins, veth: int) -> None:
    ip("link set d1 mtu 9000")
    with XdpControl(node) as control:
        control.use(pin_program(node, "one")[0])
        with pytest.raises(XdpRefusedError, match=r"^d0 takes no native XDP .* lower the MTU"):
            control.attach(veth, Mode.NATIVE)
        ip("link set d1 mtu 1500")
        assert control.attach(veth, Mode.NATIVE)


def test_an_interface_that_has_gone(node: Pins, veth: int) -> None:
    with XdpControl(node) as control:
        control.use(pin_program(node, "one")[0])
        control.attach(veth, Mode.NATIVE)
        ip("link del d0")
        assert not control.attach(veth, Mode.NATIVE)
        assert control.detach(veth) == 0
        assert control.attached(veth) == control.ours() == []


def test_a_build_without_the_program(node: Pins) -> None:
    with XdpControl(node) as control, pytest.raises(FileNotFoundError):
        control.use(node.build("none"))


@MODES
def test_cleanup_removes_ours_and_leaves_theirs(
    node: Pins, veth: int, foreign: Callable[..., int], mode: Mode
) -> None:
    build, _ = pin_program(node, "one")
    with XdpControl(node) as control:
        control.use(build)
        control.attach(veth, mode)
        ip("link add e0 type veth peer name e1")
        other = socket.if_nametoindex("e0")
        with load_program("xdp_other", PASS, kind=XDP) as program:
            program.pin(node.root / "xdp_other")
        ip(f"link set dev e0 xdpdrv pinned {node.root}/xdp_other")
        for said in ("1 XDP program", "Nothing to remove."):
            result = CliRunner().invoke(main, ["cleanup", "--bpffs", str(node.root)])
            assert result.exit_code == 0, result.output
            assert said in result.output
        assert control.attached(veth) == []
        assert [one.name for one in control.attached(other)] == ["xdp_other"]


def test_map_ids_are_those_that_the_program_names(node: Pins) -> None:
    declared = load_layout(Family.IPV4).maps
    with create_map(declared["frontends"]) as one, create_map(declared["interfaces"]) as two:
        with load_program("xdp_maps", PASS, kind=XDP, maps=[one, two]) as program:
            assert sorted(program.map_ids()) == sorted([one.info().id, two.info().id])
        with load_program("xdp_none", PASS, kind=XDP) as program:
            assert isinstance(program, Program)
            assert program.map_ids() == []
