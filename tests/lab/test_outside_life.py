"""What outside clients see while the cluster changes: policies switched live, source ranges, node
addresses, and rolling updates, which cost no connection."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ebpf_lb.lab.objects.pod_life import PodLife
from tests.lab.conftest import Room
from tests.lab.test_outside import until
from tests.support import load
from tests.support.checker import SETTLED_S, Dropped, Reaches, SourceSeen, expect
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
    deadline = time.monotonic() + SETTLED_S
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
        expect(room.lab, "client", here, Reaches(near))
        expect(room.lab, "client", here, SourceSeen(own))
        if policy == "Local":
            expect(room.lab, "client", there, Dropped(tries=2))
        else:
            [node2] = [each for each in room.lab.nodes() if each.name == "node2"]
            masqueraded = {of_family(node2.addresses, family)}
            expect(room.lab, "client", there, Reaches(near))
            expect(room.lab, "client", there, SourceSeen(masqueraded))


@pytest.mark.rule("VE-9", "KI-18")
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
        expect(room.lab, "client", to, Reaches(names) if allowed else Dropped(tries=2))
        expect(room.lab, "client", node_port(room, "node2", family), Reaches(names))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_node_ports_answer_on_every_address(room: Room, family: str, protocol: str) -> None:
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
    expect(room.lab, "node1", at(loopback, NODE_PORT, protocol), Reaches(names))


NODES = (1, 2, 3)
VERSIONS = (1, 2, 3)


def version(number: int) -> list[Manifest]:
    """A pod on each node, all of them for the Service `web`."""
    return [pod(f"web-{number}-{node}", "web", node=f"node{node}") for node in NODES]


def version_names(number: int) -> list[str]:
    return [f"web-{number}-{node}" for node in NODES]


def so_far(running: "subprocess.Popen[str]") -> Any:
    """What tests/support/load.py has come to."""
    assert running.stdin is not None and running.stdout is not None
    running.stdin.write("\n")
    running.stdin.flush()
    return json.loads(running.stdout.readline())


def talking(room: Room, name: str) -> bool:
    """Whether somebody is connected to the pod, or about to be."""
    pod = f"{room.namespace}/{name}"
    states = ["state", "established", "state", "syn-recv", "state", "close-wait"]
    return bool(room.lab.exec(pod, ["ss", "-Htn", *states], check=True).stdout.strip())


@pytest.mark.rule("CO-10")
@pytest.mark.parametrize("policy", ["Cluster", "Local"])
def test_a_rolling_update_loses_no_connection(room: Room, policy: str) -> None:
    """New connections one after another, by every node, while pod after pod is replaced: the new
    one gets ready, the old one terminates, and goes when it has answered whom it had to."""
    room.apply(exposed("web", externalTrafficPolicy=policy), *version(1))

    def reached(number: int) -> Iterator[tuple[str, set[str]]]:
        """By each node: the pods of a version, or its own one."""
        for node in NODES:
            names = {f"web-{number}-{n}" for n in NODES if policy == "Cluster" or n == node}
            for family in FAMILIES:
                yield node_port(room, f"node{node}", family), names

    targets = []
    for target, names in reached(1):
        expect(room.lab, "client", target, Reaches(names))
        targets.append(target)
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
            old = version_names(number - 1)
            until(lambda o=old: {*o} <= {*so_far(running)["names"]}, f"not all of {old} answer")
            room.apply(*version(number))
            lives = [PodLife(room.lab.client, room.namespace, name) for name in old]
            for life in lives:
                life.terminate()
            # every node knows it, and who still has an old pod's ear is answered
            for target, names in reached(number):
                expect(room.lab, "client", target, Reaches(names))
            for name in old:
                until(lambda n=name: not talking(room, n), f"{name} does not come to an end")
            for life in lives:
                life.remove()
        until(lambda: {*version_names(number)} <= {*so_far(running)["names"]}, "the last are idle")
        until(lambda: so_far(running)["answered"] > 200, "hardly anybody is answered")
        told, _ = running.communicate("", timeout=60)
    finally:
        running.kill()
        running.wait()
    counted = json.loads(told)
    assert counted["lost"] == []
    # pods of every version have answered
    assert set(counted["names"]) == {f"web-{number}-{n}" for number in VERSIONS for n in NODES}
