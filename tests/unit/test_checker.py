"""The checker must report a difference where there is one; the probe must tell outcomes apart."""

import http.server
import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.checker import (
    Dropped,
    Outcome,
    Reaches,
    ReachesCount,
    Refused,
    SourceSeen,
    SticksToOneOf,
    Target,
    expect,
    tries_to_see_all,
)
from tests.support.probe import (
    Answer,
    crc32c,
    sctp_chunk,
    sctp_chunks,
    sctp_packet,
    state_cookie,
)

PATIENT = {"timeout_s": 30.0}  # where an answer is sure to come


def answered(*texts: str) -> list[Answer]:
    return [Answer("answered", text) for text in texts]


SILENT, REFUSED = Answer("silent", seconds=1.0), Answer("refused", seconds=0.001)


@pytest.mark.parametrize(
    ("outcome", "answers", "difference"),
    [
        (Reaches({"a", "b"}), answered("a", "b", "a"), None),
        (Reaches({"a", "b"}), answered("a", "a"), r"reached \['a'\], not \['a', 'b'\]"),
        (Reaches({"a"}), answered("a", "b"), r"reached \['a', 'b'\], not \['a'\]: a 1 times, b 1"),
        (Reaches({"a"}), [*answered("a"), REFUSED], "1 of 2 tries failed"),
        (ReachesCount(2), answered("a", "b", "a"), None),
        (ReachesCount(2), answered("a", "a"), "reached 1, not 2: a 2 times"),
        (ReachesCount(1), [*answered("a"), SILENT], "1 of 2 tries failed"),
        (SticksToOneOf({"a", "b"}), answered("b", "b"), None),
        (SticksToOneOf({"a", "b"}), answered("b", "a"), "reached"),
        (SticksToOneOf({"a"}), answered("c", "c"), "none of"),
        (SticksToOneOf({"a"}), [SILENT], "reached silent"),
        (Refused(), [REFUSED, REFUSED], None),
        (Refused(), [REFUSED, SILENT], "not refused each time: refused 1 times, silent 1 times"),
        (Refused(), [Answer("refused", seconds=0.7)], "only after 0.700 s"),
        (Dropped(), [SILENT], None),
        (Dropped(), [REFUSED], "not silent"),
        (SourceSeen({"10.0.0.1"}), answered("10.0.0.1:4321"), None),
        (SourceSeen({"fd00::1"}), answered("[fd00::1]:4321"), None),
        (SourceSeen({"10.0.0.1"}), answered("10.0.0.2:4321"), "10.0.0.2 1 times"),
        (SourceSeen({"10.0.0.1"}), [SILENT], "some tries failed"),
    ],
)
def test_difference(outcome: Outcome, answers: list[Answer], difference: str | None) -> None:
    found = outcome.difference(answers)
    if difference is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(difference, found)


def test_so_many_tries_that_a_miss_is_not_chance() -> None:
    for count in (2, 3, 5):
        tries = tries_to_see_all(count)
        assert count * (1 - 1 / count) ** tries <= 1e-6 < count * (1 - 1 / count) ** (tries - 1)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("10.96.0.9:80/tcp", Target("10.96.0.9", 80, "tcp")),
        ("[fd00::9]:53/udp", Target("fd00::9", 53, "udp")),
    ],
)
def test_target(text: str, target: Target) -> None:
    assert Target.parse(text) == target


@pytest.mark.parametrize("text", ["10.96.0.9/tcp", "10.96.0.9:80", "10.96.0.9:80/icmp"])
def test_no_target(text: str) -> None:
    with pytest.raises(ValueError, match="ADDRESS:PORT"):
        Target.parse(text)


class Here:
    """A `lab` whose every host is this machine."""

    def exec(self, host: str, argv: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, capture_output=True, text=True, check=False)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"{self.path} for {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64  # several tries at once


@pytest.fixture
def web() -> Iterator[int]:
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def datagrams() -> Iterator[Callable[[bool], int]]:
    """Starts a server of datagrams; if so asked, one that answers from another address."""
    sockets: list[socket.socket] = []

    def start(lying: bool) -> int:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        liar = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sockets.extend((server, liar))
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                try:
                    data, client = server.recvfrom(100)
                except OSError:
                    return
                (liar if lying else server).sendto(data.upper(), client)

        threading.Thread(target=serve, daemon=True).start()
        port: int = server.getsockname()[1]
        return port

    yield start
    for each in sockets:
        each.close()


