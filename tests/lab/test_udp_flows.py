"""A UDP client with a fixed source port meets the backends that serve now: whatever becomes of
those it met before, its flows to them are gone at once. TCP connections stay where they are."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ebpf_lb.lab.objects.pod_life import PodLife
from tests.lab.conftest import Room
from tests.lab.test_outside import until
from tests.support import talk
from tests.support.manifests import Manifest, cluster_ip, deployment, pod, service

NUMBER, NODE_PORT, PORT = 99, 31399, 9000
OTHER_PORT = 9001
SOURCE_PORT = 21999  # none that the system chooses for another socket
WITHIN_S = 1.0
TALK = [sys.executable, "-I", "-S", str(Path(talk.__file__))]

# For each line that comes in, asks and prints the answer, an error's name, or "silent": by one
# connected socket with the source port that is given, or with 0 by a new socket each time.
ASK = """
import errno, socket, sys
address, port, source_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def opened():
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("", source_port))
    one.connect((address, port))
    one.settimeout(3)
    return one
one = opened()
for line in sys.stdin:
    if not source_port:
        one.close()
        one = opened()
    try:
        one.send(line.strip().encode())
        while (answer := one.recv(100).decode()).split()[1:] != [line.strip()]:
            pass  # a late answer to an earlier question
        print(answer.split()[0], flush=True)
    except TimeoutError:
        print("silent", flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"""

# Answers `NAME QUESTION` by UDP on a port.
ANSWER = """
import socket, sys
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
    one.bind(("::", int(sys.argv[1])))
    print("ready", flush=True)
    while True:
        try:
            question, peer = one.recvfrom(100)
            one.sendto(sys.argv[2].encode() + b" " + question, peer)
        except ConnectionError:
            pass
"""


def python(script: str, *arguments: object) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", script, *map(str, arguments)]


@dataclass
class Asker:
    """The client's one socket, and others that have never met anybody."""

    process: "subprocess.Popen[str]"
    new: "subprocess.Popen[str]"
    asked: int = 0

    def ask(self, process: "subprocess.Popen[str] | None" = None) -> str:
        process = process or self.process
        assert process.stdin is not None and process.stdout is not None
        self.asked += 1
        process.stdin.write(f"{self.asked}\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    def hears(self, *names: str) -> str:
        """One of these, WITHIN_S after new sockets do at the latest, and again; which."""
        return self.hears_what(lambda answer: answer in names, f"not {names}")

    def hears_what(self, wanted: Callable[[str], bool], what: str, again: int = 5) -> str:
        # when an agent has heard of a change is its own affair; from then on it counts
        until(lambda: wanted(self.ask(self.new)), f"new sockets: {what}")
        deadline = time.monotonic() + WITHIN_S
        while not wanted(answer := self.ask()):
            assert time.monotonic() < deadline, f"{answer}: {what}"
            time.sleep(0.02)
        assert all(wanted(self.ask()) for _ in range(again)), what
        return answer


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@contextmanager
def running(room: Room, host: str, argv: list[str]) -> Iterator["subprocess.Popen[str]"]:
    process = room.lab.popen(host, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def serve(room: Room, stack: ExitStack, name: str, port: int, answer: str) -> None:
    server = stack.enter_context(
        running(room, f"{room.namespace}/{name}", python(ANSWER, port, answer))
    )
    assert server.stdout is not None and "ready" in server.stdout.readline()


def exposed(target_port: int = PORT) -> Manifest:
    made = service(
        "web", number=NUMBER, port=PORT, target_port=target_port,
        protocols=("UDP", "TCP"), type="NodePort",
    )  # fmt: skip
    for port in made["spec"]["ports"]:
        port["nodePort"] = NODE_PORT
    return made


def asker(room: Room, stack: ExitStack, way: str, family: str) -> Asker:
    """A pod by the ClusterIP, or a client outside by another node's port: masqueraded."""
    if way == "pod":
        host, words = room.pod("client"), (cluster_ip(NUMBER, family), PORT)
    else:
        addresses = room.lab.node("node3").addresses
        [node] = [each for each in addresses if (":" in each) == (family == "ipv6")]
        host, words = "client", (node, NODE_PORT)
    return Asker(*(
        stack.enter_context(running(room, host, python(ASK, *words, source_port)))
        for source_port in (SOURCE_PORT, 0)
    ))  # fmt: skip


def life(room: Room, name: str) -> PodLife:
    return PodLife(room.lab.client, room.namespace, name)


each_family = pytest.mark.parametrize("family", ["ipv4", "ipv6"])
each_way = pytest.mark.parametrize("way", ["pod", "outside"])


def two_pods(room: Room) -> tuple[str, str]:
    """Behind the Service, on two nodes, and a client; their names."""
    room.apply(
        pod("web-1", "web", node="node1"),
        pod("web-2", "web", node="node2"),
        deployment("client", node="node1"),
    )
    return "web-1", "web-2"


@pytest.mark.rule("CO-16", "CO-17")
@each_family
@each_way
def test_flows_follow_those_who_serve(room: Room, stack: ExitStack, way: str, family: str) -> None:
    """All that may happen to endpoints, to one socket after another's answers."""
    pods = two_pods(room)
    for name in pods:
        serve(room, stack, name, PORT, name)
        serve(room, stack, name, OTHER_PORT, f"{name}-moved")
        life(room, name).set_ready(False)
    room.apply(exposed())
    one = asker(room, stack, way, family)
    # before there are endpoints: what was refused stands in nobody's way later
    one.hears("ECONNREFUSED")
    for name in pods:
        life(room, name).set_ready(True)
    first = one.hears(*pods)
    # its own one leaves, though it would still answer
    [second] = set(pods) - {first}
    life(room, first).set_ready(False)
    one.hears(second)
    # the last one goes, and somebody comes
    life(room, second).set_ready(False)
    one.hears("ECONNREFUSED")
    life(room, first).set_ready(True)
    one.hears(first)
    # the same pod, by another port
    room.apply(exposed(OTHER_PORT))
    one.hears(f"{first}-moved")
    # a pod that terminates is used while there is no other, and left for one that comes
    life(room, first).terminate()
    one.hears(f"{first}-moved")
    life(room, second).set_ready(True)
    one.hears(f"{second}-moved")
    # gone for good, and the Service with it
    life(room, first).remove()
    one.hears(f"{second}-moved")
    room.lab.client.delete(f"/api/v1/namespaces/{room.namespace}/services/web")
    served = (second, f"{second}-moved")
    still = "a Service that is deleted still answers"
    one.hears_what(lambda answer: answer not in served, still, again=0)
    room.apply(exposed())
    one.hears(second)


@pytest.mark.rule("CO-18")
@each_family
@each_way
def test_tcp_stays(room: Room, stack: ExitStack, way: str, family: str) -> None:
    """Connections held while their backends leave, alive, and while the Service's port moves."""
    pods = two_pods(room)
    for name in pods:
        server = stack.enter_context(
            running(room, f"{room.namespace}/{name}", [*TALK, "serve", str(PORT), name])
        )
        assert server.stdout is not None and "ready" in server.stdout.readline()
    room.apply(exposed())
    probing = asker(room, stack, way, family)
    for name in pods:
        serve(room, stack, name, PORT, name)
    probing.hears(*pods)  # it is programmed
    address = cluster_ip(NUMBER, family)
    host, port = room.pod("client"), PORT
    if way == "outside":
        addresses = room.lab.node("node3").addresses
        [address] = [each for each in addresses if (":" in each) == (family == "ipv6")]
        host, port = "client", NODE_PORT
    shown = f"[{address}]" if family == "ipv6" else address
    holder = stack.enter_context(running(room, host, [*TALK, "hold", f"{shown}:{port}*12"]))
    assert holder.stdout is not None and "ready" in holder.stdout.readline()
    for name in pods:
        life(room, name).set_ready(False)
    probing.hears("ECONNREFUSED")
    life(room, "web-1").set_ready(True)
    probing.hears("web-1")
    room.apply(exposed(OTHER_PORT))
    # nobody listens there. (Of many such datagrams the pod's kernel answers few.)
    until(lambda: probing.ask() == "ECONNREFUSED", "the Service's port does not move")
    told = json.loads(holder.communicate("", 60)[0])
    assert told["lost"] == []
    [held] = told["held"].values()
    assert sum(held.values()) == 12 and set(held) <= set(pods)
