"""UDP sockets of the node's own, through the life of the backends that they were translated to."""

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.lab.conftest import Room
from tests.support.checker import Reaches, expect
from tests.support.manifests import cluster_ip, deployment, service

each_family = pytest.mark.parametrize("family", ["ipv4", "ipv6"])

# Sockets to a VIP and, directly, to pods: who answers. After a line of input, which names the pod
# that has left: what those that it served by the VIP hear without asking, then what all others are
# answered.
CONNECTED = """
import errno, json, socket, sys
vip, pods = sys.argv[1], sys.argv[2:]
family = socket.AF_INET6 if ":" in vip else socket.AF_INET
def ask(connected):
    connected.settimeout(5)
    try:
        connected.send(b"hostname")
        return connected.recv(100).decode()
    except TimeoutError:
        return "silent"
    except OSError as error:
        return errno.errorcode[error.errno]
def wait(connected):
    connected.settimeout(60)
    try:
        return connected.recv(100).decode() or "closed"
    except TimeoutError:
        return "silent"
    except OSError as error:
        return errno.errorcode[error.errno]
sockets = {}
for kind, address, number in (("vip", vip, 24), *(("pod", pod, 1) for pod in pods)):
    for index in range(number):
        fresh = socket.socket(family, socket.SOCK_DGRAM)
        fresh.connect((address, 80))
        sockets[f"{kind} {address} {index}"] = fresh
streams = [socket.create_connection((vip, 80)) for _ in range(4)]
before = {name: ask(each) for name, each in sockets.items()}
print(json.dumps(before), flush=True)
gone = sys.stdin.readline().strip()
hearing = [name for name in sockets if name.startswith("vip ") and before[name] == gone]
found = {name: wait(sockets[name]) for name in hearing}
found |= {name: ask(each) for name, each in sockets.items() if name not in hearing}
found["streams"] = [each.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for each in streams]
print(json.dumps(found), flush=True)
"""

# One unconnected socket asks two addresses at once and tells who answered.
UNCONNECTED = """
import json, socket, sys
vips = sys.argv[1:]
with socket.socket(socket.AF_INET6 if ":" in vips[0] else socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.settimeout(20)
    for vip in vips:
        one.sendto(b"hostname", (vip, 80))
    heard = [one.recvfrom(100) for _ in vips]
print(json.dumps({sender[0]: answer.decode() for answer, sender in heard}))
"""


def python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", script, *arguments]


def addresses(room: Room, app: str, family: str) -> dict[str, str]:
    """Pods' addresses of a family, by name."""
    return {
        name: next(a for a in pod.addresses if (":" in a) == (family == "ipv6"))
        for name, pod in room.pods(app).items()
    }


@pytest.mark.rule("CO-19")
@each_family
def test_connected_sockets_hear_that_their_backend_left(room: Room, family: str) -> None:
    room.apply(deployment("web", replicas=2), service("web", number=71))
    vip = cluster_ip(71, family)
    target = f"[{vip}]:80/udp" if family == "ipv6" else f"{vip}:80/udp"
    expect(room.lab, "node2", target, Reaches(set(room.pods("web"))))
    pods = addresses(room, "web", family)
    client = room.lab.popen(
        "node2", python(CONNECTED, vip, *pods.values()),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert client.stdin is not None and client.stdout is not None
    try:
        before: dict[str, Any] = json.loads(client.stdout.readline())
        assert set(before.values()) == set(pods)
        room.apply(deployment("web", replicas=1))
        (left,) = room.pods("web")
        expect(room.lab, "node2", target, Reaches({left}))
        [gone] = set(pods) - {left}
        client.stdin.write(f"{gone}\n")
        client.stdin.flush()
        after: dict[str, Any] = json.loads(client.stdout.readline())
    finally:
        client.kill()
        client.wait()
        client.stdin.close()
        client.stdout.close()
    assert after.pop("streams") == [0] * 4
    for name, answer in after.items():
        if before[name] == left:
            assert answer == left, name
        elif name.startswith("vip "):
            assert answer == "ECONNABORTED", name
        else:
            # connected by its owner to a pod: nothing of ours, whatever the network says of it
            assert answer in ("silent", "EHOSTUNREACH", "ENETUNREACH", "ECONNREFUSED"), name
    assert "ECONNABORTED" in after.values()


@each_family
@pytest.mark.parametrize("where", ["node1", "node3"])
def test_two_services_of_one_pod_from_one_socket(room: Room, family: str, where: str) -> None:
    """By the socket alone their answers could not be told apart."""
    room.apply(
        deployment("web", node=where),
        service("one", app="web", number=72),
        service("two", app="web", number=73),
    )
    vips = [cluster_ip(72, family), cluster_ip(73, family)]
    for vip in vips:
        target = f"[{vip}]:80/udp" if family == "ipv6" else f"{vip}:80/udp"
        expect(room.lab, "node1", target, Reaches(set(room.pods("web"))))
    (name,) = room.pods("web")
    for _ in range(3):
        done = room.lab.exec("node1", python(UNCONNECTED, *vips), check=True)
        assert json.loads(done.stdout) == {vips[0]: name, vips[1]: name}
        time.sleep(0.1)
