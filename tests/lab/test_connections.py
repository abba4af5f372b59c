"""Long streams, with offloads on, and an agent that dies meanwhile."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import Room
from tests.lab.test_outside import until
from tests.support import stream
from tests.support.checker import Reaches, expect
from tests.support.manifests import cluster_ip, deployment, service

STREAM = Path(stream.__file__)
EBPF_LB = [sys.executable, "-m", "ebpf_lb"]
NUMBER, PORT = 70, 9000
MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture(scope="module")
def streams(shared_room: Room) -> Iterator[Room]:
    """A client on node1, and on node2 a pod that takes streams, behind a Service."""
    shared_room.apply(
        deployment("client", node="node1"),
        deployment("sink", node="node2"),
        service("sink", number=NUMBER, port=PORT, target_port=PORT, protocols=("TCP",)),
        service("web", number=NUMBER + 1, app="sink"),
    )
    to = f"{cluster_ip(NUMBER + 1, 'ipv6')}"
    for source in (shared_room.pod("client"), "node1"):
        expect(shared_room.lab, source, f"[{to}]:80/tcp", Reaches(set(shared_room.pods("sink"))))
    server = shared_room.lab.popen(
        shared_room.pod("sink"),
        [sys.executable, str(STREAM), "serve", str(PORT)],
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    assert "ready" in str(server.stdout.readline())
    yield shared_room
    server.kill()
    server.wait()
    server.stdout.close()


def send(family: str, size_bytes: int) -> list[str]:
    return [
        sys.executable, str(STREAM), "send",
        cluster_ip(NUMBER, family), str(PORT), str(size_bytes),
    ]  # fmt: skip


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("source", ["pod", "node"])
def test_a_gibibyte_arrives_intact(
    streams: Room, bridge_netfilter: bool, source: str, family: str
) -> None:
    host = streams.pod("client") if source == "pod" else "node1"
    before = received(streams)
    done = streams.lab.exec(host, send(family, GIB))
    assert done.returncode == 0, done.stderr
    size_bytes, packets = (now - then for now, then in zip(received(streams), before, strict=True))
    assert size_bytes > GIB
    assert size_bytes / packets > 1500, "packets of the wire's size: offloads were not at work"


def received(room: Room) -> tuple[int, int]:
    """Bytes and packets that came to the pod which takes the streams."""
    listed = room.lab.exec(room.pod("sink"), ["ip", "-j", "-s", "link", "show", "eth0"], check=True)
    counted = json.loads(listed.stdout)[0]["stats64"]["rx"]
    return counted["bytes"], counted["packets"]


def maps(room: Room, node: str) -> dict[str, object]:
    """What the agent writes, decoded; not what the programs count and track."""
    dumped = room.lab.exec(
        node,
        [*EBPF_LB, "maps", "dump", "frontends", "services", "backends", "slots", "-o", "json"],
        check=True,
    )
    return dict(json.loads(dumped.stdout))


def forgotten(room: Room, node: str) -> list[str]:
    """Services that the node's maps hold, but not the API server."""
    dump = [*EBPF_LB, "maps", "dump", "names", "-o", "json"]
    dumped = json.loads(room.lab.exec(node, dump, check=True).stdout)
    families = (dumped["ipv4"], dumped["ipv6"])
    held = {row["service"].partition(":")[0] for one in families for row in one["names"]}
    metadata = [s["metadata"] for s in room.lab.client.get("/api/v1/services")["items"]]
    return sorted(held - {f"{m['namespace']}/{m['name']}" for m in metadata})


@pytest.mark.rule("CO-10")
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_killed_agent_disturbs_no_stream(streams: Room, family: str) -> None:
    """SIGKILL in the middle, then a new agent, which finds all as it should be."""
    lab = streams.lab
    nodes = ("node1", "node2")
    # Services of earlier tests are gone from the API server, but agents may be about it still
    for node in nodes:
        until(lambda n=node: not forgotten(streams, n), f"{node} holds what is gone")
    before = {node: maps(streams, node) for node in nodes}
    began, _ = received(streams)
    sender = lab.popen(
        streams.pod("client"), send(family, 0),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        until(lambda: received(streams)[0] > began + 10 * MIB, "nothing arrives")
        for node in before:
            lab.kill_agent(node)
        killed, _ = received(streams)
        until(lambda: received(streams)[0] > killed + 10 * MIB, "nothing arrives without agents")
        logs = {node: lab.log(f"agent-{node}") for node in before}
        ends = {node: log.stat().st_size for node, log in logs.items()}
        for node in before:
            lab.start_agent(node)
        lab.wait_for_agents()
        back, _ = received(streams)
        until(lambda: received(streams)[0] > back + 10 * MIB, "nothing arrives with new agents")
        assert sender.poll() is None, "the stream ended by itself"
        _, errors = sender.communicate("", timeout=60)
        assert sender.returncode == 0, errors
    finally:
        sender.kill()
        sender.wait()
    assert {node: maps(streams, node) for node in before} == before
    for node, log in logs.items():
        with log.open() as said:
            said.seek(ends[node])
            events = [json.loads(line) for line in said]
        assert [e["compiled"] for e in events if e["event"] == "started"] == [False]
        assert [e["writes"] for e in events if e["event"] == "synced"] == [0]
