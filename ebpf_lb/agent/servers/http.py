"""Small HTTP servers for probes and scrapes: GET only, few at a time, nobody may keep one long.

Little is imported here: probes are answered while the rest of the agent is still being read.
"""

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

REQUEST_TIMEOUT_S = 3.0
REQUESTS_AT_ONCE = 16
RETRY_S = 1.0
_UNSPECIFIED = ("0.0.0.0", "::")
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class Page(NamedTuple):
    status: int
    content_type: str
    body: bytes


Pages = Mapping[str, Callable[[], Page]]
Address = tuple[str, int]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: Address, pages: Pages) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.pages = pages
        self._free = threading.BoundedSemaphore(REQUESTS_AT_ONCE)
        self._ended = False
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # not HTTPServer's, which asks DNS for its own name
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            # before the end is told: whoever heard of it finds room
            self._free.release()
            self.shutdown_request(request)

    def serve(self) -> None:
        """Until `end`. The socket is closed here: a descriptor that is waited for elsewhere may be
        another file's a moment later."""
        while not self._ended:
            self.handle_request()
        self.server_close()

    def end(self) -> None:
        self._ended = True
        with contextlib.suppress(OSError):  # it ended before
            self.socket.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nobody's concern."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_TIMEOUT_S
    server_version, sys_version = "ebpf-lb", ""

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        answer = page() if page else Page(404, "text/plain", b"404 page not found\n")
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(answer.body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Probes are not events."""


class Listening:
    """Pages at some addresses. One that somebody else has (kube-proxy, until it ends) is asked for
    again every second; whoever gives us a log by `tell` reads of it, once."""

    def __init__(self, addresses: Iterable[Address], pages: Pages, name: str) -> None:
        self._pages = pages
        self._name = name
        self._lock = threading.Lock()
        self._log: Any = None
        self._failed: dict[Address, str] = {}
        self._threads: dict[_Server, threading.Thread] = {}
        self._closed = False
        for address in addresses:
            self._try(address)
        if self._failed:
            threading.Thread(target=self._try_again, name=f"{name}-bind", daemon=True).start()

    @property
    def addresses(self) -> list[Address]:
        """Those that are served."""
        return [(str(one.server_address[0]), one.server_port) for one in self._threads]

    def tell(self, log: Any) -> None:
        with self._lock:
            self._log = log
            for address, reason in self._failed.items():
                self._complain(address, reason)

    def close(self) -> None:
        """Nothing is accepted any more; requests under way end with the process."""
        with self._lock:
            self._closed = True
            running = list(self._threads.items())
        for server, _ in running:
            server.end()
        for _, thread in running:
            thread.join()

    def _try_again(self) -> None:
        while self._failed and not self._closed:
            time.sleep(RETRY_S)
            for address in list(self._failed):
                self._try(address)

    def _try(self, address: Address) -> None:
        try:
            server = _bind(address, self._pages)
        except OSError as error:
            if address[0] == "::1" and error.errno in _NO_SUCH_FAMILY and self._threads:
                return  # a node without IPv6
            reason = os.strerror(error.errno) if error.errno else str(error)
            with self._lock:
                if self._failed.get(address) != reason:
                    self._failed[address] = reason
                    self._complain(address, reason)
            return
        thread = threading.Thread(target=server.serve, name=self._name, daemon=True)
        with self._lock:
            if self._closed:
                server.server_close()
                return
            self._threads[server] = thread
            thread.start()
            if self._failed.pop(address, None) is not None and self._log is not None:
                self._log.info("served after all", what=self._name, address=_text(address))

    def _complain(self, address: Address, reason: str) -> None:
        if self._log is not None:
            self._log.error("not served", what=self._name, address=_text(address), error=reason)


def serve(address: Address | None, pages: Pages, name: str) -> Listening:
    """`localhost`: at the loopback addresses of both families. No address: nowhere."""
    if address is None:
        return Listening((), pages, name)
    host, port = address
    hosts = ("127.0.0.1", "::1") if host == "localhost" else (host,)
    return Listening([(one, port) for one in hosts], pages, name)


def _bind(address: Address, pages: Pages) -> _Server:
    """Either way of writing "all addresses" means those of both families, as it does in Go."""
    host, port = address
    if host not in _UNSPECIFIED:
        return _Server(address, pages)
    try:
        return _Server(("::", port), pages)
    except OSError as error:
        if error.errno not in _NO_SUCH_FAMILY:
            raise
    return _Server(("0.0.0.0", port), pages)


def _text(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
