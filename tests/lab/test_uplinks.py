"""A second way into a node, which comes and goes while the agent runs."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from ebpf_lb.lab.cluster import Lab
from tests.lab.conftest import Room
from tests.lab.test_outside import until
from tests.support.checker import SETTLED_S, Reaches, SourceSeen, expect
from tests.support.manifests import deployment, service
from tests.support.tun_wire import tun_wire

PORT = 30951
NODE = {"ipv4": "198.51.100.1", "ipv6": "2001:db8:51::1"}
CLIENT = {"ipv4": "198.51.100.2", "ipv6": "2001:db8:51::2"}


def status(lab: Lab, node: str) -> dict[str, list[str]]:
    done = lab.exec(node, ["curl", "-s", "http://127.0.0.1:10249/status"], check=True)
    return dict(json.loads(done.stdout))


def wait(lab: Lab, wanted: Callable[[list[str]], bool], within_s: float = SETTLED_S) -> None:
    deadline = time.monotonic() + within_s
    while not wanted(status(lab, "node1")["uplinks"]):
        assert time.monotonic() < deadline, status(lab, "node1")
        time.sleep(0.05)


@pytest.fixture(params=["veth", "tun"])
def second_nic(request: pytest.FixtureRequest, room: Room) -> Iterator[Room]:
    """A wire from the client to node1, with addresses of its own at both ends: with Ethernet
    frames, and without, as a VPN's."""
    lab = room.lab

    def ip(host: str, words: str) -> None:
        lab.exec(host, ["ip", *words.split()], check=True)

    peer = lab.place("client").netns
    assert peer is not None
    with ExitStack() as made:
        if request.param == "veth":
            ip("node1", f"link add wan0 type veth peer name wan0 netns {peer}")
            made.callback(ip, "node1", "link del wan0")
        else:
            made.enter_context(tun_wire("wan0", lab.node("node1").netns, peer))
        for host, addresses in (("node1", NODE), ("client", CLIENT)):
            ip(host, f"addr add {addresses['ipv4']}/24 dev wan0")
            ip(host, f"addr add {addresses['ipv6']}/64 dev wan0 nodad")
            ip(host, "link set wan0 up")
        # programs for devices without Ethernet header are compiled and loaded now
        wait(lab, lambda uplinks: {"eth0", "wan0"} <= set(uplinks), within_s=120)
        yield room
    wait(lab, lambda uplinks: "wan0" not in uplinks)
    dump = ["ebpf-lb", "maps", "dump", "interfaces", "-o", "json"]
    # it is forgotten first, and then taken out of the map
    until(lambda: "wan0" not in lab.exec("node1", dump, check=True).stdout, "its entry stays")


@pytest.mark.rule("KI-17")
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("node", ["node1", "node2"], ids=["local-backend", "remote-backend"])
def test_node_ports_answer_on_an_interface_that_came_later(
    second_nic: Room, family: str, node: str
) -> None:
    lab = second_nic.lab
    web = service("web", protocols=("TCP",), type="NodePort")
    web["spec"]["ports"][0]["nodePort"] = PORT
    second_nic.apply(deployment("web", node=node), web)
    address = f"[{NODE[family]}]" if family == "ipv6" else NODE[family]
    target = f"{address}:{PORT}/tcp"
    expect(lab, "client", target, Reaches(set(second_nic.pods("web"))))
    # kept where the pod is here; else the node's address towards the other node
    own = next(a for a in lab.node("node1").addresses if (":" in a) == (family == "ipv6"))
    seen = CLIENT[family] if node == "node1" else own
    expect(lab, "client", target, SourceSeen({seen}))
