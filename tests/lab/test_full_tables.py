"""A node whose tables are so small that they fill: what lives on, what fails, what is said of it,
and that there is room again later."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ebpf_lb.lab.cluster import Lab
from tests.lab.conftest import Room
from tests.lab.test_outside import until
from tests.support.checker import Reaches, expect, probe
from tests.support.manifests import cluster_ip, deployment, service

NODE = "node2"
FLOWS, SERVICES = 128, 24
SMALL = {
    "EBPF_LB_FLOWS": str(FLOWS),
    "EBPF_LB_SERVICES": str(SERVICES),
    "EBPF_LB_UDP_S": "10",
    "EBPF_LB_TCP_SYN_S": "10",
    "EBPF_LB_CLOSING_S": "2",
}
NUMBER = 60
EBPF_LB = [sys.executable, "-m", "ebpf_lb"]
each_family = pytest.mark.parametrize("family", ["ipv4", "ipv6"])

PAGE = """
import sys, urllib.request
print(urllib.request.urlopen(f"http://127.0.0.1:10249{sys.argv[1]}").read().decode())
"""

# A line "N F" on standard input: opens connections until there are N, or F were in vain; then asks
# by all. Prints [how many were opened, how many in vain, how many of all have answered].
HOLD = """
import json, socket, sys
held = []
def ask(one):
    one.sendall(b"GET /hostname HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    return one.recv(4096).startswith(b"HTTP/1.1 200 ")
for line in sys.stdin:
    most, failures = map(int, line.split())
    opened = failed = answered = 0
    while len(held) < most and failed < failures:
        try:
            held.append(socket.create_connection((sys.argv[1], 80), 1.5))
            held[-1].settimeout(10)
            opened += 1
        except TimeoutError:
            failed += 1
    for one in held:
        try:
            answered += ask(one)
        except OSError:
            pass
    print(json.dumps([opened, failed, answered]), flush=True)
"""

# SYNs from many ports, without a right checksum: nobody answers, so there are flows and no more.
FLOOD = """
import socket, struct, sys
six = ":" in sys.argv[1]
with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, 6) as raw:
    for port in range(2000, 2000 + int(sys.argv[2])):
        syn = struct.pack("!HHIIBBHHH", port, 80, 1, 0, 5 << 4, 2, 1024, 0, 0)
        raw.sendto(syn, (sys.argv[1], 0))
"""

# Asks by UDP, from so many sockets.
SOCKETS = """
import socket, sys
for _ in range(int(sys.argv[2])):
    with socket.socket(
        socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM
    ) as one:
        one.settimeout(3)
        one.connect((sys.argv[1], 80))
        one.send(b"hostname")
        one.recv(100)
"""


def python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", script, *arguments]


@pytest.fixture(scope="module")
def small(lab: Lab) -> Iterator[None]:
    """The node's agent has small tables meanwhile."""

    def restart() -> None:
        lab.stop_agent(NODE)
        lab.start_agent(NODE)
        lab.wait_for_agents(timeout_s=200, only=NODE)  # a build of its own is compiled here

    with pytest.MonkeyPatch.context() as patch:
        for key, value in SMALL.items():
            patch.setenv(key, value)
        restart()
    yield
    restart()


@pytest.fixture(scope="module")
def web(small: None, shared_room: Room) -> Room:
    """A client on the node, and a Service whose pod is on another."""
    shared_room.apply(
        deployment("client", node=NODE),
        deployment("web", node="node1"),
        service("web", number=NUMBER, protocols=("TCP", "UDP")),
    )
    for family in ("ipv4", "ipv6"):
        reached(shared_room, NUMBER, family)
    return shared_room


def at(number: int, family: str) -> str:
    vip = cluster_ip(number, family)
    return f"[{vip}]:80/tcp" if family == "ipv6" else f"{vip}:80/tcp"


def reached(room: Room, number: int, family: str, within_s: float = 10) -> None:
    names = set(room.pods("web"))
    source = room.pod("client")
    expect(room.lab, source, at(number, family), Reaches(names), within_s=within_s, tries=3)


def page(lab: Lab, path: str) -> str:
    return str(lab.exec(NODE, ["python3", "-c", PAGE, path], check=True).stdout)