@pytest.fixture
def refusing() -> Iterator[Callable[[socket.SocketKind], int]]:
    """Ports of sockets that nobody else gets meanwhile, and that take nothing."""
    sockets = []

    def port(kind: socket.SocketKind) -> int:
        sockets.append(socket.socket(socket.AF_INET, kind))
        sockets[-1].bind(("127.0.0.1", 0))
        if kind == socket.SOCK_DGRAM:
            sockets[-1].connect(("127.0.0.1", 9))  # hears nobody else
        number: int = sockets[-1].getsockname()[1]
        return number

    yield port
    for each in sockets:
        each.close()


def test_tcp_reaches(web: int) -> None:
    to = f"127.0.0.1:{web}/tcp"
    expect(Here(), "here", to, Reaches({"/hostname for 127.0.0.1"}), within_s=0, **PATIENT)
    with pytest.raises(AssertionError, match=r"reached .*hostname.*, not \['pod'\]"):
        expect(Here(), "here", to, Reaches({"pod"}), within_s=0, **PATIENT)


@pytest.mark.parametrize("connected", [True, False])
def test_udp_reaches(datagrams: Callable[[bool], int], connected: bool) -> None:
    to = f"127.0.0.1:{datagrams(False)}/udp"
    expect(Here(), "here", to, Reaches({"HOSTNAME"}), within_s=0, connected=connected, **PATIENT)


def test_udp_answer_from_elsewhere_is_reported(datagrams: Callable[[bool], int]) -> None:
    to = f"127.0.0.1:{datagrams(True)}/udp"
    with pytest.raises(AssertionError, match="was answered by 127"):
        expect(Here(), "here", to, Reaches({"HOSTNAME"}), within_s=0, connected=False, **PATIENT)


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_refused_and_not_silent(
    refusing: Callable[[socket.SocketKind], int], protocol: str, connected: bool
) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    to = f"127.0.0.1:{refusing(kind)}/{protocol}"
    expect(Here(), "here", to, Refused(), within_s=0, connected=connected, **PATIENT)
    with pytest.raises(AssertionError, match="not silent each time: refused 5 times"):
        expect(Here(), "here", to, Dropped(), within_s=0, connected=connected, **PATIENT)


def test_silent_and_not_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        to = f"127.0.0.1:{deaf.getsockname()[1]}/udp"
        expect(Here(), "here", to, Dropped(), within_s=0, timeout_s=0.2)
        with pytest.raises(AssertionError, match="not refused each time: silent 5 times"):
            expect(Here(), "here", to, Refused(), within_s=0, timeout_s=0.2)


def test_waits_until_it_is_so() -> None:
    class Changing(Here):
        calls = 0

        def exec(self, host: str, argv: list[str]) -> subprocess.CompletedProcess[str]:
            self.calls += 1
            text = "new" if self.calls == 3 else "old"
            answers = json.dumps([{"outcome": "answered", "text": text}])
            return subprocess.CompletedProcess(argv, 0, answers, "")

    lab = Changing()
    expect(lab, "here", "10.0.0.1:80/tcp", Reaches({"new"}), within_s=60)
    assert lab.calls == 3
    with pytest.raises(AssertionError, match="reached"):
        expect(lab, "here", "10.0.0.1:80/tcp", Reaches({"new"}), within_s=0.05)


def test_sctp_packet() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    packet = sctp_packet(1000, 2000, 7, sctp_chunk(10, b"abcde"))
    assert packet[:8] == bytes.fromhex("03e8 07d0 00000007")
    assert packet[12:] == bytes.fromhex("0a 00 0009 6162636465 000000")
    assert int.from_bytes(packet[8:12], "little") == crc32c(packet[:8] + bytes(4) + packet[12:])


def test_sctp_chunks_and_cookie() -> None:
    assert sctp_chunks(sctp_chunk(3, b"abc") + sctp_chunk(0, b"")) == {3: b"abc", 0: b""}
    other = bytes.fromhex("8000 0004 0005 0005 ff000000")
    assert state_cookie(bytes(16) + other + bytes.fromhex("0007 0009") + b"token\0\0\0") == b"token"
    assert state_cookie(bytes(16) + other) == b""


def test_probe_needs_nothing_installed(refusing: Callable[[socket.SocketKind], int]) -> None:
    probe = Path(__file__).parents[1] / "support" / "probe.py"
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", str(probe), '{"protocol": "tcp", "address": "127.0.0.1", '
         f'"port": {refusing(socket.SOCK_STREAM)}}}'],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert '"refused"' in done.stdout
