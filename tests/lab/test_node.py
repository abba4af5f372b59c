"""Services asked for by a node's own processes that no socket hook serves: on a node without cgroup
v2, and by raw sockets anywhere. VXLAN between the nodes and strict reverse-path filtering on them:
nothing gets through whose source does not fit its way."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from tests.lab.conftest import Room, own_lab, room_in
from tests.support import bulk, raw_datagram
from tests.support.checker import Reaches, Refused, SourceSeen, expect
from tests.support.manifests import PORT, cluster_ip, deployment, service

NODE = "node1"
FAMILIES = ("ipv4", "ipv6")
# name -> (number of its ClusterIP, node port)
SERVICES = {"near": (101, 31501), "far": (102, 31502), "host": (103, 31503), "nobody": (104, 31504)}
HOST_PORT = 8181
each_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    options = Options(nodes=2, network="vxlan", pods="ptp", socket_hooks=False)
    given = os.environ.get("TEST_LAB")
    with nullcontext(Lab(given)) if given else own_lab(options) as lab:
        for room in room_in(lab, tmp_path_factory.mktemp("node")):
            room.apply(
                deployment("near", node=NODE),
                deployment("far", node="node2"),
                deployment("host", node=NODE, host_network=True, port=HOST_PORT),
                *(exposed(name) for name in SERVICES),
            )
            # routes and neighbours are known from here on
            for family in FAMILIES:
                for name in ("near", "far", "host"):
                    reached(room, vip(name, family), name)
                    reached(room, on_node(lab, name, family), name)
            yield room


def exposed(name: str) -> dict[str, Any]:
    number, node_port = SERVICES[name]
    backend_port = HOST_PORT if name == "host" else PORT
    made = service(
        name, number=number, target_port=backend_port, protocols=("TCP", "UDP"), type="NodePort"
    )
    for port in made["spec"]["ports"]:
        port["nodePort"] = node_port
    return made


def vip(name: str, family: str) -> tuple[str, int]:
    return cluster_ip(SERVICES[name][0], family), 80


def on_node(lab: Lab, name: str, family: str) -> tuple[str, int]:
    """The NodePort, on the node's own address."""
    [address] = [a for a in lab.node(NODE).addresses if (":" in a) == (family == "ipv6")]
    return address, SERVICES[name][1]


def target(where: tuple[str, int], protocol: str) -> str:
    address, port = where
    return f"[{address}]:{port}/{protocol}" if ":" in address else f"{address}:{port}/{protocol}"


def reached(room: Room, where: tuple[str, int], name: str) -> None:
    for protocol in ("tcp", "udp"):
        expect(room.lab, NODE, target(where, protocol), Reaches(set(room.pods(name))))


@each_family
@pytest.mark.parametrize("name", ["near", "far", "host"])
def test_backends_see_the_node_as_if_they_had_been_asked_themselves(
    room: Room, name: str, family: str
) -> None:
    [pod] = room.pods(name).values()
    [address] = [a for a in pod.addresses if (":" in a) == (family == "ipv6")]
    told = room.lab.exec(NODE, ["ip", "-j", "route", "get", address], check=True).stdout
    [route] = json.loads(told)
    for where in (vip(name, family), on_node(room.lab, name, family)):
        for protocol in ("tcp", "udp"):
            expect(room.lab, NODE, target(where, protocol), SourceSeen({route["prefsrc"]}))


@each_family
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_without_endpoints(room: Room, protocol: str, family: str) -> None:
    for where in (vip("nobody", family), on_node(room.lab, "nobody", family)):
        expect(room.lab, NODE, target(where, protocol), Refused())


@each_family
@pytest.mark.parametrize("name", ["near", "far", "host"])
@pytest.mark.parametrize("asked", ["vip", "node"])
def test_much_data(room: Room, asked: str, name: str, family: str) -> None:
    """Both ways, in the sizes that the stack makes where it knows loopback's MTU only. What is lost
    until a time-out is so each time; a machine that is busy for seconds is not."""
    where = vip(name, family) if asked == "vip" else on_node(room.lab, name, family)
    for direction in ("upload", "download"):
        took_s: list[float] = []
        while not took_s or took_s[-1] >= 5:
            assert len(took_s) < 5, took_s
            got = run(room, direction, *where, 5_000_000)
            assert got["bytes"] == 5_000_000
            took_s.append(got["seconds"])


@each_family
@pytest.mark.parametrize("asked", ["vip", "node"])
def test_datagrams_too_big_for_the_way(room: Room, asked: str, family: str) -> None:
    """Of the first one the node may hear that it is too big; the others come in fragments."""
    where = vip("far", family) if asked == "vip" else on_node(room.lab, "far", family)
    _, *others = run(room, "datagrams", *where, 8000, "discover")
    assert others == ["answered"] * 4


def run(room: Room, *words: object) -> Any:
    argv = [sys.executable, "-I", "-S", str(Path(bulk.__file__)), *map(str, words)]
    done = room.lab.exec(NODE, argv)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@each_family
@pytest.mark.parametrize("name", ["near", "far", "host"])
@pytest.mark.parametrize("asked", ["vip", "node"])
def test_raw_sockets(room: Room, asked: str, name: str, family: str) -> None:
    """They name no port that a hook could see, only bytes."""
    where = vip(name, family) if asked == "vip" else on_node(room.lab, name, family)
    argv = [sys.executable, "-I", "-S", str(Path(raw_datagram.__file__)), *map(str, where)]
    done = room.lab.exec(NODE, argv)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in room.pods(name)


def test_the_agent_says_so(room: Room) -> None:
    log = room.lab.log(f"agent-{NODE}").read_text()
    assert "no cgroup of version 2" in log
    assert not list((room.lab.node(NODE).bpffs / "links").glob("*"))
