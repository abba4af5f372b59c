"""XDP on the nodes' uplinks: what it does, what it leaves to TC, and that it can come and go.

A client asks node2 for a pod of node1: node2 sends each packet on and each answer back, which needs
no stack. In this lab that is native XDP's work.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyroute2.ethtool.ioctl import IoctlEthtool

from ebpf_lb.lab.cluster import Lab
from tests.datapath.pinned import XDP, load_program
from tests.lab.conftest import EBPF_LB, Room, room_in, sent_by_xdp
from tests.support import load, stream
from tests.support.checker import SETTLED_S, Reaches, SourceSeen, expect, probe
from tests.support.manifests import deployment, service

STREAM = [sys.executable, str(Path(stream.__file__))]
FAMILIES = ("ipv4", "ipv6")
PORT, NODE_PORT = 80, 31090
MIRROR_PORT, MIRROR_NODE_PORT = 9000, 31091
MIB = 1 << 20

each_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def native(native_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """A lab with native XDP, and in it `web` and `mirror` on node1, as NodePorts."""
    lab = native_lab
    for room in room_in(lab, tmp_path_factory.mktemp("xdp")):
        web = service("web", protocols=("TCP", "UDP"), port=PORT, type="LoadBalancer")
        mirror = service(
            "mirror", protocols=("TCP", "UDP"), port=MIRROR_PORT, target_port=MIRROR_PORT,
            type="NodePort",
        )  # fmt: skip
        for made, number in ((web, NODE_PORT), (mirror, MIRROR_NODE_PORT)):
            for port in made["spec"]["ports"]:
                port["nodePort"] = number
        room.apply(deployment("web", node="node1"), deployment("mirror", node="node1"), web, mirror)
        server = lab.popen(
            room.pod("mirror"), [*STREAM, "mirror", str(MIRROR_PORT)], stdout=subprocess.PIPE
        )
        assert server.stdout is not None
        assert "ready" in str(server.stdout.readline())
        for family in FAMILIES:
            expect(lab, "client", web_at(lab, "node2", family), Reaches(set(room.pods("web"))))
        yield room
        server.kill()
        server.wait()
        server.stdout.close()
        use(lab, "native")  # others use this lab, too


def address_of(lab: Lab, node: str, family: str) -> str:
    return next(a for a in lab.node(node).addresses if (":" in a) == (family == "ipv6"))


def web_at(lab: Lab, node: str, family: str, protocol: str = "tcp") -> str:
    address = address_of(lab, node, family)
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{NODE_PORT}/{protocol}"


def status(lab: Lab, node: str) -> dict[str, Any]:
    done = lab.exec(node, ["curl", "-s", "http://127.0.0.1:10249/status"], check=True)
    return dict(json.loads(done.stdout))


def eth0(lab: Lab, node: str) -> dict[str, Any]:
    """How the node's agent says that the uplink is served."""
    return dict(status(lab, node)["xdp"]["interfaces"].get("eth0", {}))


def attached(lab: Lab, node: str) -> tuple[str, str]:
    """Mode and name of the XDP program on the uplink, as the kernel says."""
    shown = json.loads(lab.exec(node, ["ip", "-j", "link", "show", "eth0"], check=True).stdout)
    found = shown[0].get("xdp")
    if not found:
        return "", ""
    return {1: "native", 2: "generic"}[found["mode"]], found["prog"]["name"]


