"""Somebody removes our programs from a node's interfaces, from its cgroup, or their pins: the agent
puts back what it can, and says so.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from ebpf_lb.datapath.libbpf import InterfaceHook, Link, Program
from ebpf_lb.lab import namespaces
from ebpf_lb.lab.cluster import Lab
from tests.capabilities import TCX, needs
from tests.datapath.pinned import load_program
from tests.lab.conftest import Room, room_in
from tests.lab.small_node import NODE, counted, other_settings, page, restart
from tests.lab.test_outside import until
from tests.support.checker import Reaches, expect
from tests.support.manifests import deployment, service

NODE_PORT = 31097


@pytest.fixture(scope="module")
def web(shared_room: Room) -> Room:
    """`web` on node1, and an asker on the node."""
    made = service("web", type="NodePort")
    made["spec"]["ports"][0]["nodePort"] = NODE_PORT
    shared_room.apply(deployment("web", node="node1"), deployment("asker", node=NODE), made)
    return shared_room


def restored(lab: Lab, hook: str) -> float:
    return counted(lab, "ebpf_lb_hooks_restored_total", hook=hook)


def after(lab: Lab, hook: str, *words: str) -> None:
    """Runs that on the node, and waits until something was put back at that kind of hook."""
    before = restored(lab, hook)
    lab.exec(NODE, list(words), check=True)
    until(lambda: restored(lab, hook) > before, f"the agent does not notice `{' '.join(words)}`")


def reached(room: Room) -> None:
    """By the client outside, a pod of the node, and the node itself."""
    pods = Reaches(set(room.pods("web")))
    node = next(a for a in room.lab.node(NODE).addresses if ":" not in a)
    vip = room.lab.client.get(f"/api/v1/namespaces/{room.namespace}/services/web")
    cluster_ip = f"{vip['spec']['clusterIP']}:80/tcp"
    expect(room.lab, "client", f"{node}:{NODE_PORT}/tcp", pods)
    for source in (room.pod("asker"), NODE):
        expect(room.lab, source, cluster_ip, pods)


def interface_of(room: Room, app: str) -> str:
    """The node's end of a pod's wire."""
    # not by /sys: that of a process which enters the namespace alone is still the machine's
    shown = room.lab.exec(room.pod(app), ["ip", "-j", "link", "show", "eth0"], check=True).stdout
    links = room.lab.exec(NODE, ["ip", "-j", "link"], check=True).stdout
    [peer] = (link["link_index"] for link in json.loads(shown))
    return str(next(link["ifname"] for link in json.loads(links) if link["ifindex"] == peer))


def links(lab: Lab, interface: str) -> list[Path]:
    """Where an interface's links are pinned."""
    shown = lab.exec(NODE, ["ip", "-j", "link", "show", "dev", interface], check=True).stdout
    number = json.loads(shown)[0]["ifindex"]
    return sorted(Path(lab.node(NODE).bpffs, "tcx").glob(f"{number}-*"))


def noticed(lab: Lab, before: float) -> bool:
    return restored(lab, "tc") > before


@needs(TCX)
def test_links_of_interfaces(web: Room) -> None:
    lab, wire = web.lab, interface_of(web, "asker")
    for name in ("eth0", wire):
        before = restored(lab, "tc")
        assert len(links(lab, name)) == 4
        for pin in links(lab, name):
            with Link.open(pin) as link:
                link.detach()
        until(partial(noticed, lab, before), "the agent does not notice")
        reached(web)
    assert json.loads(page(lab, "/status"))["interfaceProblems"] == []


