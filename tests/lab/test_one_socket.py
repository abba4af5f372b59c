"""64 Services asked from one UDP socket, many of them with the same backend: each answers for
itself."""

import json
import sys
import time

import pytest

from tests.lab.conftest import Room
from tests.support.manifests import cluster_ip, deployment, service

FIRST, COUNT = 100, 64  # the Services' numbers

# Asks all at once, and again by the same socket; prints [[who was heard, what it said], …] of each.
ASK = """
import json, socket, sys
vips = sys.argv[1:]
with socket.socket(socket.AF_INET6 if ":" in vips[0] else socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.bind(("", 0))
    one.settimeout(3)
    rounds = []
    for _ in range(2):
        heard = []
        for vip in vips:
            one.sendto(f"echo {vip}".encode(), (vip, 80))
        try:
            while len(heard) < len(vips):
                answer, sender = one.recvfrom(100)
                heard.append((sender[0], answer.decode()))
        except (TimeoutError, ConnectionError):
            pass
        rounds.append(sorted(heard))
print(json.dumps(rounds))
"""


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
    )
    return shared_room


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("source", ["pod", "node"])
def test_each_answers_from_the_address_that_was_asked(
    services: Room, source: str, family: str
) -> None:
    vips = [cluster_ip(number, family) for number in range(FIRST, FIRST + COUNT)]
    host = services.pod("client") if source == "pod" else "node1"
    wanted = [sorted([vip, vip] for vip in vips)] * 2
    deadline = time.monotonic() + 15  # until all are programmed
    while True:
        command = [sys.executable, "-I", "-S", "-c", ASK, *vips]
        heard = json.loads(services.lab.exec(host, command, check=True).stdout)
        if heard == wanted:
            break
        assert time.monotonic() < deadline, f"{[len(each) for each in heard]} answers: {heard}"
