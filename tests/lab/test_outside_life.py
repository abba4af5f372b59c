"""What outside clients see while the cluster changes: policies switched live, source ranges, node
addresses, and rolling updates, which cost no connection."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ebpf_lb.lab.objects.pod_life import PodLife
from tests.lab.conftest import Room
from tests.support import load
from tests.support.checker import Dropped, Reaches, Refused, SourceSeen, expect
from tests.support.manifests import Manifest, deployment, pod, service

FAMILIES = ("ipv4", "ipv6")
NODE_PORT = 31080


def exposed(name: str, *, app: str | None = None, **spec: Any) -> Manifest:
    """A LoadBalancer Service with nodePort NODE_PORT for TCP and UDP."""
    made = service(name, app=app, protocols=("TCP", "UDP"), type="LoadBalancer", **spec)
    for port in made["spec"]["ports"]:
        port["nodePort"] = NODE_PORT
    return made


def of_family(addresses: Any, family: str) -> str:
    return next(str(each) for each in addresses if (":" in each) == (family == "ipv6"))


def at(address: str, port: int, protocol: str = "tcp") -> str:
    return f"[{address}]:{port}/{protocol}" if ":" in address else f"{address}:{port}/{protocol}"


def node_port(room: Room, node: str, family: str, protocol: str = "tcp") -> str:
    [found] = [each for each in room.lab.nodes() if each.name == node]
    return at(of_family(found.addresses, family), NODE_PORT, protocol)


def balancer(room: Room, name: str, family: str) -> str:
    """The address that the lab's cloud gave to a Service."""
    path = f"/api/v1/namespaces/{room.namespace}/services/{name}"
    deadline = time.monotonic() + 5
    while True:
        status = room.lab.client.get(path).get("status", {}).get("loadBalancer") or {}
        ingress = [each["ip"] for each in status.get("ingress") or []]
        if len(ingress) == 2:
            return of_family(ingress, family)
        assert time.monotonic() < deadline, "the lab's cloud gives no addresses"
        time.sleep(0.05)


def client_address(room: Room, family: str) -> str:
    listed = json.loads(room.lab.exec("client", ["ip", "-j", "address"], check=True).stdout)
    return of_family(
        (each["local"] for link in listed for each in link["addr_info"]
         if each["scope"] == "global"), family,
    )  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_policy_switched_live(room: Room, family: str) -> None:
    """Cluster: another node sends it on, masqueraded. Local: only the pod's own node serves."""
    room.apply(deployment("web", node="node1"))
    near = set(room.pods("web"))
    own = {client_address(room, family)}
    for policy in ("Cluster", "Local", "Cluster"):
        room.apply(exposed("web", externalTrafficPolicy=policy))
        here, there = (node_port(room, node, family) for node in ("node1", "node2"))
        expect(room.lab, "client", here, Reaches(near), within_s=3)
        expect(room.lab, "client", here, SourceSeen(own))
        if policy == "Local":
            expect(room.lab, "client", there, Dropped(tries=2), within_s=3)
        else:
            [node2] = [each for each in room.lab.nodes() if each.name == "node2"]
            masqueraded = {of_family(node2.addresses, family)}
            expect(room.lab, "client", there, Reaches(near), within_s=3)
            expect(room.lab, "client", there, SourceSeen(masqueraded))


@pytest.mark.parametrize("family", FAMILIES)
def test_source_ranges(room: Room, family: str) -> None:
    """They guard the balancer's address alone; white space is trimmed; 0.0.0.0/0 means all."""
    room.apply(deployment("web", node="node1"), exposed("web"))
    names = set(room.pods("web"))
    to = at(balancer(room, "web", family), 80)
    own = client_address(room, family)
    bits = 32 if family == "ipv4" else 128
    expect(room.lab, "client", to, Reaches(names))
    for ranges, allowed in (
        (["10.9.9.0/24", "fd99::/64"], False),
        ([f" {own}/{bits} "], True),
        (["0.0.0.0/0"], True),
    ):
        room.apply(exposed("web", loadBalancerSourceRanges=ranges))
        expect(room.lab, "client", to, Reaches(names) if allowed else Dropped(tries=2), within_s=3)
        expect(room.lab, "client", node_port(room, "node2", family), Reaches(names))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_node_ports_answer_on_every_address_but_loopback(
    room: Room, family: str, protocol: str
) -> None:
    room.apply(deployment("web", node="node3"), exposed("web"))
    names = set(room.pods("web"))
    listed = json.loads(room.lab.exec("node1", ["ip", "-j", "address"], check=True).stdout)
    addresses = [
        each["local"]
        for link in listed
        for each in link["addr_info"]
        if each["scope"] == "global" and (":" in each["local"]) == (family == "ipv6")
    ]
    assert len(addresses) > 1, "the uplink's, and the pods' gateway"
    for address in addresses:
        for source in ("client", "node1"):
            expect(room.lab, source, at(address, NODE_PORT, protocol), Reaches(names))
    loopback = "127.0.0.1" if family == "ipv4" else "::1"
    expect(room.lab, "node1", at(loopback, NODE_PORT, protocol), Refused())


NODES = (1, 2, 3)
VERSIONS = (1, 2, 3)
GRACE_S = 0.7  # for the nodes to know it, and for an old pod to answer whom it had to


def version(number: int) -> list[Manifest]:
    """A pod on each node, all of them for the Service `web`."""
    return [pod(f"web-{number}-{node}", "web", node=f"node{node}") for node in NODES]


@pytest.mark.parametrize("policy", ["Cluster", "Local"])
def test_a_rolling_update_loses_no_connection(room: Room, policy: str) -> None:
    """New connections one after another, by every node, while pod after pod is replaced: the new
    one gets ready, the old one terminates, and goes when it has answered whom it had to."""
    room.apply(exposed("web", externalTrafficPolicy=policy), *version(1))
    targets = []
    for node in NODES:
        names = {f"web-1-{node}"} if policy == "Local" else {f"web-1-{n}" for n in NODES}
        for family in FAMILIES:
            targets.append(node_port(room, f"node{node}", family))
            expect(room.lab, "client", targets[-1], Reaches(names))
    running = room.lab.popen(
        "client",
        [sys.executable, "-I", "-S", str(Path(load.__file__)), *targets],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert running.stdout is not None
        assert "ready" in running.stdout.readline()
        for number in VERSIONS[1:]:
            room.apply(*version(number))
            time.sleep(GRACE_S)
            old = [
                PodLife(room.lab.client, room.namespace, f"web-{number - 1}-{node}")
                for node in NODES
            ]
            for each in old:
                each.terminate()
            time.sleep(GRACE_S)
            for each in old:
                each.remove()
        time.sleep(GRACE_S)
        told, _ = running.communicate("", timeout=30)
    finally:
        running.kill()
        running.wait()
    counted = json.loads(told)
    assert counted["lost"] == []
    assert counted["answered"] > 200
    # pods of every version have answered
    assert set(counted["names"]) == {f"web-{number}-{n}" for number in VERSIONS for n in NODES}
