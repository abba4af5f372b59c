"""healthCheckNodePort as a balancer outside sees it, on every node, over both families."""

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from ebpf_lb.lab.cluster import Lab
from tests.lab.conftest import Room
from tests.lab.test_outside import until
from tests.support.checker import SETTLED_S
from tests.support.manifests import deployment, pod, service

Cli = Callable[..., subprocess.CompletedProcess[str]]
PORT = 32190
HOLD = """\
import socket, sys, time
held = socket.create_server(("", int(sys.argv[1])))
print("it is mine", flush=True)
time.sleep(600)
"""


def balancer(**spec: Any) -> dict[str, Any]:
    fields = {"externalTrafficPolicy": "Local", "healthCheckNodePort": PORT, **spec}
    return service("web", protocols=("TCP",), type="LoadBalancer", **fields)


def ask(lab: Lab, node: str, family: int, port: int = PORT) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body; status 0 where nobody listens."""
    address = next(a for a in lab.node(node).addresses if (":" in a) == (family == 6))
    url = (
        f"http://[{address}]:{port}/healthz" if family == 6 else f"http://{address}:{port}/healthz"
    )
    done = lab.exec("client", ["curl", "-si", "-m", "20", url])
    if done.returncode == 7:  # refused
        return 0, {}, None
    assert done.returncode == 0, (done.returncode, done.stderr)
    head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.split("\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split(" ")[1]), headers, json.loads(body)


def expect(lab: Lab, wanted: dict[str, int | None], port: int = PORT) -> None:
    """Local endpoints by node; None where the port must be closed."""
    deadline = time.monotonic() + SETTLED_S
    while True:
        found = {}
        for node in wanted:
            for family in (4, 6):
                status, headers, body = ask(lab, node, family, port)
                count = body["localEndpoints"] if status else None
                found[node, family] = count
                if status:
                    assert status == (200 if count else 503)
                    assert headers["X-Load-Balancing-Endpoint-Weight"] == str(count)
                    assert headers["Content-Type"] == "application/json"
                    assert headers["X-Content-Type-Options"] == "nosniff"
                    assert body["serviceProxyHealthy"] is True
        if found == {(node, family): wanted[node] for node in wanted for family in (4, 6)}:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


@pytest.mark.rule("HE-3")
def test_ready_local_endpoints_are_counted(room: Room, cli: Cli) -> None:
    lab = room.lab
    room.apply(
        pod("web-1", "web", node="node1"), pod("web-2", "web", node="node1"),
        pod("web-3", "web", node="node2"), balancer(),
    )  # fmt: skip
    expect(lab, {"node1": 2, "node2": 1, "node3": 0})
    _, _, body = ask(lab, "node1", 4)
    assert body["service"] == {"namespace": room.namespace, "name": "web"}

    for change, wanted in (
        (("web-1", "--unready"), {"node1": 1, "node2": 1, "node3": 0}),
        # terminating ones still get connections where there are no others, but never count
        (("web-3", "--terminate"), {"node1": 1, "node2": 0, "node3": 0}),
        (("web-1", "--ready"), {"node1": 2, "node2": 0, "node3": 0}),
    ):
        done = cli("pod", *change, "-n", room.namespace)
        assert done.returncode == 0, done.stderr
        expect(lab, wanted)

    room.apply(balancer(externalTrafficPolicy="Cluster", healthCheckNodePort=None))
    expect(lab, {"node1": None, "node2": None, "node3": None})


@pytest.mark.rule("HE-4")
def test_a_port_that_somebody_else_has(room: Room) -> None:
    lab = room.lab
    holder = lab.popen("node2", ["python3", "-c", HOLD, str(PORT)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        room.apply(deployment("web", node="node2"), balancer())
        expect(lab, {"node1": 0, "node3": 0})

        def problems() -> list[str]:
            asked = lab.exec("node2", ["curl", "-s", "http://127.0.0.1:10249/status"], check=True)
            return list(json.loads(asked.stdout)["healthCheckProblems"])

        assert [str(PORT) in text for text in until(problems, "nothing is said")] == [True]
    finally:
        holder.kill()
        holder.wait()
    expect(lab, {"node1": 0, "node2": 1, "node3": 0})
