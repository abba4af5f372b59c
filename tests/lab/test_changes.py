"""What the data path does when the cluster changes: scaling, a pod's life, Services that go."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.lab.conftest import Room
from tests.support.checker import Reaches, ReachesCount, Refused, SticksToOneOf, expect
from tests.support.manifests import cluster_ip, deployment, pod, service

Cli = Callable[..., subprocess.CompletedProcess[str]]
EBPF_LB = [sys.executable, "-m", "ebpf_lb"]
NUMBER = 50
TARGETS = [f"{cluster_ip(NUMBER, 'ipv4')}:80/tcp", f"[{cluster_ip(NUMBER, 'ipv6')}]:80/udp"]


@pytest.fixture
def web(room: Room) -> Room:
    """Three pods `web-…` behind a Service, and a client on node1."""
    room.apply(
        deployment("web", replicas=3),
        deployment("client", node="node1"),
        service("web", number=NUMBER),
    )
    for source in (room.pod("client"), "node2"):
        for target in TARGETS:
            expect(room.lab, source, target, Reaches(set(room.pods("web"))))
    return room


def succeed(cli: Cli, *words: str) -> str:
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("source", ["pod", "node"])
def test_scaling_is_followed_within_a_second(web: Room, cli: Cli, source: str) -> None:
    host = web.pod("client") if source == "pod" else "node2"
    for replicas in (5, 0, 2, 0):
        succeed(cli, "scale", "web", str(replicas), "-n", web.namespace)
        outcome = ReachesCount(replicas) if replicas else Refused()
        for target in TARGETS:
            expect(web.lab, host, target, outcome, within_s=1.0)


def test_a_pods_life(room: Room, cli: Cli) -> None:
    """Terminating pods are used only where no other is ready, those not ready never."""
    room.apply(
        *(pod(f"web-{n}", "web", node=f"node{n}") for n in (1, 2, 3)),
        deployment("client", node="node1"),
        service("web", number=NUMBER),
    )
    sources = (room.pod("client"), "node2")

    def reached(*names: str) -> None:
        for source in sources:
            for target in TARGETS:
                outcome = Reaches(set(names)) if names else Refused()
                expect(room.lab, source, target, outcome, within_s=1.0)

    def change(name: str, how: str) -> None:
        succeed(cli, "pod", name, how, "-n", room.namespace)

    reached("web-1", "web-2", "web-3")
    change("web-1", "--unready")
    reached("web-2", "web-3")
    change("web-1", "--ready")
    reached("web-1", "web-2", "web-3")
    change("web-1", "--terminate")
    reached("web-2", "web-3")
    change("web-2", "--terminate")
    change("web-3", "--unready")
    reached("web-1", "web-2")
    change("web-1", "--remove")
    reached("web-2")
    change("web-2", "--remove")
    reached()


def test_a_deleted_service_leaves_nothing_in_the_maps(web: Room, cli: Cli) -> None:
    nodes = [node.name for node in web.lab.nodes()]
    names = {f"{web.namespace}/web:{protocol}" for protocol in ("tcp", "udp", "sctp")}
    for node in nodes:
        dumped = web.lab.exec(node, [*EBPF_LB, "maps", "dump", "-o", "json"], check=True).stdout
        assert all(name in dumped for name in names)
    succeed(cli, "delete", "-f", os.fspath(web.applied[0]))
    deadline = time.monotonic() + 2
    for node in nodes:
        while True:
            dump = web.lab.exec(
                node, [*EBPF_LB, "maps", "dump", "frontends", "services", "names", "-o", "json"],
                check=True,
            ).stdout  # fmt: skip
            if f"{web.namespace}/" not in dump:
                break
            assert time.monotonic() < deadline, f"{node} still holds {dump}"


def test_a_policy_that_changes(room: Room) -> None:
    """Session affinity switched on and off acts on new connections at once."""
    room.apply(
        deployment("web", replicas=3),
        deployment("client", node="node1"),
        service("web", number=NUMBER),
    )
    names, client = set(room.pods("web")), room.pod("client")
    expect(room.lab, client, TARGETS[0], Reaches(names))
    room.apply(service("web", number=NUMBER, sessionAffinity="ClientIP"))
    expect(room.lab, client, TARGETS[0], SticksToOneOf(names), within_s=1.0)
    room.apply(service("web", number=NUMBER, sessionAffinity="None"))
    expect(room.lab, client, TARGETS[0], Reaches(names), within_s=1.0)
