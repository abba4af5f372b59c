"""The same tuple leads to the same pod on every node, and stays there while others go."""

import json
import sys

from ebpf_lb.lab.cluster import Lab
from tests.lab.conftest import Room
from tests.lab.test_outside import balanced, given, nodes_of, until
from tests.support.manifests import Manifest, deployment

# One socket a source port, each asks who is there: {port: name}
ASK = """
import json, socket, sys
found = {}
for port in range(41000, 41060):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(2)
        asking.bind(("", port))
        asking.connect((sys.argv[1], 80))
        asking.send(b"hostname")
        found[port] = asking.recv(100).decode()
print(json.dumps(found))
"""


def asked(lab: Lab, address: str, node: str) -> dict[str, str]:
    """Who answers to each source port, by a node."""
    lab.route(address, node)
    nodes_of(lab, address, {node})
    done = lab.exec("client", [sys.executable, "-I", "-S", "-c", ASK, address], check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def maglev(manifest: Manifest) -> Manifest:
    annotations = {"ebpf-lb.io/algorithm": "maglev"}
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": annotations}}


def test_nodes_agree_and_little_moves(room: Room) -> None:
    room.apply(deployment("web", replicas=4), maglev(balanced("web")))
    address = given(room, "web")[0]
    everybody = set(room.pods("web"))
    until(lambda: set(asked(room.lab, address, "node1").values()) == everybody, "not all answer")
    first, second = (asked(room.lab, address, node) for node in ("node1", "node2"))
    assert first == second
    room.apply(deployment("web", replicas=3))
    left = set(room.pods("web"))
    # by a node that has seen none of these before
    third = asked(room.lab, address, "node3")
    assert set(third.values()) == left
    stayed = [port for port, name in first.items() if name in left]
    assert sum(third[port] != first[port] for port in stayed) <= 4
    room.lab.route(address, None)
