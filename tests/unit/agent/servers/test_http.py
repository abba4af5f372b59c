"""The servers for probes and scrapes, over real sockets of the loopback interface."""

import http.client
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ebpf_lb.agent.servers import http as server_module
from ebpf_lb.agent.servers.http import Page, serve
from tests.unit.agent.fakes import Log


def page() -> Page:
    return Page(503, "application/json", b"{}")


@pytest.fixture
def server() -> Iterator[Any]:
    running = serve(("127.0.0.1", 0), {"/livez": page}, "test")
    yield running
    running.close()


def ask(server: Any, path: str, method: str = "GET") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(*server.addresses[0], timeout=30)
    connection.request(method, path)
    return connection.getresponse()


def test_a_page(server: Any) -> None:
    answer = ask(server, "/livez?verbose")
    assert (answer.status, answer.read()) == (503, b"{}")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_what_is_not_there(server: Any) -> None:
    assert ask(server, "/other").status == 404
    assert ask(server, "/livez", "POST").status == 501
    head = ask(server, "/livez", "HEAD")
    assert (head.status, head.read()) == (503, b"")


def test_silent_clients_do_not_keep_others_out(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = [
        socket.create_connection(server.addresses[0])
        for _ in range(server_module.REQUESTS_AT_ONCE + 5)
    ]
    # more than are served at once are turned away; those within the limit time out
    silent[-1].settimeout(30)
    assert silent[-1].recv(1) == b""
    silent[0].settimeout(server_module.REQUEST_TIMEOUT_S + 30)
    assert silent[0].recv(1) == b""
    assert ask(server, "/livez").status == 503
    for one in silent:
        one.close()


def reached(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


def held_for_now() -> socket.socket:
    """A port that the kernel gives to nobody when it is free again."""
    for port in random.sample(range(20_000, 30_000), 100):
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            continue
    raise AssertionError("no port is free")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_all_addresses_are_those_of_both_families(host: str) -> None:
    """As in kube-proxy, whichever way it is written: an IPv6 node's probes come by IPv6."""
    running = serve((host, 0), {"/livez": page}, "test")
    [(_, port)] = running.addresses
    assert reached("127.0.0.1", port) and reached("::1", port)
    running.close()


def test_localhost_is_that_of_both_families_and_no_more() -> None:
    running = serve(("localhost", 0), {"/livez": page}, "test")
    assert [host for host, _ in running.addresses] == ["127.0.0.1", "::1"]
    running.close()


def test_a_port_that_is_taken_is_ours_when_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """kube-proxy has it until it ends."""
    monkeypatch.setattr(server_module, "RETRY_S", 0.05)
    other = held_for_now()
    port = other.getsockname()[1]
    running, log = serve(("0.0.0.0", port), {"/livez": page}, "test"), Log()
    running.tell(log)
    assert running.addresses == []
    [line] = log.of("not served")
    assert line["address"] == f"0.0.0.0:{port}" and line["error"] == "Address already in use"
    time.sleep(0.3)
    assert len(log.lines) == 1
    other.close()
    deadline = time.monotonic() + 30
    while not running.addresses:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert ask(running, "/livez").status == 503
    running.close()


def test_what_is_closed_holds_nothing(server: Any) -> None:
    """A thread that waited on for a closed descriptor kept whatever file got its number."""
    [(host, port)] = server.addresses
    assert ask(server, "/livez").status == 503
    server.close()
    assert [one.name for one in threading.enumerate() if one.name == "test"] == []
    with socket.create_server((host, port)):
        assert reached(host, port)
    assert not reached(host, port)


def test_no_address_is_nowhere() -> None:
    assert serve(None, {"/livez": page}, "test").addresses == []


def test_probes_are_answered_before_the_agents_libraries_are_read() -> None:
    """These take half a second to import, and a compiler may run before the agent does."""
    script = """
import sys
import ebpf_lb.cli.main
from ebpf_lb.agent.config import load
from ebpf_lb.agent.servers.pages import Probes
heavy = ("pyroute2", "prometheus_client", "structlog", "kubernetes", "urllib3", "asyncio", "bcc")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
