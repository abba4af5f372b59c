"""The pod server, as its clients see it; on this machine's loopback."""

import hashlib
import http.client
import json
import os
import random
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from ebpf_lb.containers.podserver import sctp
from ebpf_lb.containers.podserver.http import source_block

ROOT = Path(__file__).parents[3]
RESIDENT_MAX_KB = 15_000


@dataclass
class Server:
    port: int
    pid: int

    def http(self, host: str = "127.0.0.1") -> http.client.HTTPConnection:
        return http.client.HTTPConnection(host, self.port, timeout=30)

    def get(self, path: str, host: str = "127.0.0.1") -> bytes:
        connection = self.http(host)
        connection.request("GET", path)
        return connection.getresponse().read()


def free_port() -> int:
    """None that the system chooses for somebody else before the server has it."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.bind(("::", port))
            return port


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    port = free_port()
    readable, writable = os.pipe()
    process = subprocess.Popen(
        [
            *(sys.executable, "-S", "-s", "-m", "ebpf_lb.containers.podserver", "--name=web-1"),
            *(f"--tcp={port}", f"--udp={port}", f"--ready-fd={writable}"),
        ],
        env={"PYTHONPATH": str(ROOT)},
        pass_fds=[writable],
        stdout=subprocess.DEVNULL,
    )
    os.close(writable)
    try:
        assert os.read(readable, 1) == b"\n"
        yield Server(port, process.pid)
    finally:
        process.kill()
        process.wait()
        os.close(readable)


def test_is_small(server: Server) -> None:
    server.get("/")
    status = Path(f"/proc/{server.pid}/status").read_text()
    [resident] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    assert int(resident.split()[1]) < RESIDENT_MAX_KB


@pytest.mark.parametrize("path", ["/", "/hostname"])
def test_says_its_name(server: Server, path: str) -> None:
    assert server.get(path) == b"web-1"


def test_keeps_connections_alive(server: Server) -> None:
    connection = server.http()
    connection.connect()
    source = connection.sock.getsockname()
    for _ in range(3):
        connection.request("GET", "/clientip")
        assert connection.getresponse().read() == f"{source[0]}:{source[1]}".encode()


def test_pipelined_requests_are_all_answered(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"GET /echo?msg=a HTTP/1.1\r\n\r\nGET /echo?msg=b HTTP/1.0\r\n\r\n")
        answer = b""
        while data := connection.recv(4096):
            answer += data
    assert [part.partition(b"\r\n\r\n")[2][:1] for part in answer.split(b"HTTP/1.1")[1:]] == [
        b"a",
        b"b",
    ]


def test_ipv6_clients_are_in_brackets(server: Server) -> None:
    assert server.get("/clientip", "::1").startswith(b"[::1]:")


def test_unknown_paths_and_bad_requests(server: Server) -> None:
    connection = server.http()
    connection.request("GET", "/nonsense")
    assert connection.getresponse().status == 404
    connection = server.http()
    connection.request("GET", "/source?bytes=many")
    assert connection.getresponse().status == 400


@pytest.mark.parametrize("size", [0, 1, 5_000_001])
def test_sink_digests_bodies(server: Server, size: int) -> None:
    body = os.urandom(size)
    connection = server.http()
    connection.request("POST", "/sink", body)
    answer = json.loads(connection.getresponse().read())
    assert answer == {"bytes": size, "sha256": hashlib.sha256(body).hexdigest()}
    connection.request("POST", "/sink", iter([body[:7], body[7:]]) if size > 7 else iter([body]))
    chunked = json.loads(connection.getresponse().read())
    assert chunked["bytes"] == size


def test_source_sends_what_was_asked(server: Server) -> None:
    size = 3 * len(source_block()) + 17
    assert server.get(f"/source?bytes={size}") == (source_block() * 4)[:size]


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_datagrams(server: Server, family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(30)
        client.connect((address, server.port))
        client.send(b"nonsense")
        client.send(b"hostname\n")
        assert client.recv(100) == b"web-1"
        client.send(b"clientip")
        assert client.recv(100).endswith(b":%d" % client.getsockname()[1])
        client.send(b"echo " + b"x" * 60_000)
        assert client.recv(70_000) == b"x" * 60_000


def test_datagrams_are_answered_from_the_address_that_was_asked(server: Server) -> None:
    """A connected socket hears nobody else: 127.0.0.2 is not the source the kernel would choose."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(30)
        client.connect(("127.0.0.2", server.port))
        client.send(b"hostname")
        assert client.recv(100) == b"web-1"


# --- SCTP


def test_crc32c_of_rfc_3720() -> None:
    """Appendix B.4: 32 bytes of zeroes, of ones, ascending."""
    assert sctp.crc32c(bytes(32)) == 0x8A9136AA
    assert sctp.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert sctp.crc32c(bytes(range(32))) == 0x46DD794E


def test_a_changed_byte_is_noticed() -> None:
    data = bytearray(sctp.Packet(1, 2, 3, (sctp.Chunk(sctp.COOKIE_ACK),)).encode())
    assert sctp.Packet.decode(bytes(data)).tag == 3
    data[1] ^= 1
    with pytest.raises(ValueError, match="CRC32c"):
        sctp.Packet.decode(bytes(data))


def test_an_association_from_init_to_shutdown() -> None:
    responder = sctp.Responder("web-1", frozenset({9}))
    our_tag = 0x1234

    def send(*chunks: sctp.Chunk, tag: int) -> sctp.Packet | None:
        return responder.respond(sctp.Packet(5000, 9, tag, chunks), "10.0.0.1")

    init_ack = send(sctp.Chunk(sctp.INIT, sctp.init_value(our_tag, 100)), tag=0)
    assert init_ack is not None
    assert (init_ack.source_port, init_ack.destination_port, init_ack.tag) == (9, 5000, our_tag)
    assert init_ack.chunks[0].kind == sctp.INIT_ACK
    [peer_tag] = struct.unpack_from("!I", init_ack.chunks[0].value)
    kind, length = struct.unpack_from("!HH", init_ack.chunks[0].value, 16)
    assert (kind, 16 + length) == (7, len(init_ack.chunks[0].value))
    cookie = init_ack.chunks[0].value[20:]

    cookie_ack = send(sctp.Chunk(sctp.COOKIE_ECHO, cookie), tag=peer_tag)
    assert cookie_ack is not None
    assert [chunk.kind for chunk in cookie_ack.chunks] == [sctp.COOKIE_ACK]
    answer = send(sctp.data_chunk(100, 0, b"clientip"), tag=peer_tag)
    assert answer is not None
    assert answer.tag == our_tag
    assert [chunk.kind for chunk in answer.chunks] == [sctp.SACK, sctp.DATA]
    assert answer.chunks[1].value[12:] == b"10.0.0.1:5000"
    shutdown_ack = send(sctp.Chunk(sctp.SHUTDOWN, bytes(4)), tag=peer_tag)
    assert shutdown_ack is not None
    assert [chunk.kind for chunk in shutdown_ack.chunks] == [sctp.SHUTDOWN_ACK]
    assert send(sctp.Chunk(sctp.SHUTDOWN_COMPLETE), tag=peer_tag) is None
    assert send(sctp.data_chunk(101, 1, b"hostname"), tag=peer_tag) is None


def test_other_ports_are_not_ours() -> None:
    responder = sctp.Responder("web-1", frozenset({9}))
    init = sctp.Chunk(sctp.INIT, sctp.init_value(1, 1))
    assert responder.respond(sctp.Packet(5000, 10, 0, (init,)), "10.0.0.1") is None
