"""The configuration, by nginx itself, and what nginx does with it."""

import http.client
import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from ebpf_lb.containers.ingress.nginx import Nginx, program
from ebpf_lb.containers.ingress.render import render
from ebpf_lb.containers.ingress.rules import ANY_HOST, Backend, Host, Location, Sites
from ebpf_lb.containers.podserver import http as podserver
from ebpf_lb.lab import namespaces
from ebpf_lb.lab.links import Links
from tests.capabilities import NETNS, needs

TEA = Backend("shop", "tea", "80", ("127.0.0.1:8080",))
NOBODY = Backend("shop", "water", "80", ())
NOTHING = Host(ANY_HOST)


def locations(*matches: tuple[str, bool], backend: Backend = TEA) -> list[Location]:
    return [Location(path, exact, backend, "", "shop/a") for path, exact in matches]


def sites(*hosts: Host) -> Sites:
    return Sites((NOTHING, *hosts), (), ())


def matches(*wanted: tuple[str, bool]) -> list[str]:
    text = render(
        sites(Host("cafe", locations(*wanted))),
        Path("/x"),
        {"": Path("/x/a"), "cafe": Path("/x/b")},
    )
    lines = [line.strip() for line in text.partition("server_name cafe;")[2].splitlines()]
    return [line.removeprefix("location ").split(" {")[0] for line in lines if "location" in line]


def test_a_prefix_ends_with_a_paths_element() -> None:
    assert matches(("/tea", False)) == ['= "/tea"', '"/tea/"', "/"]
    assert matches(("/tea/", False)) == ['= "/tea"', '"/tea/"', "/"]
    assert matches(("/", False)) == ['"/"']
    assert matches(("/tea", True)) == ['= "/tea"', "/"]


def test_an_exact_path_goes_before_the_same_prefix() -> None:
    text = render(
        sites(Host("cafe", [*locations(("/a", False)), *locations(("/a", True), backend=NOBODY)])),
        Path("/x"),
        {"": Path("/x/a"), "cafe": Path("/x/b")},
    )
    exact = text.partition('location = "/a"')[2]
    assert exact.index("503") < exact.index("proxy_pass")
    assert text.count('location = "/a"') == 1


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """This thread is in a network namespace of its own, with nothing but a loopback."""
    netns = Path(f"/run/netns/ebpflb-ingress-{os.getpid()}")
    namespaces.create(netns)
    with namespaces.entered(netns):
        with Links(netns) as links:
            links.up("lo")
        yield tmp_path
    namespaces.remove(netns)


@contextmanager
def running(folder: Path, found: Sites) -> Iterator[Nginx]:
    nginx = Nginx(folder)
    try:
        assert nginx.serve(found)
        yield nginx
    finally:
        pid = int((folder / "nginx.pid").read_text())
        os.kill(pid, signal.SIGQUIT)
        os.waitpid(pid, 0)


def pod(name: str, port: int) -> None:
    """A server of the lab's pods, in this thread's namespace."""
    listener = socket.create_server(("127.0.0.1", port))
    threading.Thread(target=podserver.serve, args=(listener, name), daemon=True).start()


def ask(path: str, host: str = "cafe") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=10)
    connection.request("GET", path, headers={"Host": host})
    response = connection.getresponse()
    return response.status, response.read().decode()


pytestmark = needs(NETNS)


def test_who_answers_for_what(place: Path) -> None:
    pod("tea-1", 8080)
    odd = '/a"b\\c; } $x'
    with running(
        place,
        sites(
            Host("cafe", locations(("/hostname", False), (odd, True))),
            Host("dry", locations(("/", False), backend=NOBODY)),
            Host("*.shop", locations(("/", False))),
        ),
    ):
        assert ask("/hostname") == (200, "tea-1")
        assert ask("/hostnames") == (404, "default backend - 404")
        assert ask("/", "elsewhere") == (404, "default backend - 404")
        assert ask("/", "dry")[0] == 503
        assert ask("/hostname", "any.shop") == (200, "tea-1")
        assert ask("/header?key=X-Forwarded-For", "any.shop") == (200, "127.0.0.1")
        # the path reaches the pod, which does not have it
        assert ask("/a%22b%5Cc;%20%7D%20$x") == (404, "404 page not found")


def test_each_name_has_its_certificate(place: Path) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("cafe").private_key_and_cert_chain_pem.bytes()
    cafe = Host("cafe", locations(("/", False)), certificate=made, tls=True, redirect=True)
    with running(place, sites(cafe)):
        assert ask("/x?y=z")[0] == 308
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        for name in ("cafe", "other"):
            connection = socket.create_connection(("127.0.0.1", 443), timeout=10)
            if name == "cafe":
                trusting.wrap_socket(connection, server_hostname=name).close()
            else:  # gets the controller's own
                with pytest.raises(ssl.SSLCertVerificationError):
                    trusting.wrap_socket(connection, server_hostname=name)
            connection.close()


def test_a_request_goes_on_while_the_configuration_is_read_again(place: Path) -> None:
    """Its worker is one of before, and serves it to the end: what it was promised."""
    pod("tea-1", 8080)
    pod("tea-2", 8081)
    size = 64 << 20
    with running(place, sites(Host("cafe", locations(("/", False))))) as nginx:
        connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=10)
        connection.request("GET", f"/source?bytes={size}", headers={"Host": "cafe"})
        response = connection.getresponse()
        other = Backend("shop", "tea", "80", ("127.0.0.1:8081",))
        assert nginx.serve(sites(Host("cafe", locations(("/", False), backend=other))))
        answers = [ask("/")]
        while answers[-1] != (200, "tea-2"):
            assert len(answers) < 1000
            answers.append(ask("/"))
        assert set(answers) <= {(200, "tea-1"), (200, "tea-2")}
        assert len(response.read()) == size


def test_what_nginx_does_not_take_changes_nothing(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pod("tea-1", 8080)
    with running(place, sites(Host("cafe", locations(("/", False))))) as nginx:
        bad = Host("cafe", locations(("/", False)), certificate=b"no certificate", tls=True)
        assert not nginx.serve(sites(bad))
        assert "does not take the new configuration" in caplog.text
        assert ask("/") == (200, "tea-1")


def test_the_program_is_there() -> None:
    assert Path(program()).name == "nginx"
