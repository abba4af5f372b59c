"""A thousand established connections outlive all that happens to agents, programs and objects."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ebpf_lb.lab.objects.pod_life import PodLife
from tests.lab.conftest import Room
from tests.support import talk
from tests.support.checker import Reaches, expect
from tests.support.manifests import Manifest, cluster_ip, deployment, pod, service

TALK = [sys.executable, "-I", "-S", str(Path(talk.__file__))]
NUMBER, PORT, NODE_PORT = 90, 9000, 31090
NODES = ("node1", "node2", "node3")
BACKENDS = {"echo-1": "node1", "echo-2": "node2", "echo-3": "node3", "echo-4": "node2"}
REMOVED = "echo-4"
ROUNDS = 20
ANOTHER_BUILD = ("EBPF_LB_FRAGMENTS", "4096")  # another map, and all programs anew


def echo(port: int = PORT, node_port: int = NODE_PORT, **spec: Any) -> Manifest:
    """The Service."""
    kind = {"type": "NodePort", "number": NUMBER, **spec}
    made = service("echo", port=port, **{"target_port": PORT, "protocols": ("TCP",), **kind})
    made["spec"]["ports"][0]["nodePort"] = node_port
    return made


def web() -> Manifest:
    """A Service for new connections to the same pods: what is written after the other one."""
    made = service("web", app="echo", number=NUMBER + 1, protocols=("TCP",), type="NodePort")
    made["spec"]["ports"][0]["nodePort"] = NODE_PORT + 2
    return made


def of_web(target: str) -> str:
    """The same address as of `echo`, as the checker names it."""
    address, _, port = target.partition("*")[0].rpartition(":")
    if port == str(NODE_PORT):
        return f"{address}:{NODE_PORT + 2}/tcp"
    family = "ipv6" if ":" in address else "ipv4"
    to = cluster_ip(NUMBER + 1, family)
    return f"[{to}]:80/tcp" if family == "ipv6" else f"{to}:80/tcp"


@contextmanager
def talking(room: Room, host: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A process of talk.py on a host, ready."""
    process = room.lab.popen(host, [*TALK, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def builds(room: Room) -> set[str]:
    """What the nodes' hooks run."""
    return {(node.bpffs / "current").readlink().name for node in room.lab.nodes()}


def restarted(room: Room, change: Callable[[], None]) -> None:
    """All agents die at once; the cluster changes; and they come back."""
    for node in NODES:
        room.lab.kill_agent(node)
    change()
    for node in NODES:
        room.lab.start_agent(node)
    room.lab.wait_for_agents()


@pytest.mark.timeout(1200)
def test_a_thousand_connections(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ClusterIP and NodePort, mostly to other nodes, from pods, nodes and outside. Only those to
    the pod that dies may end."""
    addresses = {
        node.name: {("ipv6" if ":" in str(a) else "ipv4"): str(a) for a in node.addresses}
        for node in room.lab.nodes()
    }
    room.apply(
        *(pod(name, "echo", node=node) for name, node in BACKENDS.items()),
        deployment("client", node="node1"),
    )
    vips = [f"{cluster_ip(NUMBER, 'ipv4')}:{PORT}", f"[{cluster_ip(NUMBER, 'ipv6')}]:{PORT}"]
    ports = [
        address.format(addresses[node][family])
        for node in ("node1", "node3")
        for family, address in (("ipv4", f"{{}}:{NODE_PORT}"), ("ipv6", f"[{{}}]:{NODE_PORT}"))
    ]
    asked = {
        room.pod("client"): [f"{vip}*200" for vip in vips],
        "client": [f"{port}*100" for port in ports],
        "node3": [f"{vip}*100" for vip in vips],
    }

    def life(name: str) -> PodLife:
        return PodLife(room.lab.client, room.namespace, name)

    def serve(name: str) -> None:
        stack.enter_context(talking(room, f"{room.namespace}/{name}", "serve", str(PORT), name))

    def scale_up() -> None:
        room.apply(pod("echo-5", "echo", node="node1"))

    def nobody_ready() -> None:
        for name in BACKENDS:
            if name != REMOVED:
                life(name).set_ready(False)

    def everybody_ready() -> None:
        for name in BACKENDS:
            if name != REMOVED:
                life(name).set_ready(True)

    def service_deleted() -> None:
        room.lab.client.delete(f"/api/v1/namespaces/{room.namespace}/services/echo")

    def to_build(environment: tuple[str, str] | None) -> None:
        if environment:
            monkeypatch.setenv(*environment)
        else:
            monkeypatch.delenv(ANOTHER_BUILD[0])

    changes: list[Callable[[], None]] = [
        lambda: None,
        scale_up,
        lambda: room.apply(echo(port=PORT + 1)),
        lambda: room.apply(echo(externalTrafficPolicy="Local")),
        lambda: to_build(ANOTHER_BUILD),
        lambda: room.apply(echo(internalTrafficPolicy="Local")),
        lambda: life(REMOVED).terminate(),
        lambda: room.apply(echo(sessionAffinity="ClientIP")),
        nobody_ready,
        lambda: life(REMOVED).remove(),
        everybody_ready,
        lambda: room.apply(echo(target_port=PORT + 9)),
        lambda: room.apply(echo(node_port=NODE_PORT + 1)),
        lambda: to_build(None),
        service_deleted,
        lambda: None,
        lambda: room.apply(echo()),
    ]
    changes += [lambda: None] * (ROUNDS - len(changes))
    with ExitStack() as stack:
        for name in BACKENDS:
            serve(name)
        room.apply(echo(), web())
        for host, targets in asked.items():
            for target in targets:
                expect(room.lab, host, of_web(target), Reaches(set(BACKENDS)))
        holders = {
            host: stack.enter_context(talking(room, host, "hold", *targets))
            for host, targets in asked.items()
        }
        before = builds(room)
        seen = [before]
        try:
            began = time.monotonic()
            for number, change in enumerate(changes, start=1):
                restarted(room, change)
                # not faster than that connections are used meanwhile, each every few seconds
                time.sleep(max(0.0, began + number - time.monotonic()))
                if builds(room) != seen[-1]:
                    seen.append(builds(room))
            told = {host: json.loads(one.communicate("", 120)[0]) for host, one in holders.items()}
        finally:
            monkeypatch.undo()
            if builds(room) != before:
                restarted(room, lambda: None)
    for host, targets in asked.items():
        for target in targets:
            expect(room.lab, host, of_web(target), Reaches({*BACKENDS, "echo-5"} - {REMOVED}))
    assert [len(one) for one in seen] == [1, 1, 1] and seen[0] == seen[2] != seen[1]
    lost = [one for answer in told.values() for one in answer["lost"]]
    assert [one for one in lost if one["name"] != REMOVED] == []
    held = sum(sum(names.values()) for answer in told.values() for names in answer["held"].values())
    assert held + len(lost) == 1000
    for host, answer in told.items():
        for target, names in answer["held"].items():
            # a connection to each pod that lives, and none to any other
            assert set(names) == set(BACKENDS) - {REMOVED}, (host, target)
        count = sum(sum(names.values()) for names in answer["held"].values())
        assert answer["questions"] > ROUNDS * count // 4, "hardly anything was asked meanwhile"
