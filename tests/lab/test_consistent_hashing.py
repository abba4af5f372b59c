"""The same tuple leads to the same pod on every node, and stays there while others go."""

import json
import sys
from collections import Counter
from collections.abc import Collection

import pytest

from ebpf_lb.lab.cluster import Lab
from tests.lab.conftest import Room
from tests.lab.test_outside import balanced, given, nodes_of, target
from tests.support.checker import Reaches, expect
from tests.support.manifests import Manifest, deployment, pod

# One socket a source port, each asks who is there: {port: name}. No other test's socket has such a
# port, also none that the system chooses: a flow that stands is not chosen for anew.
ASK = """
import json, socket, sys
found = {}
for port in range(21000, 21000 + int(sys.argv[2])):
    family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.settimeout(10)
        asking.bind(("", port))
        asking.connect((sys.argv[1], 80))
        asking.send(b"hostname")
        found[port] = asking.recv(100).decode()
print(json.dumps(found))
"""

ASKING = [sys.executable, "-I", "-S", "-c", ASK]


def asked(lab: Lab, address: str, node: str, ports: int = 240) -> dict[str, str]:
    """Who answers to each source port, by a node."""
    lab.route(address, node)
    nodes_of(lab, address, {node})
    done = lab.exec("client", [*ASKING, address, str(ports)], check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def all_answer(room: Room, address: str, pods: Collection[str], *nodes: str) -> None:
    """Waits until each of the nodes knows just these pods."""
    for node in nodes:
        room.lab.route(address, node)
        nodes_of(room.lab, address, {node})
        expect(room.lab, "client", target(address, 80, "udp"), Reaches(set(pods)))


def annotated(manifest: Manifest, **annotations: str) -> Manifest:
    annotations = {f"ebpf-lb.io/{name}": value for name, value in annotations.items()}
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": annotations}}


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_nodes_agree_and_little_moves(room: Room, family: str) -> None:
    web = annotated(balanced("web"), algorithm="maglev")
    room.apply(deployment("web", replicas=4), web)
    address = next(a for a in given(room, "web") if (":" in a) == (family == "ipv6"))
    all_answer(room, address, room.pods("web"), "node1", "node2")
    first, second = (asked(room.lab, address, node) for node in ("node1", "node2"))
    assert first == second and set(first.values()) == set(room.pods("web"))
    room.apply(deployment("web", replicas=3))
    left = set(room.pods("web"))
    all_answer(room, address, left, "node3")
    # by a node that has seen none of these before
    third = asked(room.lab, address, "node3")
    assert set(third.values()) == left
    stayed = [port for port, name in first.items() if name in left]
    # mostly one of fifty, at worst a third, where two pods prefer slots in steps of one length; by
    # an algorithm that does not care, two of three
    assert sum(third[port] != first[port] for port in stayed) <= len(stayed) // 2
    room.lab.route(address, None)


def test_shares_follow_the_weights(room: Room) -> None:
    """Three to one: of 240, 180 and 60, give or take more than four standard deviations."""
    web = annotated(balanced("web"), weights="node1=3")
    room.apply(*(pod(node, "web", node=node) for node in ("node1", "node2")), web)
    address = given(room, "web")[0]
    all_answer(room, address, {"node1", "node2"}, "node3")
    found = Counter(asked(room.lab, address, "node3").values())
    assert 150 <= found["node1"] <= 210
    room.lab.route(address, None)
