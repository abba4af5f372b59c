"""64 Services asked from one UDP socket, many of them with the same backend: each answers for
itself."""

import json
import sys
import time
from typing import Any

import pytest

from tests.lab.conftest import Room
from tests.support.checker import SETTLED_S
from tests.support.manifests import cluster_ip, deployment, service

FIRST, COUNT = 100, 64  # the Services' numbers

NODE_PORT, NODE_PORTS = 31500, 12

# Asks all at once, and again by the same socket; prints [[who was heard, what it said], …] of each.
ASK = """
import json, socket, sys
ends = [(end.rpartition(":")[0], int(end.rpartition(":")[2])) for end in sys.argv[1:]]
family = socket.AF_INET6 if ":" in ends[0][0] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as one:
    one.bind(("", 0))
    one.settimeout(3)
    rounds = []
    for _ in range(2):
        heard = []
        for end in ends:
            one.sendto("echo {}:{}".format(*end).encode(), end)
        try:
            while len(heard) < len(ends):
                answer, sender = one.recvfrom(100)
                heard.append(("{}:{}".format(*sender), answer.decode()))
        except (TimeoutError, ConnectionError):
            pass
        rounds.append(sorted(heard))
print(json.dumps(rounds))
"""


def node_port(number: int) -> dict[str, Any]:
    """A Service of the same two pods at the node port NODE_PORT + number, for UDP."""
    made = service(
        f"n{number}", app=("near", "far")[number % 2], protocols=["UDP"], type="NodePort"
    )
    made["spec"]["ports"][0]["nodePort"] = NODE_PORT + number
    return made


@pytest.fixture(scope="module")
def services(shared_room: Room) -> Room:
    """Two pods, one on the client's node, that have 32 Services each."""
    shared_room.apply(
        deployment("client", node="node1"),
        deployment("near", node="node1"),
        deployment("far", node="node2"),
        *(
            service(f"s{number}", number=number, app=("near", "far")[number % 2])
            for number in range(FIRST, FIRST + COUNT)
        ),
        *(node_port(number) for number in range(NODE_PORTS)),
    )
    return shared_room


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("source", ["pod", "node"])
def test_each_answers_from_the_address_that_was_asked(
    services: Room, source: str, family: str
) -> None:
    vips = [f"{cluster_ip(number, family)}:80" for number in range(FIRST, FIRST + COUNT)]
    asked_until_all_answer(services, services.pod("client") if source == "pod" else "node1", vips)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_so_do_node_ports_that_the_node_asks_by_its_own_address(
    services: Room, family: str
) -> None:
    """Their packets do not leave the node: what the socket cannot tell apart, loopback can."""
    addresses = services.lab.node("node1").addresses
    own = next(a for a in addresses if (":" in a) == (family == "ipv6"))
    ends = [f"{own}:{NODE_PORT + number}" for number in range(NODE_PORTS)]
    asked_until_all_answer(services, "node1", ends)


def asked_until_all_answer(services: Room, host: str, ends: list[str]) -> None:
    wanted = [sorted([end, end] for end in ends)] * 2
    deadline = time.monotonic() + SETTLED_S  # until all are programmed
    while True:
        command = [sys.executable, "-I", "-S", "-c", ASK, *ends]
        heard = json.loads(services.lab.exec(host, command, check=True).stdout)
        if heard == wanted:
            break
        assert time.monotonic() < deadline, f"{[len(each) for each in heard]} answers: {heard}"
