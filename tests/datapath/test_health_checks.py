"""Health checks of Services over real sockets, in a network namespace of the tests' own."""

import http.client
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from ebpf_lb.agent.servers import health_checks
from ebpf_lb.agent.servers.health_checks import HealthCheckServers
from ebpf_lb.lab import namespaces, topology
from ebpf_lb.model.key import ObjectKey
from ebpf_lb.plan.health import HealthCheck

from ..capabilities import IPV6, NETNS, ROOT, needs

pytestmark = needs(ROOT, NETNS, IPV6)

WEB, OTHER = ObjectKey("shop", "web"), ObjectKey("shop", "other")
PORT = 32100
PATIENCE_S = 30  # for what is sure to come
NODE4, NODE6 = "192.0.2.11", "2001:db8::11"


@pytest.fixture(autouse=True)
def namespace() -> Iterator[None]:
    """This thread is in it meanwhile; it has an address of each family beside loopback's."""
    path = Path(f"/run/netns/eblb-health-{os.getpid()}")
    topology.make_namespace(path)
    try:
        with namespaces.entered(path):
            for words in (
                # (a bridge without ports loses its carrier in the middle of it, and IPv6 its route)
                "link add eth0 type veth peer name other",
                "link set other up",
                f"addr add {NODE4}/24 dev eth0",
                f"addr add {NODE6}/64 dev eth0 nodad",
                "link set eth0 up",
            ):
                subprocess.run(["ip", *words.split()], check=True)
            yield
    finally:
        namespaces.remove(path)


class Node:
    """The servers, and what they say to the rest of the agent."""

    def __init__(self) -> None:
        self.healthy = True
        self.reports: list[tuple[ObjectKey, str]] = []
        self.servers = HealthCheckServers(
            lambda: self.healthy,
            structlog.get_logger(),
            lambda key, sentence: self.reports.append((key, sentence)),
        )

    def plan(self, key: ObjectKey, endpoints: int | None, port: int = PORT) -> None:
        checks = () if endpoints is None else (HealthCheck(key, port, endpoints),)
        self.servers.set(key, checks)


@pytest.fixture
def node() -> Iterator[Node]:
    running = Node()
    yield running
    running.servers.close()


def ask(
    path: str = "/", address: str = NODE4, port: int = PORT, method: str = "GET"
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(address, port, timeout=PATIENCE_S)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer, answer.read()


@pytest.mark.rule("HE-1", "HE-2")
@pytest.mark.parametrize("address", [NODE4, NODE6, "127.0.0.1", "::1"])
def test_the_answer(node: Node, address: str) -> None:
    node.plan(WEB, 2)
    node.servers.apply()
    answer, body = ask("/any/path?x", address)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Load-Balancing-Endpoint-Weight"] == "2"
    assert json.loads(body) == {
        "service": {"namespace": "shop", "name": "web"},
        "localEndpoints": 2,
        "serviceProxyHealthy": True,
    }


@pytest.mark.rule("HE-1")
def test_no_endpoint_here_or_a_proxy_that_is_stuck_sends_balancers_away(node: Node) -> None:
    for endpoints, healthy, status in ((0, True, 503), (3, False, 503), (3, True, 200)):
        node.healthy = healthy
        node.plan(WEB, endpoints)
        node.servers.apply()
        answer, body = ask()
        assert answer.status == status
        assert answer.headers["X-Load-Balancing-Endpoint-Weight"] == str(endpoints)
        said = json.loads(body)
        assert (said["localEndpoints"], said["serviceProxyHealthy"]) == (endpoints, healthy)


def test_the_port_goes_with_the_service_and_comes_back(node: Node) -> None:
    for _ in range(2):
        node.plan(WEB, 1)
        node.servers.apply()
        assert ask()[0].status == 200
        node.plan(WEB, None)
        node.servers.apply()
        with pytest.raises(ConnectionRefusedError):
            ask()
    assert node.servers.ports == 0


def test_a_port_that_changes_and_one_that_changes_hands(node: Node) -> None:
    node.plan(WEB, 1)
    node.servers.apply()
    node.plan(OTHER, 5)  # is named first, but must wait for what closes
    node.plan(WEB, 1, PORT + 1)
    node.servers.apply()
    assert json.loads(ask()[1])["service"]["name"] == "other"
    assert json.loads(ask(port=PORT + 1)[1])["service"]["name"] == "web"
    assert node.reports == []


@pytest.mark.rule("HE-4")
def test_a_port_that_is_taken_is_reported_once_asked_for_again_and_disturbs_no_other(
    node: Node,
) -> None:
    with socket.create_server((NODE4, PORT)):
        node.plan(WEB, 1)
        node.plan(OTHER, 1, PORT + 1)
        node.servers.apply()
        node.servers.retry()
        [(key, sentence)] = node.reports
        assert key == WEB
        assert f"{PORT}" in sentence
        assert node.servers.failed == {WEB: sentence}
        assert node.servers.ports == 1
        assert ask(port=PORT + 1)[0].status == 200
    node.servers.retry()
    assert node.servers.failed == {}
    assert ask()[0].status == 200


def test_two_services_with_one_port(node: Node) -> None:
    node.plan(WEB, 1)
    node.plan(OTHER, 2)
    node.servers.apply()
    [(key, sentence)] = node.reports
    assert (key, sentence.endswith(": Service shop/web has it")) == (OTHER, True)
    node.plan(WEB, None)
    node.servers.apply()
    assert json.loads(ask()[1])["service"]["name"] == "other"
    assert not node.servers.failed


def test_a_taken_port_of_a_service_that_goes_is_no_failure_any_more(node: Node) -> None:
    with socket.create_server((NODE4, PORT)):
        node.plan(WEB, 1)
        node.servers.apply()
        assert node.servers.failed
        node.plan(WEB, None)
        node.servers.apply()
        assert not node.servers.failed


def test_any_method_and_old_or_careless_clients(node: Node) -> None:
    node.plan(WEB, 1)
    node.servers.apply()
    answer, body = ask(method="HEAD")
    assert (answer.status, body) == (200, b"")
    assert ask(method="POST")[0].status == 200
    for request, start in (
        (b"GET / HTTP/1.0\n\n", b"HTTP/1.1 200 "),
        (b"hello\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 4000, b"HTTP/1.1 400 "),
    ):
        assert _talk(request).startswith(start)


def test_silent_clients_are_given_up_and_keep_nobody_out(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_checks, "REQUEST_TIMEOUT_S", 2)
    node.plan(WEB, 1)
    node.servers.apply()
    threads = set(threading.enumerate())
    silent = [socket.create_connection((NODE4, PORT)) for _ in range(100)]
    assert ask()[0].status == 200
    assert set(threading.enumerate()) <= threads  # one serves all
    silent[0].settimeout(PATIENCE_S)
    assert silent[0].recv(1) == b""
    for one in silent:
        one.close()


def test_many_ports_share_a_thread(node: Node) -> None:
    keys = [ObjectKey("many", f"s{number}") for number in range(50)]
    for number, key in enumerate(keys):
        node.plan(key, number, PORT + number)
    before = set(threading.enumerate())
    node.servers.apply()
    assert len(set(threading.enumerate()) - before) == 1
    for number, key in enumerate(keys):
        said: Any = json.loads(ask(port=PORT + number)[1])
        assert (said["service"]["name"], said["localEndpoints"]) == (key.name, number)


def _talk(request: bytes) -> bytes:
    with socket.create_connection((NODE4, PORT), timeout=PATIENCE_S) as connection:
        connection.sendall(request)
        return connection.recv(1 << 16)
