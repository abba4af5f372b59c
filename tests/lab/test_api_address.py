"""No Service keeps a node from its API server, whoever asks for that address, and whatever an agent
before this one has left in the maps."""

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ebpf_lb.lab.cluster import Lab
from ebpf_lb.lab.options import Options
from tests.lab.conftest import Room, own_lab, room_in
from tests.support import manifests
from tests.support.checker import SETTLED_S, Reaches, expect
from tests.support.manifests import deployment, service

NODE = "node1"
# what an agent that knew no better has written
SERVE = """
import sys, time
from pathlib import Path
from ebpf_lb.datapath.pins import Pins
from ebpf_lb.datapath.writer import FamilyMaps, FamilyWriter
from ebpf_lb.model.values import Family, Protocol, parse_address
from ebpf_lb.plan.forwarding import Forwarding, Frontend, FrontendKind, ServicePortName
root, address, port, kind = sys.argv[1:]
writer = FamilyWriter(FamilyMaps.open(Pins(Path(root)).current, Family.IPV4), time.monotonic, 8)
writer.adopt()
frontend = Frontend(parse_address(address), int(port), FrontendKind[kind])
name = ServicePortName("gone", "evil", "", Protocol.TCP)
writer.set(Forwarding(name, Family.IPV4, (frontend,), (), (), has_any=False))
"""
ASK = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()
"""


@pytest.fixture(scope="module")
def small_lab() -> Iterator[Lab]:
    with own_lab(Options(nodes=1)) as lab:
        yield lab


@pytest.fixture
def room(small_lab: Lab, tmp_path: Path) -> Iterator[Room]:
    yield from room_in(small_lab, tmp_path)


def server(lab: Lab) -> tuple[str, int]:
    config = yaml.safe_load(lab.kubeconfig(NODE))
    found = re.fullmatch(r"https://([\d.]+):(\d+)", config["clusters"][0]["cluster"]["server"])
    assert found is not None
    return found[1], int(found[2])


def reachable(lab: Lab) -> bool:
    """By a new connection of a process on the node: the kubelet's, for instance."""
    address, port = server(lab)
    return lab.exec(NODE, [sys.executable, "-c", ASK, address, str(port)]).returncode == 0


def status(lab: Lab) -> Any:
    page = ["curl", "-sf", "http://127.0.0.1:10249/status"]
    return json.loads(lab.exec(NODE, page, check=True).stdout)


def hostile(name: str, lab: Lab, **spec: Any) -> dict[str, Any]:
    made = service(name, port=server(lab)[1], protocols=["TCP"], **spec)
    made["spec"]["ipFamilyPolicy"] = "SingleStack"
    return made


def serves_what_is_new(room: Room, name: str, number: int) -> None:
    """The agent hears of it, and programs it."""
    room.apply(deployment(name), service(name, number=number))
    target = f"{manifests.cluster_ip(number, 'ipv4')}:80/tcp"
    expect(room.lab, NODE, target, Reaches(set(room.pods(name))))


def refused(room: Room, name: str) -> list[str]:
    """What the agent says of the Service, as soon as it does."""
    deadline = time.monotonic() + SETTLED_S
    while True:
        found = [
            text for text in status(room.lab)["conflicts"] if f"{room.namespace}/{name}" in text
        ]
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def test_external_ips_do_not_reach_for_it(room: Room) -> None:
    lab = room.lab
    address, port = server(lab)
    room.apply(hostile("evil", lab, externalIPs=[address]))
    [said] = refused(room, "evil")
    assert f"{address}:{port}" in said and "API server" in said
    assert reachable(lab)
    lab.stop_agent(NODE)
    lab.start_agent(NODE)
    lab.wait_for_agents(only=NODE)
    assert reachable(lab)
    serves_what_is_new(room, "new", 201)


def test_a_balancers_address_does_not_reach_for_it(room: Room) -> None:
    lab = room.lab
    address, port = server(lab)
    room.apply(hostile("evil", lab, type="LoadBalancer", loadBalancerClass="tenants.example/any"))
    path = f"/api/v1/namespaces/{room.namespace}/services/evil/status"
    lab.client.patch(path, {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}})
    [said] = refused(room, "evil")
    assert f"{address}:{port}" in said
    assert reachable(lab)
    serves_what_is_new(room, "new", 202)


@pytest.mark.parametrize(
    ("kind", "shift"), [("EXTERNAL_IP", 0), ("CLUSTER_IP", 0), ("CLUSTER_IP", 1)]
)
def test_what_an_older_agent_left_goes_before_the_list_is_needed(
    room: Room, kind: str, shift: int
) -> None:
    """With `shift`: a ClusterIP of the wrong cluster, whose other ports are refused."""
    lab = room.lab
    address, port = server(lab)
    lab.stop_agent(NODE)
    words = [str(lab.node(NODE).bpffs), address, str(port + shift), kind]
    lab.exec(NODE, [sys.executable, "-c", SERVE, *words], check=True)
    assert not reachable(lab)  # else this would prove nothing
    lab.start_agent(NODE)
    lab.wait_for_agents(only=NODE)
    assert reachable(lab)
    serves_what_is_new(room, f"new-{kind[0].lower()}{shift}", 203 + shift)
