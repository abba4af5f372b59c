"""HTTP/1.1 as far as a Service's tests need it: keep-alive, a few paths, bulk data both ways.

GET /, /hostname    the pod's name            GET /healthz   ok
GET /clientip       address:port of the peer  GET /echo?msg=TEXT
GET /header?key=K   that field of the request
POST /sink          reads a body of any size; answers {"bytes": N, "sha256": HEX}
GET /source?bytes=N sends N bytes: `source_block()` over and over
"""

import os
import socket
import threading
from functools import cache
from urllib.parse import parse_qs, urlsplit

from ebpf_lb.containers.podserver.datagrams import client_text

TYPE_CHECKING = False  # as typing's, which need not be imported for it
if TYPE_CHECKING:
    import hashlib

_HEAD_MAX = 64 * 1024
_CHUNK = 1 << 20


class BadRequestError(Exception):
    """The peer speaks something else."""


def serve(listener: socket.socket, name: str) -> None:
    """A thread a connection: blocking calls are the fastest for bulk data, and simple."""
    while True:
        connection, peer = listener.accept()
        client = client_text(peer[0], peer[1])
        threading.Thread(target=_talk, args=(connection, client, name), daemon=True).start()


@cache
def source_block() -> bytes:
    """The MiB that /source repeats."""
    import hashlib  # here and below: 3 MB that pods without bulk data can do without

    return hashlib.shake_128(b"ebpf-lb").digest(_CHUNK)


@cache
def _source_file() -> int:
    fd = os.memfd_create("source")
    os.write(fd, source_block())
    return fd


def _talk(connection: socket.socket, client: str, name: str) -> None:
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = _Stream(connection)
        try:
            while _answer(stream, client, name):
                pass
        except BadRequestError as error:
            stream.respond("400 Bad Request", str(error).encode(), close=True)
        except OSError:
            pass  # the peer is gone


def _answer(stream: "_Stream", client: str, name: str) -> bool:
    """Serves one request; False when the connection is to be closed."""
    head = stream.read_head()
    if head is None:
        return False
    lines = head.decode("latin-1").split("\r\n")
    try:
        _, target, version = lines[0].split(" ")
    except ValueError:
        raise BadRequestError(f"no request: {lines[0][:80]!r}") from None
    pairs = (line.partition(":") for line in lines[1:])
    fields = {key.strip().lower(): value.strip() for key, _, value in pairs}
    wishes = fields.get("connection", "").lower()
    close = wishes == "close" or (version == "HTTP/1.0" and wishes != "keep-alive")
    if fields.get("expect", "").lower() == "100-continue":
        stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    digest, length = stream.read_body(fields)

    url = urlsplit(target)
    query = parse_qs(url.query, keep_blank_values=True)
    match url.path:
        case "/" | "/hostname":
            stream.respond("200 OK", name.encode(), close)
        case "/clientip":
            stream.respond("200 OK", client.encode(), close)
        case "/echo":
            stream.respond("200 OK", query.get("msg", [""])[0].encode(), close)
        case "/header":
            key = query.get("key", [""])[0].lower()
            stream.respond("200 OK", fields.get(key, "").encode("latin-1"), close)
        case "/healthz" | "/readyz":
            stream.respond("200 OK", b"ok", close)
        case "/sink":
            body = f'{{"bytes": {length}, "sha256": "{digest}"}}'
            stream.respond("200 OK", body.encode(), close)
        case "/source":
            try:
                wanted = int(query["bytes"][0])
            except (KeyError, ValueError):
                raise BadRequestError("use /source?bytes=N") from None
            stream.respond_with_source(wanted, close)
        case _:
            stream.respond("404 Not Found", b"404 page not found", close)
    return not close


class _Stream:
    """One connection's bytes: what was received too early stays in `_rest`."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._rest = b""

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def read_head(self) -> bytes | None:
        """Up to the empty line; None at the end of the connection."""
        while (end := self._rest.find(b"\r\n\r\n")) < 0:
            if len(self._rest) > _HEAD_MAX:
                raise BadRequestError("the request's head is too long")
            data = self._connection.recv(_HEAD_MAX)
            if not data:
                return None
            self._rest += data
        head, self._rest = self._rest[:end], self._rest[end + 4 :]
        return head

    def read_body(self, fields: dict[str, str]) -> tuple[str, int]:
        """Takes in the body; yields its SHA-256 ("" for none) and its length."""
        if not fields.keys() & {"transfer-encoding", "content-length"}:
            return "", 0
        import hashlib

        digest, length = hashlib.sha256(), 0
        if fields.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self._read_line().partition(b";")[0], 16):
                self._digest(digest, size)
                self._read_line()
                length += size
            while self._read_line():
                pass  # trailers
        elif size := int(fields.get("content-length", "0")):
            self._digest(digest, size)
            length = size
        return digest.hexdigest(), length

    def _read_line(self) -> bytes:
        while (end := self._rest.find(b"\r\n")) < 0:
            self._receive_more()
        line, self._rest = self._rest[:end], self._rest[end + 2 :]
        return line

    def _receive_more(self) -> None:
        data = self._connection.recv(_HEAD_MAX)
        if not data:
            raise ConnectionError("ended within a body")
        self._rest += data

    def _digest(self, digest: "hashlib._Hash", size: int) -> None:
        early = self._rest[:size]
        self._rest = self._rest[len(early) :]
        digest.update(early)
        left = size - len(early)
        buffer = memoryview(bytearray(min(left, _CHUNK)))
        while left:
            got = self._connection.recv_into(buffer[: min(left, len(buffer))])
            if not got:
                raise ConnectionError("ended within a body")
            digest.update(buffer[:got])
            left -= got

    def respond(self, status: str, body: bytes, close: bool) -> None:
        self.send(_head(status, "text/plain; charset=utf-8", len(body), close) + body)

    def respond_with_source(self, length: int, close: bool) -> None:
        self.send(_head("200 OK", "application/octet-stream", length, close))
        sent = 0
        while sent < length:
            offset = sent % _CHUNK
            count = min(length - sent, _CHUNK - offset)
            sent += os.sendfile(self._connection.fileno(), _source_file(), offset, count)


def _head(status: str, kind: str, length: int, close: bool) -> bytes:
    connection = "Connection: close\r\n" if close else ""
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{connection}\r\n"
    ).encode()
