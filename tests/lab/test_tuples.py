"""One TCP five-tuple more than once: a SYN that must be repeated, and a source port used again."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.lab.conftest import Room
from tests.support.checker import SETTLED_S, Reaches, expect
from tests.support.manifests import cluster_ip, deployment, service

NUMBER, NODE_PORT = 92, 31392
SOURCES = ("pod", "client")
each_family = pytest.mark.parametrize("family", ["ipv4", "ipv6"])
each_source = pytest.mark.parametrize("source", SOURCES)

# Connects by one source port again and again; prints who answered each time. `how`: "fin" waits for
# the server to end the connection, so that this side can use the port at once; "rst" does not.
REUSE = """
import socket, struct, sys
address, port, source_port, how, times = sys.argv[1:]
for _ in range(int(times)):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as one:
        one.settimeout(60)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("", int(source_port)))
        one.connect((address, int(port)))
        one.sendall(b"GET /hostname HTTP/1.0\\r\\n\\r\\n")
        answer = b""
        while read := one.recv(4096):
            answer += read
            if how == "rst" and answer.partition(b"\\r\\n\\r\\n")[2]:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                break
    print(answer.partition(b"\\r\\n\\r\\n")[2].decode().strip(), flush=True)
"""


@pytest.fixture(scope="module")
def room(shared_room: Room) -> Iterator[Room]:
    """Three pods behind a ClusterIP and a node's port, and a pod that asks."""
    web = service("web", number=NUMBER, protocols=("TCP",), type="NodePort")
    web["spec"]["ports"][0]["nodePort"] = NODE_PORT
    shared_room.apply(deployment("web", replicas=3), deployment("asker", node="node1"), web)
    everybody = Reaches(set(shared_room.pods("web")))
    for source in SOURCES:
        for family in ("ipv4", "ipv6"):
            host, port = target(shared_room, source, family)
            host = f"[{host}]" if ":" in host else host
            expect(shared_room.lab, place(shared_room, source), f"{host}:{port}/tcp", everybody)
    yield shared_room


def place(room: Room, source: str) -> str:
    return room.pod("asker") if source == "pod" else source


def target(room: Room, source: str, family: str) -> tuple[str, int]:
    """From a pod the ClusterIP, from outside a node's port, so mostly across nodes with SNAT."""
    if source == "pod":
        return cluster_ip(NUMBER, family), 80
    addresses = room.lab.node("node2").addresses
    return next(a for a in addresses if (":" in a) == (family == "ipv6")), NODE_PORT


def nft(room: Room, where: str, *lines: str) -> str:
    done = room.lab.exec(where, ["nft", "-j", "; ".join(lines)], check=True)
    return done.stdout


def syns(room: Room) -> dict[str, int]:
    """How many each pod has got, since they are counted."""
    found = {}
    for name in room.pods("web"):
        told = json.loads(nft(room, f"{room.namespace}/{name}", "list counters table inet syns"))
        [counter] = [each["counter"] for each in told["nftables"] if "counter" in each]
        found[name] = counter["packets"]
    return found


@pytest.fixture
def counted(room: Room) -> Iterator[None]:
    pods = [f"{room.namespace}/{name}" for name in room.pods("web")]
    for pod in pods:
        nft(
            room, pod,
            "add table inet syns",
            "add counter inet syns seen",
            "add chain inet syns in { type filter hook prerouting priority 0 ; }",
            "add rule inet syns in tcp flags & (syn | ack) == syn counter name seen",
        )  # fmt: skip
    yield
    for pod in pods:
        nft(room, pod, "delete table inet syns")


@pytest.fixture
def deaf(room: Room, source: str) -> Iterator[None]:
    """The client's machine hears no answer to a SYN."""
    where = place(room, source)
    nft(
        room, where,
        "add table inet deaf",
        "add chain inet deaf in { type filter hook prerouting priority 0 ; }",
        "add rule inet deaf in tcp flags & (syn | ack) == (syn | ack) drop",
    )  # fmt: skip
    yield
    room.lab.exec(where, ["nft", "delete table inet deaf"])  # if it is there still


@pytest.mark.rule("CO-11")
@each_family
@each_source
def test_a_repeated_syn_reaches_the_same_pod(
    room: Room, counted: None, deaf: None, source: str, family: str
) -> None:
    host, port = target(room, source, family)
    asking = room.lab.popen(
        place(room, source), python(host, port, 0, "fin", 1), stdout=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + SETTLED_S
        while sum(syns(room).values()) < 2:
            assert time.monotonic() < deadline, syns(room)
            time.sleep(0.02)
        nft(room, place(room, source), "delete table inet deaf")
        answered = asking.communicate(timeout=60)[0].strip()
        reached = {name for name, count in syns(room).items() if count}
        assert reached == {answered}
    finally:
        asking.kill()
        asking.wait()


@pytest.mark.rule("CO-12")
@each_family
@each_source
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_source_port_is_used_again(room: Room, source: str, family: str, how: str) -> None:
    """At once, and again when the pod that it met before is gone."""
    host, port = target(room, source, family)
    own_port = 21700 + SOURCES.index(source) * 2 + (how == "rst")

    def ask(times: int) -> list[str]:
        words = python(host, port, own_port, how, times)
        done = room.lab.exec(place(room, source), words)
        assert done.returncode == 0, done.stderr
        return str(done.stdout).split()

    answered = ask(10)
    assert len(answered) == 10 and set(answered) <= set(room.pods("web"))
    room.lab.client.delete(f"/api/v1/namespaces/{room.namespace}/pods/{answered[-1]}")
    deadline = time.monotonic() + SETTLED_S
    while answered[-1] in room.pods("web") or len(room.pods("web")) < 3:
        assert time.monotonic() < deadline, "the pod is not replaced"
        time.sleep(0.05)
    # the nodes know it, too
    to = f"[{host}]:{port}/tcp" if family == "ipv6" else f"{host}:{port}/tcp"
    expect(room.lab, place(room, source), to, Reaches(set(room.pods("web"))))
    again = ask(10)
    assert len(again) == 10 and set(again) <= set(room.pods("web"))


def python(*arguments: object) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", REUSE, *map(str, arguments)]
