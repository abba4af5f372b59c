"""A small API server that fails on demand: one collection, over HTTP or TLS, with a token.

It keeps every change, so that a watch can begin at any version, until `forget` makes old versions
Gone. Continue tokens die by `expire_continue`.
"""

import gzip
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "let-me-in"


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what these tests are about."""


class ApiServer:
    def __init__(self, tls: tuple[Path, Path] | None = None) -> None:
        self._tls = tls
        self.tls: ssl.SSLContext | None = None
        self.lock = threading.Condition()
        self.objects: dict[str, dict[str, Any]] = {}
        self.history: list[tuple[int, dict[str, Any]]] = []
        self.version = 100
        self.oldest = 100  # watches from an older version are Gone
        self.epoch = 0  # watches of an older epoch end
        self.epochs_end = 0  # the version up to which they tell
        self.continue_epoch = 0
        self.refusals: list[int] = []  # statuses for the next requests
        self.retry_after_s = 0  # what these wish
        self.silent = False  # watches say nothing, not even what happens
        self.absent = ""  # what it does not serve: paths that begin so are 404
        self.requests: list[dict[str, str]] = []
        self.agents: list[str] = []
        self.compressed = 0  # answers
        self._port = 0
        self._listener: _Listener | None = None
        self.start()

    # its life

    def start(self) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._listener = _Listener(("127.0.0.1", self._port), Handler)
        self._port = self._listener.server_address[1]
        if self._tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
            self.tls = context
            self._listener.socket = context.wrap_socket(self._listener.socket, server_side=True)
        threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def stop(self) -> None:
        assert self._listener is not None
        self._listener.shutdown()
        self._listener.server_close()
        self.end_watches()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._port}"

    # its objects

    def put(self, name: str, body: dict[str, Any] | None = None, **labels: str) -> None:
        with self.lock:
            self.version += 1
            kind = "MODIFIED" if name in self.objects else "ADDED"
            raw = {
                **(body or {}),
                "metadata": {
                    "name": name,
                    "namespace": "default",
                    "labels": labels,
                    "resourceVersion": str(self.version),
                },
            }
            self.objects[name] = raw
            self._record({"type": kind, "object": raw})

    def remove(self, name: str, *, unseen: bool = False) -> None:
        """`unseen`: no watch will ever tell."""
        with self.lock:
            self.version += 1
            raw = self.objects.pop(name)
            raw = {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(self.version)}}
            if not unseen:
                self._record({"type": "DELETED", "object": raw})

    def bookmark(self) -> None:
        """Tell watches that the world moved on by a thousand versions without them."""
        with self.lock:
            self.version += 1000
            metadata = {"resourceVersion": str(self.version)}
            self._record({"type": "BOOKMARK", "object": {"metadata": metadata}})

    def send(self, message: dict[str, Any]) -> None:
        with self.lock:
            self.version += 1
            self._record(message)

    def forget(self) -> None:
        """Whatever happened so far can no longer be watched."""
        with self.lock:
            self.version += 1
            self.oldest = self.version
            self.history.clear()

    def end_watches(self) -> None:
        with self.lock:
            self.epoch += 1
            self.epochs_end = self.version
            self.lock.notify_all()

    def expire_continue(self) -> None:
        with self.lock:
            self.continue_epoch += 1

    def _record(self, message: dict[str, Any]) -> None:
        self.history.append((self.version, message))
        self.lock.notify_all()

    # its answers

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        query = {k: v[0] for k, v in parse_qs(urlsplit(request.path).query).items()}
        with self.lock:
            self.requests.append(query)
            epoch = self.epoch  # whoever has seen the request can end its watch
            refusal = self.refusals.pop(0) if self.refusals else 0
            if self.absent and request.path.startswith(self.absent):
                refusal = 404
            self.lock.notify_all()
        if request.headers.get("Authorization", "").lower() != f"bearer {TOKEN}":
            refusal = 401
        if refusal:
            self._status(request, refusal, "on request")
        elif "watch" in query:
            self._watch(request, query, epoch)
        else:
            self._list(request, query)

    def _status(self, request: BaseHTTPRequestHandler, code: int, message: str) -> None:
        self._json(request, code, {"kind": "Status", "code": code, "message": message})

    def _json(self, request: BaseHTTPRequestHandler, code: int, body: Any) -> None:
        data = json.dumps(body).encode()
        request.send_response(code)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            data = gzip.compress(data)
            self.compressed += 1
            request.send_header("Content-Encoding", "gzip")
        request.send_header("Content-Length", str(len(data)))
        if code >= 400 and self.retry_after_s:
            request.send_header("Retry-After", str(self.retry_after_s))
        if request.close_connection:
            request.send_header("Connection", "close")
        request.end_headers()
        request.wfile.write(data)

    def _list(self, request: BaseHTTPRequestHandler, query: dict[str, str]) -> None:
        with self.lock:
            names = sorted(self.objects)
            start = 0
            if "continue" in query:
                epoch, _, at = query["continue"].partition("/")
                if int(epoch) != self.continue_epoch:
                    self._status(request, 410, "The provided continue parameter is too old")
                    return
                start = int(at)
            limit = int(query.get("limit", 0)) or len(names)
            end = start + limit
            metadata = {"resourceVersion": str(self.version)}
            if end < len(names):
                metadata["continue"] = f"{self.continue_epoch}/{end}"
            items = [self.objects[name] for name in names[start:end]]
        self._json(request, 200, {"metadata": metadata, "items": items})

    def _watch(self, request: BaseHTTPRequestHandler, query: dict[str, str], epoch: int) -> None:
        position = int(query["resourceVersion"])
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.send_header("Connection", "close")
        request.end_headers()

        def send(text: str) -> None:
            data = text.encode()
            request.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            request.wfile.flush()

        with self.lock:
            while True:
                if position < self.oldest:
                    gone = {"kind": "Status", "code": 410, "message": "too old resource version"}
                    send(json.dumps({"type": "ERROR", "object": gone}) + "\n")
                    break
                ends = self.epoch != epoch
                news = [(v, m) for v, m in self.history if v > position] if not self.silent else []
                if ends:
                    news = [(v, m) for v, m in news if v <= self.epochs_end]
                for version, message in news:
                    line = json.dumps(message) + "\n"
                    # torn anywhere, as TCP may
                    send(line[:7])
                    send(line[7:])
                    position = version
                if ends:  # and all that happened before has been told
                    break
                self.lock.wait(1)
        send("")

    def watches(self) -> list[dict[str, str]]:
        return [query for query in self.requests if "watch" in query]

    def lists(self) -> list[dict[str, str]]:
        return [query for query in self.requests if "watch" not in query]


@contextmanager
def running(tls: tuple[Path, Path] | None = None) -> Iterator[ApiServer]:
    server = ApiServer(tls)
    try:
        yield server
    finally:
        server.stop()


def service(address: str = "10.96.0.1") -> dict[str, Any]:
    """What a Service must at least have, for `put`."""
    return {"spec": {"clusterIP": address, "ports": [{"port": 80}]}}
