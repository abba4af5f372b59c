"""The way to the API server: credentials by the kubernetes library, raw JSON by us.

The library's generated models cost ten times the memory and time of what we keep of an object, so
only its trade in credentials (kubeconfig, in-cluster, plugins) is used, and that in a process of
its own: see `library`.
"""

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3

from ebpf_lb.errors import UserError
from ebpf_lb.kube import credentials
from ebpf_lb.kube.causes import because
from ebpf_lb.kube.credentials import Credentials
from ebpf_lb.kube.requests import NO_ANSWER, Requests
from ebpf_lb.kube.stamps import Stamp
from ebpf_lb.kube.way import End, Way

# A dead machine at the other end, or a way that swallows packets, is noticed after six seconds even
# while nothing is to be said: the kernel at the other end answers, however busy its server is. A
# watch that ends for nothing goes on from where it was.
_KEEPALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 6_000),
]

UNAUTHORIZED = 401
_SAME_S = 20.0  # reading credentials takes half a second of a processor, and more with plugins


class ApiError(Exception):
    """A request that came to nothing. `status` is HTTP's; 0: no answer at all. `retry_after_s`: for
    how long the server wishes not to be asked again; 0: it does not say."""

    def __init__(self, status: int, text: str, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after_s = retry_after_s


class Silence(ApiError):
    """The connection stands, but nothing was heard for as long as was agreed."""

    def __init__(self) -> None:
        super().__init__(0, "nothing was heard from the API server")


class Stream:
    """An answer that goes on: one JSON document a line."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response

    def __iter__(self) -> Iterator[Any]:
        """The documents as they come, until the server ends the answer; ApiError if it breaks."""
        rest = b""
        try:
            for piece in self._response.stream(1 << 16):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield json.loads(line)
            if rest.strip():
                yield json.loads(rest)
        except urllib3.exceptions.ReadTimeoutError:
            raise Silence from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            # AttributeError, ValueError: what reading from a connection that `abort` closed gives
            raise ApiError(0, f"the connection broke: {because(error)}") from None
        finally:
            self._response.close()

    def close(self) -> None:
        """Give up the rest of the answer; by the thread that reads it."""
        self._response.close()

    def abort(self) -> None:
        """End it from another thread: whoever waits in the iteration wakes at once."""
        try:
            self._response.shutdown()
        except (OSError, ValueError, RuntimeError):
            self._response.close()


class ApiClient:
    """Requests with some credentials, which `read` gives. Threads may share it.

    Tokens expire, and keys are changed: before a request the credentials are read again if a file
    of theirs is another than before; what cannot be read (half-written, perhaps) leaves us with
    those we have. When the server does not know us any more they are read again in any case, and
    the request is made once more if they are others by now. UserError if they cannot be read at
    first.

    moved: called by whatever thread finds `ends` to be others than before, before it asks there.
    """

    def __init__(
        self,
        read: Callable[[], Credentials],
        way: Way | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._reading = threading.Lock()
        self._way = way or Way()
        self.requests = Requests()
        """An account of all requests."""
        self._clock = clock
        self._same_until = -math.inf
        self._unread: tuple[Stamp, ...] | None = None  # how files were that could not be read
        self._use(read())
        self.ends: frozenset[End] = frozenset()
        """The addresses and ports by which the server is reached, a proxy's included, as they were
        when names could last be resolved."""
        self.moved: Callable[[frozenset[End]], None] = lambda ends: None

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._credentials.server

    @property
    def _host(self) -> str:
        return urlsplit(self._credentials.server).netloc

    def look_up(self, *, again: bool = False) -> frozenset[End]:
        """Brings `ends` up to date. `again`: see Way."""
        used = self._credentials
        ends = self._way.ends((used.server, used.proxy), again=again)
        if ends != self.ends:
            self.ends = ends
            self.moved(ends)
        return ends

    def get(self, path: str, query: Mapping[str, str], *, timeout_s: float = 30) -> Any:
        """The JSON document at `path`; ApiError if there is none. It may come compressed: to a
        tenth, which thousands of nodes that list at once do not wait for."""
        response = self._request(path, query, timeout_s, {"Accept-Encoding": "gzip"})
        try:
            body = response.read()
            self.requests.received("GET", self._host, len(body))
            return json.loads(body)
        except urllib3.exceptions.ReadTimeoutError:
            raise Silence from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(0, f"the connection broke: {because(error)}") from None
        except ValueError:
            raise ApiError(0, f"the answer to {path} is not JSON") from None
        finally:
            response.release_conn()

    def stream(self, path: str, query: Mapping[str, str], *, silence_s: float) -> Stream:
        """An answer that goes on; after `silence_s` seconds without a byte it ends in Silence."""
        # on a connection of its own: one that the server is just closing after the last watch would
        # look like a server that is away
        return Stream(self._request(path, query, silence_s, {"Connection": "close"}))

    def create(self, path: str, document: Any, *, timeout_s: float = 10) -> None:
        """Adds an object to the collection at `path`; ApiError if the server does not take it."""
        self._send("POST", path, document, "application/json", timeout_s)

    def patch(self, path: str, document: Any, *, timeout_s: float = 10) -> None:
        """Changes these fields of the object at `path`; ApiError."""
        self._send("PATCH", path, document, "application/merge-patch+json", timeout_s)

    def _send(self, method: str, path: str, document: Any, kind: str, timeout_s: float) -> None:
        body = json.dumps(document).encode()
        self._request(path, {}, timeout_s, {"Content-Type": kind}, method, body).drain_conn()

    def close(self) -> None:
        self._pool.clear()

    def _request(
        self,
        path: str,
        query: Mapping[str, str],
        read_timeout_s: float,
        headers: Mapping[str, str] = MappingProxyType({}),
        method: str = "GET",
        body: bytes | None = None,
    ) -> urllib3.BaseHTTPResponse:
        self._follow_files()
        while True:
            used, pool = self._credentials, self._pool
            target = f"{used.server}{path}"
            self.look_up()
            given = {"Accept": "application/json", "User-Agent": "ebpf-lb", **used.headers}
            began, code = self._clock(), NO_ANSWER
            try:
                response = pool.request(
                    method,
                    f"{target}?{urlencode(query)}" if query else target,
                    body=body,
                    headers={**given, **headers},
                    preload_content=False,
                    redirect=False,
                    retries=False,
                    timeout=urllib3.Timeout(connect=5, read=read_timeout_s),
                )
                code = str(response.status)
            except urllib3.exceptions.ReadTimeoutError:
                raise Silence from None
            except (urllib3.exceptions.HTTPError, OSError) as error:
                self.look_up(again=True)
                raise ApiError(
                    0, f"the API server {used.server} cannot be reached: {because(error)}"
                ) from None
            finally:
                took_s = self._clock() - began
                self.requests.made(method, self._host, code, took_s, len(body or b""))
            if response.status in (200, 201):
                return response
            refusal = _refusal(used.server, path, response)
            if response.status != UNAUTHORIZED or not self._renewed(used):
                raise refusal

    def _renewed(self, used: Credentials) -> bool:
        """Whether there are others by now. Asked in vain, it is not asked again for a while."""
        with self._reading:  # one thread reads, the others take what it found
            if self._credentials is used:
                if self._clock() < self._same_until:
                    return False
                try:
                    found = self._read()
                    if found == used:
                        self._same_until = self._clock() + _SAME_S
                        return False
                    self._use(found)
                except UserError as error:
                    raise ApiError(UNAUTHORIZED, str(error).rstrip(".")) from None
            return True

    def _follow_files(self) -> None:
        used = self._credentials
        now = used.stamps()
        if now in (used.read_at, self._unread):
            return
        with self._reading:
            if self._credentials is not used:
                return
            try:
                self._use(self._read())
                self._unread = None
                self._same_until = -math.inf
            except UserError:
                self._unread = now

    def _use(self, found: Credentials) -> None:
        try:
            self._pool = found.pool(socket_options=_KEEPALIVE)
        except (OSError, ValueError) as error:
            raise UserError(
                f"The credentials for the API server {found.server} cannot be used: "
                f"{' '.join(str(error).split()).rstrip('.')}."
            ) from None
        self._credentials = found


def _refusal(server: str, path: str, response: urllib3.BaseHTTPResponse) -> ApiError:
    try:
        message = json.loads(response.read())["message"]
    except (ValueError, LookupError, TypeError, urllib3.exceptions.HTTPError, OSError):
        message = response.reason or "no reason given"
    wish = response.headers.get("Retry-After", "")
    response.close()
    return ApiError(
        response.status,
        f"{server} refused {path} with status {response.status}: {message}",
        float(wish) if wish.isdecimal() else 0.0,
    )


def connect(kubeconfig: Path | None, server: str | None = None) -> ApiClient:
    """A client by a kubeconfig file, else with the credentials that a pod is given.

    `server` overrides the server's URL: a pod is told the Service's own ClusterIP, which cannot
    work before we forward it. No request is made. UserError if the credentials cannot be read.
    """
    return ApiClient(lambda: credentials.read(kubeconfig, server))
