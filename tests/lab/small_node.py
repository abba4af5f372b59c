"""A node whose agent has other settings for a while, and what it says of itself then."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from ebpf_lb.lab.cluster import Lab
from tests.lab.conftest import Room
from tests.support.checker import Reaches, expect
from tests.support.manifests import cluster_ip

NODE = "node2"
EBPF_LB = [sys.executable, "-m", "ebpf_lb"]

PAGE = """
import sys, urllib.request
print(urllib.request.urlopen(f"http://127.0.0.1:10249{sys.argv[1]}").read().decode())
"""

# SYNs from many ports, without a right checksum: nobody answers, so there are flows and no more.
# Arguments: the address, how many, the port if it is not 80.
FLOOD = """
import socket, struct, sys
six, to = ":" in sys.argv[1], int((sys.argv[3:] or ["80"])[0])
with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, 6) as raw:
    for port in range(2000, 2000 + int(sys.argv[2])):
        syn = struct.pack("!HHIIBBHHH", port, to, 1, 0, 5 << 4, 2, 1024, 0, 0)
        raw.sendto(syn, (sys.argv[1], 0))
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
            held.append(socket.create_connection((sys.argv[1], 80), 4))  # SYNs after 1 s and 3 s
            held[-1].settimeout(30)
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


def python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", script, *arguments]


def restart(lab: Lab) -> None:
    """The node's agent, with the environment as it is."""
    lab.stop_agent(NODE)
    lab.start_agent(NODE)
    lab.wait_for_agents(only=NODE)  # a build of its own may be compiled here


@contextmanager
def other_settings(lab: Lab, environment: Mapping[str, str]) -> Iterator[None]:
    """The node's agent has these meanwhile: EBPF_LB_… -> value."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        restart(lab)
    try:
        yield
    finally:
        restart(lab)


class Holder:
    """Connections that are held, to port 80 of an address."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def hold(self, most: int, failures: int = 1) -> list[int]:
        """[how many were opened, how many in vain, how many of all have answered]"""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{most} {failures}\n")
        self._process.stdin.flush()
        return list(json.loads(self._process.stdout.readline()))


@contextmanager
def holder(room: Room, address: str) -> Iterator[Holder]:
    process = room.lab.popen(
        room.pod("client"), python(HOLD, address), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield Holder(process)
    finally:
        process.kill()
        process.communicate()


def at(number: int, family: str) -> str:
    vip = cluster_ip(number, family)
    return f"[{vip}]:80/tcp" if family == "ipv6" else f"{vip}:80/tcp"


def reached(room: Room, number: int, family: str, app: str = "web") -> None:
    """By the client, and all pods of the deployment."""
    names = set(room.pods(app))
    source = room.pod("client")
    tries = 3 if len(names) == 1 else Reaches(names).tries
    expect(room.lab, source, at(number, family), Reaches(names), tries=tries)


def page(lab: Lab, path: str) -> str:
    return str(lab.exec(NODE, ["python3", "-c", PAGE, path], check=True).stdout)


def counted(lab: Lab, metric: str, family: str = "", **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    found = 0.0
    if family:
        labels["family"] = family
    for line in page(lab, "/metrics").splitlines():
        match = re.fullmatch(rf"{metric}(?:{{(.*)}})? (\S+)", line)
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        if match and wanted <= set((match[1] or "").split(",")):
            found += float(match[2])
    return found


def not_programmed(room: Room) -> dict[str, list[str]]:
    """Services of the room that the agent says it has not programmed, with its sentences."""
    said: dict[str, list[str]] = {}
    for sentence in json.loads(page(room.lab, "/status"))["notProgrammed"]:
        found = re.search(rf"Service port {room.namespace}/([^: ]+)", sentence)
        assert found is not None, sentence
        said.setdefault(found[1], []).append(sentence)
    return said


def warned(room: Room, words: str) -> set[str]:
    """The Services of the room about which an Event says that."""
    found = room.lab.client.get(f"/api/v1/namespaces/{room.namespace}/events")["items"]
    return {e["involvedObject"]["name"] for e in found if words in e["message"]}