def until(wanted: Callable[[], Any], what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SETTLED_S
    while not wanted():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def restart(lab: Lab, node: str, mode: str) -> None:
    lab.stop_agent(node)
    lab.start_agent(node, mode)
    lab.wait_for_agents(only=node)  # its programs may have to be compiled


def use(lab: Lab, mode: str) -> None:
    """Node2's agent runs in that mode from here on."""
    if status(lab, "node2")["xdp"]["mode"] != mode:
        restart(lab, "node2", mode)


@contextmanager
def exchanging(room: Room, family: str) -> Iterator[None]:
    """One connection by node2, meanwhile: all that is sent must come back."""
    words = ["both", address_of(room.lab, "node2", family), str(MIRROR_NODE_PORT), "0"]
    sender = room.lab.popen(
        "client", [*STREAM, *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        to = f"[{words[1]}]" if family == "ipv6" else words[1]
        connected = ["ss", "-Htn", "state", "established", f"dst {to}:{MIRROR_NODE_PORT}"]
        until(
            lambda: room.lab.exec("client", connected, check=True).stdout,
            lambda: f"no connection to {words[1]}",
        )
        yield
        assert sender.poll() is None, sender.communicate()
        said, errors = sender.communicate("", timeout=120)
        assert sender.returncode == 0, errors
        assert int(said.split()[0]) > 0
    finally:
        sender.kill()
        sender.wait()


def test_every_node_says_and_shows_where_it_runs(native: Room) -> None:
    lab = native.lab
    for node in ("node1", "node2", "node3"):
        assert attached(lab, node) == ("native", "xdp_ingress")
        told = status(lab, node)
        assert told["xdp"] == {"mode": "native", "interfaces": {"eth0": {"mode": "native"}}}
        assert told["interfaceProblems"] == []
        metrics = lab.exec(node, ["curl", "-s", "http://127.0.0.1:10249/metrics"], check=True)
        assert 'ebpf_lb_xdp_interfaces{mode="native"} 1.0' in metrics.stdout
    done = subprocess.run(
        [EBPF_LB, "lab", "status", "--name", lab.name], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("healthy, native XDP on eth0") == 3


@each_family
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_remote_backends_and_their_replies_are_xdps_and_no_others(
    native: Room, family: str, protocol: str
) -> None:
    lab = native.lab
    tries = 20
    names = set(native.pods("web"))
    before = sent_by_xdp(lab, "node2", family)
    expect(lab, "client", web_at(lab, "node2", family, protocol), SourceSeen(
        {address_of(lab, "node2", family)}, tries=tries
    ))  # fmt: skip
    sent_on = sent_by_xdp(lab, "node2", family) - before
    least = {"tcp": 6, "udp": 2}[protocol]  # packets of one connection, both ways
    assert sent_on >= least * tries, f"only {sent_on} packets"
    before = sent_by_xdp(lab, "node1", family)
    expect(lab, "client", web_at(lab, "node1", family, protocol), Reaches(names))
    assert sent_by_xdp(lab, "node1", family) == before, "a pod of this node is the stack's to reach"


@each_family
def test_a_load_balancers_address(native: Room, family: str) -> None:
    lab = native.lab
    path = f"/api/v1/namespaces/{native.namespace}/services/web"
    ingress = lab.client.get(path)["status"]["loadBalancer"]["ingress"]
    address = next(each["ip"] for each in ingress if (":" in each["ip"]) == (family == "ipv6"))
    host = f"[{address}]" if family == "ipv6" else address
    lab.route(address, "node3")
    try:
        before = sent_by_xdp(lab, "node3", family)
        for protocol in ("tcp", "udp"):
            to = f"{host}:{PORT}/{protocol}"
            expect(lab, "client", to, Reaches(set(native.pods("web"))))
        assert sent_by_xdp(lab, "node3", family) > before
    finally:
        lab.route(address, None)


@each_family
def test_100_mib_there_and_back_arrive_intact(native: Room, family: str) -> None:
    lab = native.lab
    before = sent_by_xdp(lab, "node2", family)
    words = ["both", address_of(lab, "node2", family), str(MIRROR_NODE_PORT), str(100 * MIB)]
    done = lab.exec("client", [*STREAM, *words])
    assert done.returncode == 0, done.stderr
    # each of its packets twice, there and back, none larger than the wire's frames
    assert sent_by_xdp(lab, "node2", family) - before > 2 * 100 * MIB // 1500


@each_family
@pytest.mark.parametrize(
    ("size", "count"), [(64, 2000), (1400, 2000), (8000, 200)], ids=["small", "full", "fragments"]
)
def test_no_datagram_is_lost(native: Room, family: str, size: int, count: int) -> None:
    """Fragments are TC's, all others XDP's, but where a right checksum could as well be an
    unfinished one, by chance: once in 65,536. The datagrams of one socket have that in common
    (stream.py), so another socket must do better."""
    lab = native.lab
    words = ["ask", address_of(lab, "node2", family), str(MIRROR_NODE_PORT), str(count), str(size)]
    sent: list[int] = []
    while not sent or (size < 1500 and sent[-1] < 2 * count):
        assert len(sent) < 2, f"{sent} of {2 * count}"
        before = sent_by_xdp(lab, "node2", family)
        done = lab.exec("client", [*STREAM, *words])
        assert done.returncode == 0, done.stderr
        sent.append(sent_by_xdp(lab, "node2", family) - before)


@each_family
def test_fragments_of_a_flow_that_xdp_began(native: Room, family: str) -> None:
    """Large answers after small ones are TC's to send, and node2's connection tracking, which has
    seen nothing of the flow, must not masquerade them."""
    lab = native.lab
    before = sent_by_xdp(lab, "node2", family)
    words = ["ask", address_of(lab, "node2", family), str(MIRROR_NODE_PORT), "100", "64", "8000"]
    done = lab.exec("client", [*STREAM, *words])
    assert done.returncode == 0, done.stderr
    assert sent_by_xdp(lab, "node2", family) > before


@each_family
def test_a_killed_agent_leaves_xdp_at_work(native: Room, family: str) -> None:
    lab = native.lab

    def program() -> Any:
        shown = lab.exec("node2", ["ip", "-j", "link", "show", "eth0"], check=True).stdout
        return json.loads(shown)[0]["xdp"]["prog"]["id"]

    number = program()
    with exchanging(native, family):
        lab.kill_agent("node2")
        before = sent_by_xdp(lab, "node2", family)
        until(
            lambda: sent_by_xdp(lab, "node2", family) > before,
            lambda: "nothing is sent on without an agent",
        )
        expect(lab, "client", web_at(lab, "node2", family), Reaches(set(native.pods("web"))))
        lab.start_agent("node2")
        lab.wait_for_agents(only="node2")
    assert program() == number, "a restart without any change is not a reason to attach anew"
    assert eth0(lab, "node2") == {"mode": "native"}


@contextmanager
def losing_nothing(room: Room) -> Iterator[None]:
    """New connections by node2 meanwhile, without end and in both families: each is answered."""
    targets = [web_at(room.lab, "node2", family) for family in FAMILIES]
    asking = room.lab.popen(
        "client", [sys.executable, "-I", "-S", str(Path(load.__file__)), *targets],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert asking.stdout is not None
        assert asking.stdout.readline() == "ready\n"
        yield
        said = json.loads(asking.communicate("", timeout=120)[0])
        assert said["lost"] == []
        assert said["answered"] > 100
    finally:
        asking.kill()
        asking.wait()


def test_switched_under_connections(native: Room) -> None:
    """Off, to generic, which cannot stand beside native, and back: a restart of the agent each, and
    with each another build of all programs. Neither old connections nor new ones notice."""
    lab = native.lab
    with ExitStack() as stack:
        stack.enter_context(losing_nothing(native))
        for family in FAMILIES:
            stack.enter_context(exchanging(native, family))
        for mode in ("off", "native", "generic", "native"):
            restart(lab, "node2", mode)
            if mode == "off":
                assert attached(lab, "node2") == ("", "")
                assert status(lab, "node2")["xdp"] == {"mode": "off", "interfaces": {}}
                continue
            assert attached(lab, "node2") == (mode, "xdp_ingress")
            for family in FAMILIES:
                before = sent_by_xdp(lab, "node2", family)
                if mode == "native":  # in generic mode checksums may be the device's to make
                    until(
                        lambda f=family, n=before: sent_by_xdp(lab, "node2", f) > n,
                        lambda: "nothing is sent on",
                    )


def test_a_foreign_program_stays_and_tc_does_it_all(native: Room, tmp_path: Path) -> None:
    lab = native.lab
    names = set(native.pods("web"))
    pin = lab.node("node2").bpffs / "xdp_foreign"
    log = lab.log("agent-node2")
    with load_program("xdp_foreign", 2, kind=XDP) as program:
        program.pin(pin)
    try:
        restart(lab, "node2", "off")
        lab.exec("node2", ["ip", "link", "set", "eth0", "xdpdrv", "pinned", str(pin)], check=True)
        said_before = log.stat().st_size
        restart(lab, "node2", "native")
        assert attached(lab, "node2") == ("native", "xdp_foreign")
        told = eth0(lab, "node2")
        assert told["mode"] == "tc"
        assert "has an XDP program 'xdp_foreign'" in told["reason"]
        assert told["reason"] in status(lab, "node2")["interfaceProblems"]
        assert log.read_bytes()[said_before:].count(b"no XDP here, TC does it all") == 1
        for family in FAMILIES:
            before = sent_by_xdp(lab, "node2", family)
            expect(lab, "client", web_at(lab, "node2", family), Reaches(names))
            assert sent_by_xdp(lab, "node2", family) == before
        # it goes, and ours comes by itself
        lab.exec("node2", ["ip", "link", "set", "eth0", "xdpdrv", "off"], check=True)
        until(lambda: eth0(lab, "node2") == {"mode": "native"}, lambda: eth0(lab, "node2"))
        assert attached(lab, "node2") == ("native", "xdp_ingress")
    finally:
        pin.unlink()


def test_an_uplink_that_comes_later_gets_it_too(native: Room) -> None:
    lab = native.lab
    peer = lab.place("client").netns
    lab.exec("node3", f"ip link add wan0 type veth peer name wan0 netns {peer}".split(), check=True)
    try:
        lab.exec("node3", ["ip", "addr", "add", "198.51.100.1/24", "dev", "wan0"], check=True)
        lab.exec("node3", ["ip", "link", "set", "wan0", "up"], check=True)
        until(
            lambda: status(lab, "node3")["xdp"]["interfaces"].get("wan0") == {"mode": "native"},
            lambda: status(lab, "node3"),
        )
        lab.exec("node3", ["ip", "addr", "del", "198.51.100.1/24", "dev", "wan0"], check=True)
        until(
            lambda: list(status(lab, "node3")["xdp"]["interfaces"]) == ["eth0"],
            lambda: status(lab, "node3"),
        )
        show = ["ip", "link", "show", "wan0"]  # it is forgotten first, and then taken off
        until(lambda: "xdp" not in lab.exec("node3", show, check=True).stdout, lambda: "it stays")
    finally:
        lab.exec("node3", ["ip", "link", "del", "wan0"], check=True)
    assert eth0(lab, "node3") == {"mode": "native"}


@each_family
def test_the_lesson_draws_the_same_way(native: Room, family: str) -> None:
    """No tap on node2 sees what XDP sends back; the wire's other end does."""
    lab = native.lab
    use(lab, "native")
    run = [EBPF_LB, "lab", "scenario", "run", "cross-node-snat", "--family", family]
    shown = subprocess.run(
        [*run, "--name", lab.name], capture_output=True, text=True, check=True
    ).stdout
    assert shown.count("└ node2 rewrites") == 2
    assert "eth0 in (on the wire)" in shown and "eth0 out (on the wire)" in shown


@contextmanager
def unfinished_checksums(lab: Lab, node: str) -> Iterator[None]:
    """Frames come to the node as veths hand them over: their checksums are still to be computed, by
    a device that they will never meet."""
    with lab.entered("router"):
        port = IoctlEthtool(node)
    port.set_offload_flag("tx-checksumming", True)
    try:
        yield
    finally:
        port.set_offload_flag("tx-checksumming", False)
        port.close()


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_frames_without_their_checksums_are_tcs(native: Room, mode: str) -> None:
    """Sent back as they came, they would arrive broken. Of TCP, a stack completes two packets of a
    connection by itself at most: a reset, and what it answers when the connection has ended."""
    lab = native.lab
    connections, by_the_stack = 20, 2
    use(lab, mode)
    with unfinished_checksums(lab, "node2"):
        for family in FAMILIES:
            before = sent_by_xdp(lab, "node2", family)
            for protocol, allowed in (("udp", 0), ("tcp", connections * by_the_stack)):
                to = web_at(lab, "node2", family, protocol)
                answers = probe(lab, "client", to, tries=connections)
                assert {answer.text for answer in answers} == set(native.pods("web"))
                assert sent_by_xdp(lab, "node2", family) - before <= allowed
            before = sent_by_xdp(lab, "node2", family)
            node = address_of(lab, "node2", family)
            done = lab.exec("client", [*STREAM, "both", node, str(MIRROR_NODE_PORT), str(MIB)])
            assert done.returncode == 0, done.stderr
            assert sent_by_xdp(lab, "node2", family) - before <= by_the_stack


@pytest.mark.parametrize("mode", ["generic", "auto"])
def test_other_modes(native: Room, mode: str) -> None:
    """Generic runs on every device; auto leaves veths alone, and says why."""
    lab = native.lab
    names = set(native.pods("web"))
    use(lab, mode)
    if mode == "generic":
        assert eth0(lab, "node2") == {"mode": "generic"}
        assert attached(lab, "node2") == ("generic", "xdp_ingress")
    else:
        assert eth0(lab, "node2")["mode"] == "tc"
        assert "veth" in eth0(lab, "node2")["reason"]
        assert status(lab, "node2")["interfaceProblems"] == []
        assert attached(lab, "node2") == ("", "")
    for family in FAMILIES:
        before = sent_by_xdp(lab, "node2", family)
        for protocol in ("tcp", "udp"):
            to = web_at(lab, "node2", family, protocol)
            expect(lab, "client", to, Reaches(names))
        words = ["both", address_of(lab, "node2", family), str(MIRROR_NODE_PORT), str(10 * MIB)]
        done = lab.exec("client", [*STREAM, *words])
        assert done.returncode == 0, done.stderr
        sent = sent_by_xdp(lab, "node2", family) - before
        assert (sent > 0) == (mode == "generic")


def test_cleanup_takes_it_off(native: Room) -> None:
    """Node3 serves nobody meanwhile."""
    lab = native.lab
    lab.stop_agent("node3")
    done = lab.exec("node3", ["ebpf-lb", "cleanup"], check=True)
    assert " 1 XDP programs, " in done.stdout
    assert attached(lab, "node3") == ("", "")
    lab.start_agent("node3")
    lab.wait_for_agents(only="node3")
    assert attached(lab, "node3") == ("native", "xdp_ingress")
