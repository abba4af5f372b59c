"""Attaching on the running kernel: replace, leave others alone, clean up twice."""

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from ebpf_lb.agent.host.process import be_the_only_one
from ebpf_lb.cli.main import main
from ebpf_lb.datapath.accept_local import SETTING, accept_local
from ebpf_lb.datapath.attach.cgroup import attach_cgroup, lost_links
from ebpf_lb.datapath.attach.errors import AttachError
from ebpf_lb.datapath.attach.tc import PREFERENCE, Direction, TrafficControl
from ebpf_lb.datapath.libbpf import CgroupHook, Link, Program
from ebpf_lb.datapath.pins import Build, Pins
from ebpf_lb.errors import UserError
from ebpf_lb.model.values import Family

from ..capabilities import BPF, BPFFS, CGROUP2, NETNS, ROOT, needs
from .pinned import load_program, pins

pytestmark = needs(ROOT, BPF, BPFFS, NETNS, CGROUP2)

NAMESPACE = f"eblb-test-d-{os.getpid()}"
NEXT = -1  # TC_ACT_UNSPEC: on to the next filter


@pytest.fixture
def ifindex() -> Iterator[int]:
    """An interface in a namespace of its own, which this thread is in meanwhile."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        inside = os.open(f"/run/netns/{NAMESPACE}", os.O_RDONLY)
        setns(inside)
        os.close(inside)
        subprocess.run(["ip", "link", "add", "d0", "type", "veth", "peer", "d1"], check=True)
        yield socket.if_nametoindex("d0")
    finally:
        setns(home)
        os.close(home)
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cleanup` removes it: not the one that other tests find their programs in."""
    monkeypatch.setenv("EBPF_LB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def node() -> Iterator[Pins]:
    with pins("attach") as where:
        yield where


@pytest.fixture
def cgroup() -> Iterator[Path]:
    line = next(
        line
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.split()[2] == "cgroup2"
    )
    folder = Path(line.split()[1]) / f"ebpf-lb-test-d-{os.getpid()}"
    folder.mkdir()
    yield folder
    folder.rmdir()


def setns(fd: int) -> None:
    assert ctypes.CDLL(None).setns(fd, 0x40000000) == 0


def tc(*arguments: str) -> str:
    return subprocess.run(["tc", *arguments], check=True, capture_output=True, text=True).stdout


def pin_programs(where: Pins, name: str, result: int = NEXT) -> Build:
    build = where.build(name)
    for family in Family:
        build.programs(family).mkdir(parents=True)
        for program in ("pod_ingress", "pod_egress"):
            with load_program(program, result) as loaded:
                loaded.pin(build.programs(family) / program)
    return build


def test_both_hooks_and_families(node: Pins, ifindex: int) -> None:
    with TrafficControl() as control:
        control.use(pin_programs(node, "one"))
        assert control.attach(ifindex)
        found = [(one.direction, one.preference, one.protocol) for one in control.filters(ifindex)]
    assert found == [
        (direction, PREFERENCE + more, protocol)
        for direction in (Direction.INGRESS, Direction.EGRESS)
        for more, protocol in ((0, 0x0800), (1, 0x86DD))
    ]
    assert "direct-action" in tc("filter", "show", "dev", "d0", "ingress")


def test_a_new_build_replaces_the_old_one(node: Pins, ifindex: int) -> None:
    old, new = pin_programs(node, "old"), pin_programs(node, "new")
    with TrafficControl() as control:
        for build in (old, new, new):
            control.use(build)
            assert control.attach(ifindex)
            with Program.open(build.programs(Family.IPV4) / "pod_ingress") as program:
                number = program.info().id
            shown = tc("filter", "show", "dev", "d0", "ingress")
            assert f"id {number} " in shown
            assert shown.count("direct-action") == 2


def test_a_role_that_changes_changes_the_programs(node: Pins, ifindex: int) -> None:
    build = pin_programs(node, "one")
    with TrafficControl() as control:
        control.use(build, "pod")
        control.use(build, "uplink")  # this build has none
        assert control.attach(ifindex, "pod")
        assert control.attach(ifindex, "uplink")
        assert control.filters(ifindex) == []
        for family in Family:
            with load_program("uplink_ingress", NEXT) as loaded:
                loaded.pin(build.programs(family) / "uplink_ingress")
            with load_program("uplink_egress", NEXT) as loaded:
                loaded.pin(build.programs(family) / "uplink_egress")
        control.use(build, "uplink")
        for role in ("uplink", "pod", "uplink"):
            assert control.attach(ifindex, role)
            assert {one.name for one in control.filters(ifindex)} == {
                f"ebpf-lb/{role}_ingress", f"ebpf-lb/{role}_egress",
            }  # fmt: skip
            assert len(control.filters(ifindex)) == 4


def test_foreign_filters_are_reported_and_left(node: Pins, ifindex: int) -> None:
    tc("qdisc", "add", "dev", "d0", "clsact")
    with load_program("foreign", 0) as program:
        foreign = node.root / "foreign"
        program.pin(foreign)
    for preference in ("5", "60000"):
        tc(
            *f"filter add dev d0 ingress pref {preference} protocol all bpf da".split(),
            "object-pinned",
            str(foreign),
        )
    with TrafficControl() as control:
        control.use(pin_programs(node, "one"))
        control.attach(ifindex)
        (ahead,) = control.ahead_of_us(ifindex)
        assert (ahead.preference, ahead.kind, ahead.ours) == (5, "bpf", False)
        assert control.detach(ifindex) == 4
        assert [one.preference for one in control.filters(ifindex)] == [5, 60000]
        assert control.detach(ifindex) == 0
    assert "clsact" in tc("qdisc", "show", "dev", "d0")


def test_clsact_goes_when_only_we_used_it(node: Pins, ifindex: int) -> None:
    with TrafficControl() as control:
        control.use(pin_programs(node, "one"))
        control.attach(ifindex)
        control.detach(ifindex)
    assert "clsact" not in tc("qdisc", "show", "dev", "d0")


def test_an_interface_that_has_gone(node: Pins, ifindex: int) -> None:
    with TrafficControl() as control:
        control.use(pin_programs(node, "one"))
        assert not control.attach(ifindex + 1000)
        assert control.filters(ifindex + 1000) == []
        assert control.detach(ifindex + 1000) == 0


def test_what_somebody_removed_is_missing(node: Pins, ifindex: int) -> None:
    everything = [
        "ipv4/pod_ingress", "ipv4/pod_egress", "ipv6/pod_ingress", "ipv6/pod_egress",
    ]  # fmt: skip
    with TrafficControl() as control:
        control.use(pin_programs(node, "one"))
        assert sorted(control.missing(ifindex)) == sorted(everything)
        control.attach(ifindex)
        assert control.missing(ifindex) == []
        tc(*f"filter del dev d0 ingress pref {PREFERENCE}".split())
        assert control.missing(ifindex) == ["ipv4/pod_ingress"]
        control.attach(ifindex)
        tc("qdisc", "replace", "dev", "d0", "clsact")
        assert control.missing(ifindex) == []
        tc("qdisc", "del", "dev", "d0", "clsact")
        assert sorted(control.missing(ifindex)) == sorted(everything)
        control.attach(ifindex)
        assert control.missing(ifindex) == []
        subprocess.run(["ip", "link", "del", "d0"], check=True)
        assert control.missing(ifindex) == [], "its end is not a loss"


def test_somebody_elses_ingress_qdisc_is_named(node: Pins, ifindex: int) -> None:
    tc("qdisc", "add", "dev", "d0", "ingress")
    with TrafficControl() as control:
        control.use(pin_programs(node, "one"))
        with pytest.raises(AttachError, match=r"Cannot attach to d0: .*`ingress` qdisc"):
            control.attach(ifindex)


def pin_cgroup_programs(where: Pins, name: str) -> Build:
    build = where.build(name)
    hooks = {
        Family.IPV4: {"connect4": CgroupHook.INET4_CONNECT, "connect6": CgroupHook.INET6_CONNECT},
        Family.IPV6: {"connect6": CgroupHook.INET6_CONNECT},
    }
    for family, programs in hooks.items():
        build.programs(family).mkdir(parents=True)
        for program, hook in programs.items():
            with load_program(program, 1, hook) as loaded:
                loaded.pin(build.programs(family) / program)
    return build


def test_cgroup_links_are_updated_in_place(node: Pins, cgroup: Path) -> None:
    names = ["ipv4-connect4", "ipv4-connect6", "ipv6-connect6"]
    ids = []
    for name in ("old", "new", "new"):
        build = (
            node.build(name) if node.build(name).path.exists() else pin_cgroup_programs(node, name)
        )
        assert attach_cgroup(build, node.links, cgroup) == names
        with Program.open(build.programs(Family.IPV4) / "connect4") as program:
            number = program.info().id
        with Link.open(node.links / "ipv4-connect4") as link:
            info = link.info()
        assert (info.program_id, info.cgroup_id) == (number, cgroup.stat().st_ino)
        ids.append(info.id)
    assert len(set(ids)) == 1, "a link was made anew"


def test_another_cgroup_and_a_program_that_has_gone(node: Pins, cgroup: Path) -> None:
    build = pin_cgroup_programs(node, "one")
    attach_cgroup(build, node.links, cgroup)
    other = cgroup / "inner"
    other.mkdir()
    try:
        (build.programs(Family.IPV6) / "connect6").unlink()
        assert attach_cgroup(build, node.links, other) == ["ipv4-connect4", "ipv4-connect6"]
        assert sorted(pin.name for pin in node.links.iterdir()) == [
            "ipv4-connect4",
            "ipv4-connect6",
        ]
        with Link.open(node.links / "ipv4-connect4") as link:
            assert link.info().cgroup_id == other.stat().st_ino
    finally:
        other.rmdir()


def test_links_that_somebody_removed_are_lost_and_made_again(node: Pins, cgroup: Path) -> None:
    build = pin_cgroup_programs(node, "one")
    names = attach_cgroup(build, node.links, cgroup)
    assert lost_links(node.links, names) == []
    (node.links / "ipv4-connect4").unlink()
    with Link.open(node.links / "ipv6-connect6") as link:
        link.detach()
    assert lost_links(node.links, names) == ["ipv4-connect4", "ipv6-connect6"]
    assert attach_cgroup(build, node.links, cgroup) == names
    assert lost_links(node.links, names) == []


def test_a_folder_that_is_no_cgroup(node: Pins, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a cgroup of version 2"):
        attach_cgroup(pin_cgroup_programs(node, "one"), node.links, tmp_path)


def test_cleanup_removes_every_trace_twice(node: Pins, ifindex: int, cgroup: Path) -> None:
    with TrafficControl() as control:
        control.use(pin_programs(node, "one"))
        control.attach(ifindex)
    build = pin_cgroup_programs(node, "sockets")
    attach_cgroup(build, node.links, cgroup)
    node.current.path.symlink_to("builds/one")
    # somebody has this one open, and its pin is lost
    held = Link.open(node.links / "ipv6-connect6")
    (node.links / "ipv6-connect6").unlink()
    for said in ("Removed 4 filters, 0 XDP programs, 3 cgroup links,", "Nothing to remove."):
        arguments = ["cleanup", "--bpffs", str(node.root), "--cgroup", str(cgroup)]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        assert said in result.output
        assert not node.root.exists()
    assert held.info().cgroup_id == 0, "still attached"
    held.close()
    assert "clsact" not in tc("qdisc", "show", "dev", "d0")


@pytest.mark.parametrize("before", ["0", "1"])
def test_cleanup_restores_what_loopback_accepted(node: Pins, ifindex: int, before: str) -> None:
    SETTING.write_text(before)
    for _ in range(2):  # a restart finds our own value, which is not what to restore
        accept_local(node)
        assert SETTING.read_text().strip() == "1"
    for _ in range(2):
        arguments = ["cleanup", "--bpffs", str(node.root)]
        assert CliRunner().invoke(main, arguments, catch_exceptions=False).exit_code == 0
        assert SETTING.read_text().strip() == before


def test_cleanup_leaves_a_running_agent_alone(node: Pins, ifindex: int) -> None:
    """It would put its programs back, without what is pinned."""
    with TrafficControl() as control:
        control.use(pin_programs(node, "one"))
        control.attach(ifindex)
        with be_the_only_one(node.root):
            result = CliRunner().invoke(main, ["cleanup", "--bpffs", str(node.root)])
        assert result.exit_code == 1
        assert f"An agent runs on this node with the maps in {node.root}" in result.output
        assert control.missing(ifindex) == []


def test_cleanup_refuses_a_folder_that_is_not_bpffs(tmp_path: Path) -> None:
    (tmp_path / "builds").mkdir()
    result = CliRunner().invoke(main, ["cleanup", "--bpffs", str(tmp_path)])
    assert result.exit_code == 1
    assert "is not in bpffs" in result.output
    assert (tmp_path / "builds").exists()
