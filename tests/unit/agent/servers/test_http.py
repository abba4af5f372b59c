"""The servers for probes and scrapes, over real sockets of the loopback interface."""

import http.client
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from ebpf_lb.agent.servers import http as server_module
from ebpf_lb.agent.servers.http import Page, serve


def page() -> Page:
    return Page(503, "application/json", b"{}")


@pytest.fixture
def server() -> Iterator[Any]:
    running = serve(("127.0.0.1", 0), {"/livez": page}, "test")
    yield running
    running.server_close()


def ask(server: Any, path: str, method: str = "GET") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=30)
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
        socket.create_connection(server.server_address[:2])
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


def test_ipv6_and_a_port_that_is_taken() -> None:
    running = serve(("::1", 0), {"/livez": page}, "test")
    host, port = running.server_address[:2]
    with pytest.raises(OSError, match="in use"):
        serve((str(host), int(port)), {}, "test")
    running.server_close()
