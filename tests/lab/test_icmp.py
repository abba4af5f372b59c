"""ICMP errors about translated datagrams reach whom they are for, in his own words: from routers on
the way, and from hosts where nobody listens; about what goes to a pod, and about its answers. Too
big is in test_path_mtu.

A socket hears only of a datagram that it has sent, to that very address and port: what an error
quotes must have been translated back, or nobody is told.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import Room
from tests.support import icmp_peer
from tests.support.checker import Reaches, Refused, expect
from tests.support.manifests import cluster_ip, deployment, service

PEER = [sys.executable, "-I", "-S", str(Path(icmp_peer.__file__))]
NUMBER, NODE_PORT = 95, 31395
PORT, CLOSED = 9000, 9001  # of the pod: where errors are listened for, and where nobody does
FAMILIES = ("ipv4", "ipv6")
each_family = pytest.mark.parametrize("family", FAMILIES)
# the pod is on node1: by the ClusterIP from another node's pod, from its own bridge, from a node;
# by a node's port from outside, there and at the pod's own node
WAYS = ("pod elsewhere", "pod beside", "node elsewhere", "outside", "outside, another node")
each_way = pytest.mark.parametrize("way", WAYS)
THROUGH_ROUTERS = [way for way in WAYS if way != "pod beside"]


@pytest.fixture(scope="module")
def room(shared_room: Room) -> Iterator[Room]:
    """A pod that listens for errors, its Services, and clients."""
    kinds = {"web": (80, 0), "peer": (PORT, 1), "closed": (CLOSED, 2)}
    services = []
    for name, (target, number) in kinds.items():
        made = service(
            name, app="web", number=NUMBER + number, target_port=target,
            protocols=("UDP",), type="NodePort",
        )  # fmt: skip
        made["spec"]["ports"][0]["nodePort"] = NODE_PORT + number
        services.append(made)
    shared_room.apply(
        deployment("web", node="node1"),
        deployment("beside", node="node1"),
        deployment("elsewhere", node="node2"),
        *services,
    )
    server = shared_room.lab.popen(
        shared_room.pod("web"), [*PEER, "serve", str(PORT)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        assert "ready" in server.stdout.readline()
        shared_room.server = server  # type: ignore[attr-defined]
        for way in WAYS:
            for family in FAMILIES:
                host, address, port = where(shared_room, way, "web", family)
                to = f"[{address}]:{port}/udp" if family == "ipv6" else f"{address}:{port}/udp"
                expect(shared_room.lab, host, to, Reaches(set(shared_room.pods("web"))))
        yield shared_room
    finally:
        server.kill()
        server.communicate()


def where(room: Room, way: str, name: str, family: str) -> tuple[str, str, int]:
    """Who asks, and address and port."""
    number = {"web": 0, "peer": 1, "closed": 2}[name]
    if way.startswith("outside"):
        node = room.lab.node("node2" if "another" in way else "node1")
        [address] = [a for a in node.addresses if (":" in a) == (family == "ipv6")]
        return "client", address, NODE_PORT + number
    host = {
        "pod elsewhere": room.pod("elsewhere"),
        "pod beside": room.pod("beside"),
        "node elsewhere": "node2",
    }[way]
    return host, cluster_ip(NUMBER + number, family), 80


def run(room: Room, host: str, *words: object) -> Any:
    done = room.lab.exec(host, [*PEER, *map(str, words)])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def heard(room: Room) -> Any:
    """Lets the pod answer, and tells what it hears about that."""
    server = room.server  # type: ignore[attr-defined]
    server.stdin.write("\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


@each_family
@each_way
def test_every_router_on_the_way_is_heard(room: Room, way: str, family: str) -> None:
    """A traceroute: with one hop more each time, errors until there is an answer, never silence."""
    host, address, port = where(room, way, "web", family)
    *errors, last = run(room, host, "ask", address, port, *range(1, 7))
    assert last == "answered"
    told = [each for each in errors if each != "answered"]
    assert errors == [*told, *["answered"] * (len(errors) - len(told))]
    # the node elsewhere is itself the first; a client's router, two nodes
    least = {"pod elsewhere": 2, "pod beside": 0, "node elsewhere": 1, "outside": 2}.get(way, 3)
    assert len(told) >= least
    # the node's own sockets were translated before: they hear about the backend
    [pod] = room.pods("web").values()
    to = address if not way.startswith("node") else None
    for each in told:
        assert each["what"] == "expired"
        assert each["to"] == to or (to is None and each["to"] in (address, *pod.addresses))


@each_family
@each_way
def test_a_port_that_nobody_listens_on(room: Room, way: str, family: str) -> None:
    host, address, port = where(room, way, "closed", family)
    to = f"[{address}]:{port}/udp" if family == "ipv6" else f"{address}:{port}/udp"
    expect(room.lab, host, to, Refused(tries=3))


@each_family
@each_way
def test_a_pod_hears_that_its_client_is_gone(room: Room, way: str, family: str) -> None:
    host, address, port = where(room, way, "peer", family)
    run(room, host, "hang-up", address, port)
    told = heard(room)
    assert told is not None, "silence"
    assert (told["what"], told["to"]) == ("unreachable", told["peer"])


@each_family
@pytest.mark.parametrize("way", THROUGH_ROUTERS)
@pytest.mark.parametrize("hops", [1, 2])
def test_a_pod_hears_that_its_answer_expired(room: Room, way: str, family: str, hops: int) -> None:
    """At its own node, and further on."""
    host, address, port = where(room, way, "peer", family)
    words = ["short", address, str(port), str(hops)]
    asking = room.lab.popen(host, [*PEER, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        told = heard(room)
        came = json.loads(asking.communicate("", timeout=60)[0])
    finally:
        asking.kill()
        asking.communicate()
    if came:  # the client is that near
        assert hops == 2 and way == "node elsewhere"
        return
    assert told is not None, "silence"
    assert (told["what"], told["to"]) == ("expired", told["peer"])