def counted(lab: Lab, metric: str, family: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    found = 0.0
    for line in page(lab, "/metrics").splitlines():
        match = re.fullmatch(rf"{metric}{{(.*)}} (\S+)", line)
        wanted = [f'{key}="{value}"' for key, value in {"family": family, **labels}.items()]
        if match and set(wanted) <= set(match[1].split(",")):
            found += float(match[2])
    return found


def flows(lab: Lab, family: str) -> int:
    """Entries in the connection table, as they are right now."""
    command = [*EBPF_LB, "maps", "dump", "flows", "--family", family, "-o", "json"]
    dumped = json.loads(lab.exec(NODE, command, check=True).stdout)
    return len(dumped[family]["flows"])


def test_what_is_idle_goes_by_itself(web: Room) -> None:
    families = ("ipv4", "ipv6")
    for family in families:
        vip = cluster_ip(NUMBER, family)
        web.lab.exec(web.pod("client"), python(SOCKETS, vip, "50"), check=True)
        assert flows(web.lab, family) >= 50
    for family in families:
        until(lambda f=family: not flows(web.lab, f), "idle flows stay", within_s=60)
        until(
            lambda f=family: not counted(web.lab, "ebpf_lb_conntrack_entries", f),
            "the metrics still tell of flows", within_s=60,
        )  # fmt: skip
        assert counted(web.lab, "ebpf_lb_conntrack_expired_total", family) >= 50


@each_family
def test_a_full_connection_table_costs_no_connection(web: Room, family: str) -> None:
    vip = cluster_ip(NUMBER, family)
    full = {"reason": "FLOW_TABLE_FULL"}
    holder = web.lab.popen(
        web.pod("client"), python(HOLD, vip), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None and holder.stdout is not None

    def hold(most: int, failures: int) -> list[int]:
        assert holder.stdin is not None and holder.stdout is not None
        holder.stdin.write(f"{most} {failures}\n")
        holder.stdin.flush()
        return list(json.loads(holder.stdout.readline()))

    try:
        assert hold(20, 1) == [20, 0, 20]
        evicted = counted(web.lab, "ebpf_lb_conntrack_evictions_total", family)
        web.lab.exec(web.pod("client"), python(FLOOD, vip, "5000"), check=True)
        assert counted(web.lab, "ebpf_lb_conntrack_evictions_total", family) > evicted + FLOWS
        assert hold(20, 1) == [0, 0, 20]
        # established ones to the last place: now others fail, and are counted
        refused = counted(web.lab, "ebpf_lb_packets_total", family, **full)
        opened, failed, answered = hold(2 * FLOWS, 3)
        assert failed == 3
        assert FLOWS // 2 < 20 + opened <= FLOWS
        assert answered == 20 + opened
        assert counted(web.lab, "ebpf_lb_packets_total", family, **full) >= refused + 3
    finally:
        holder.kill()
        holder.communicate()
    # and when they are closed there is room
    reached(web, NUMBER, family, within_s=20)


def test_services_that_do_not_fit_are_named_and_come_later(web: Room) -> None:
    names = {f"s{number}": number for number in range(NUMBER + 1, NUMBER + 1 + SERVICES)}
    room, lab = web, web.lab
    room.apply(*(service(n, app="web", number=i, protocols=("TCP",)) for n, i in names.items()))

    def unprogrammed() -> dict[str, list[str]]:
        """Services that the agent says it has not programmed, with its sentences."""
        said: dict[str, list[str]] = {}
        for sentence in json.loads(page(lab, "/status"))["notProgrammed"]:
            found = re.search(rf"Service port {room.namespace}/([^: ]+)", sentence)
            assert found is not None, sentence
            said.setdefault(found[1], []).append(sentence)
        return said

    def events() -> set[str]:
        found = lab.client.get(f"/api/v1/namespaces/{room.namespace}/events")["items"]
        return {e["involvedObject"]["name"] for e in found if "services is full" in e["message"]}

    def settled() -> bool:
        one = unprogrammed()
        return bool(one) and set(one) <= events()

    until(settled, "nothing, or not everything, is reported", within_s=10)
    outside = unprogrammed()
    assert outside.keys() < names.keys()
    for sentence in (each for sentences in outside.values() for each in sentences):
        assert "services is full" in sentence and "dataPath.services" in sentence
    for name, number in names.items():
        if name not in outside:
            for family in ("ipv4", "ipv6"):
                reached(room, number, family)
    lost = next(iter(outside))
    answers = [probe(lab, room.pod("client"), at(names[lost], f))[0] for f in ("ipv4", "ipv6")]
    assert any(answer.outcome != "answered" for answer in answers)
    # other nodes have room for all
    for number in names.values():
        expect(lab, "node1", at(number, "ipv4"), Reaches(set(room.pods("web"))), tries=1)

    inside = [name for name in names if name not in outside]
    for name in inside[: len(outside)]:
        lab.client.delete(f"/api/v1/namespaces/{room.namespace}/services/{name}")
    until(lambda: not unprogrammed(), "there is room, and they are not programmed", within_s=30)
    for name in [*outside, *inside[len(outside) :]]:
        for family in ("ipv4", "ipv6"):
            reached(room, names[name], family)