@needs(TCX)
@pytest.mark.parametrize("by", ["tcx", "clsact", "ingress"])
def test_who_ends_the_chain_behind_us_does_no_harm(web: Room, by: str) -> None:
    """Somebody's program at the uplink and the pods' wires, or a shaper's qdisc."""
    lab = web.lab
    names = ["eth0", interface_of(web, "asker")]
    if by == "tcx":
        with load_program("passes", 0) as program, ExitStack() as attached:
            for name in names:
                attached.enter_context(ahead_of_ours(lab, name, program))
                for pin in links(lab, name):  # ours come back, in front
                    with Link.open(pin) as ours:
                        ours.detach()
            until(lambda: not hook_problems(lab), "ours do not come in front again")
            reached(web)
        return
    pin = Path(f"/sys/fs/bpf/ebpf-lb-test-passes-{os.getpid()}")
    with load_program("passes", 0) as program:
        program.pin(pin)
    try:
        for name in names:
            lab.exec(NODE, ["tc", "qdisc", "add", "dev", name, by], check=True)
            words = f"tc filter add dev {name} ingress protocol all bpf da object-pinned {pin}"
            lab.exec(NODE, words.split(), check=True)
        reached(web)
        assert hook_problems(lab) == []
    finally:
        pin.unlink()
        for name in names:
            lab.exec(NODE, ["tc", "qdisc", "del", "dev", name, by], check=True)


def hook_problems(lab: Lab) -> list[str]:
    return list(json.loads(page(lab, "/status"))["hookProblems"])


def ahead_of_ours(lab: Lab, interface: str, program: Program) -> Link:
    number = int(links(lab, interface)[0].name.partition("-")[0])
    with namespaces.entered(lab.node(NODE).netns):
        return Link.attach_interface(program, number, InterfaceHook.INGRESS)


@needs(TCX)
def test_who_comes_before_us_is_named_until_he_goes(web: Room) -> None:
    lab = web.lab
    with load_program("hands_on", -1) as program, ahead_of_ours(lab, "eth0", program):
        until(lambda: bool(hook_problems(lab)), "the agent does not name it")
        (problem,) = hook_problems(lab)
        assert "eth0, ingress: the program hands_on runs before ours" in problem
        assert counted(lab, "ebpf_lb_hook_problems") == 1
        reached(web)
    until(lambda: not hook_problems(lab), "the agent does not notice that it is gone")


def test_filters_and_clsact(web: Room) -> None:
    """Where the kernel has no tcx; and back, without a gap."""
    lab, wire = web.lab, interface_of(web, "asker")
    with other_settings(lab, {"EBPF_LB_TC_HOOKS": "clsact"}):
        reached(web)
        after(lab, "tc", "tc", "filter", "del", "dev", "eth0", "ingress")
        after(lab, "tc", "tc", "qdisc", "del", "dev", wire, "clsact")
        reached(web)
        assert json.loads(page(lab, "/status"))["interfaceProblems"] == []
    reached(web)


def test_cgroup_links(web: Room) -> None:
    lab = web.lab
    pin = "links/ipv4-connect4"
    after(lab, "cgroup", "sh", "-c", f"rm $EBPF_LB_BPFFS/{pin}")
    lab.exec(NODE, ["sh", "-c", f"test -e $EBPF_LB_BPFFS/{pin}"], check=True)
    reached(web)


def test_pins(web: Room) -> None:
    """Forwarding goes on, and the next agent, which has to load anew, reaches the API server."""
    lab = web.lab
    folder = lab.exec(NODE, ["sh", "-c", "echo $EBPF_LB_BPFFS"], check=True).stdout.strip()
    shutil.rmtree(folder, ignore_errors=True)  # the folder itself is not ours to remove
    try:
        reached(web)
        until(
            lambda: "what is pinned" in str(json.loads(page(lab, "/status"))["hookProblems"]),
            "the agent does not say that its pins are gone",
        )
    finally:
        restart(lab)
    reached(web)
    assert json.loads(page(lab, "/status"))["hookProblems"] == []
    assert Path(folder, "links", "ipv4-connect4").exists()


@pytest.fixture
def native_room(native_lab: Lab, tmp_path: Path) -> Iterator[Room]:
    yield from room_in(native_lab, tmp_path)


def test_xdp(native_room: Room) -> None:
    lab = native_room.lab
    after(lab, "xdp", "ip", "link", "set", "dev", "eth0", "xdp", "off")
    shown = lab.exec(NODE, ["ip", "link", "show", "dev", "eth0"], check=True).stdout
    assert "xdp_ingress" in shown
    assert json.loads(page(lab, "/status"))["xdp"]["interfaces"]["eth0"] == {"mode": "native"}
