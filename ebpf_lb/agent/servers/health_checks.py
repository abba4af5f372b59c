"""The servers behind Services' healthCheckNodePort, as kube-proxy's service_health.go answers them.

A balancer in front of the nodes asks each of them there whether it has endpoints of its own. One
thread serves all ports, on all addresses of the node. A port that somebody else holds is reported
and asked for again; nothing else depends on it.
"""

import asyncio
import errno
import json
import re
import socket
import threading
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from ebpf_lb.model.key import ObjectKey
from ebpf_lb.plan.health import HealthCheck

REQUEST_TIMEOUT_S = 3.0
REQUESTS_AT_ONCE = 256
_REQUEST_BYTES = 1 << 14
_BACKLOG = 64
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_REQUEST_LINE = re.compile(rb"([A-Z]+) \S+ HTTP/1\.\d\r?\n")


class Listener:
    """One open port. `check` is replaced when the number of endpoints changes."""

    def __init__(self, check: HealthCheck) -> None:
        self.check = check
        self.server: asyncio.Server | None = None


class HealthCheckServers:
    """Wanted ports are named by `set`; `apply` opens and closes them. All from one thread.

    healthy: whether the maps follow the cluster. report: told of a port that cannot be had, once,
    as a sentence. log: structlog's.
    """

    def __init__(
        self,
        healthy: Callable[[], bool],
        log: Any,
        report: Callable[[ObjectKey, str], None] = lambda key, sentence: None,
    ) -> None:
        self._healthy = healthy
        self._log = log
        self._report = report
        self._wanted: dict[ObjectKey, HealthCheck] = {}
        self._open: dict[ObjectKey, Listener] = {}
        self._failed: dict[ObjectKey, str] = {}
        self._changed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._requests = 0  # being answered; the serving thread's own

    @property
    def ports(self) -> int:
        """How many are served."""
        return len(self._open)

    @property
    def failed(self) -> Mapping[ObjectKey, str]:
        """Services whose port cannot be had, and why."""
        return self._failed

    def set(self, key: ObjectKey, checks: tuple[HealthCheck, ...]) -> None:
        """What is planned of a Service: at most one; none closes its port."""
        check = checks[0] if checks else None
        if self._wanted.get(key) == check:
            return
        if check is None:
            del self._wanted[key]
        else:
            self._wanted[key] = check
        self._changed = True

    def apply(self) -> None:
        """Ports that are no more wanted are closed first: another Service may have one of them."""
        if not self._changed:
            return
        self._changed = False
        for key, listener in list(self._open.items()):
            check = self._wanted.get(key)
            if check is not None and check.port == listener.check.port:
                listener.check = check
            else:
                self._close(self._open.pop(key))
        for key in self._failed.keys() - self._wanted.keys():
            del self._failed[key]
        self.retry()

    def retry(self) -> None:
        """Opens what is wanted and not open."""
        for key, check in self._wanted.items():
            if key not in self._open:
                self._try_to_open(key, check)

    def close(self) -> None:
        """Closes all ports."""
        while self._open:
            self._close(self._open.popitem()[1])
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)  # and its thread closes it
            self._loop = None

    # rule: HE-4
    def _try_to_open(self, key: ObjectKey, check: HealthCheck) -> None:
        try:
            self._open[key] = self._serve(check, _listen(check.port))
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be had
            because = str(error)
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                because = f"{self._holder(check.port)} has it"
            sentence = f"healthCheckNodePort {check.port} cannot be served: {because}"
            if self._failed.get(key) != sentence:
                self._failed[key] = sentence
                self._log.error("health check not served", service=str(key), error=sentence)
                self._report(key, sentence)
            return
        if self._failed.pop(key, None) is not None:
            self._log.info("health check served after all", service=str(key), port=check.port)

    def _holder(self, port: int) -> str:
        for key, listener in self._open.items():
            if listener.check.port == port:
                return f"Service {key}"
        return "another program on this node"

    def _serve(self, check: HealthCheck, listening: socket.socket) -> Listener:
        listener = Listener(check)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._answer(listener, reader, writer)

        with listening:
            loop = self._running_loop()
            start = asyncio.start_server(answer, sock=listening.dup(), backlog=_BACKLOG)
            listener.server = asyncio.run_coroutine_threadsafe(start, loop).result()
        return listener

    def _close(self, listener: Listener) -> None:
        async def stop() -> None:
            if listener.server is not None:
                listener.server.close()

        # waited for: the port must be free when this returns
        asyncio.run_coroutine_threadsafe(stop(), self._running_loop()).result()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            loop = asyncio.new_event_loop()

            def run() -> None:
                loop.run_forever()
                loop.close()

            threading.Thread(target=run, name="health-checks", daemon=True).start()
            self._loop = loop
        return self._loop

    async def _answer(
        self, listener: Listener, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._requests >= REQUESTS_AT_ONCE:
            writer.transport.abort()
            return
        self._requests += 1
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                writer.write(response(await _read_head(reader), listener.check, self._healthy()))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            writer.transport.abort()  # a client that went away, or says nothing
        finally:
            self._requests -= 1


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    """The request's line and headers; less if the client ended or went on too long."""
    head = b""
    while len(head) < _REQUEST_BYTES and not _END_OF_HEAD.search(head):
        piece = await reader.read(_REQUEST_BYTES - len(head))
        if not piece:
            break
        head += piece
    return head


def _listen(port: int) -> socket.socket:
    """On all addresses of the node, of both families where the kernel has IPv6."""
    try:
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
        )
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
    return socket.create_server(("", port), backlog=_BACKLOG)


# rule: HE-1, HE-2
def response(head: bytes, check: HealthCheck, healthy: bool) -> bytes:
    """The whole answer to a request: any path and any method will do."""
    request = _REQUEST_LINE.match(head)
    if request is None or not _END_OF_HEAD.search(head):
        return _message(HTTPStatus.BAD_REQUEST, [("Content-Type", "text/plain")], b"Bad Request\n")
    count = check.local_endpoints
    body = json.dumps(
        {
            "service": {"namespace": check.service.namespace, "name": check.service.name},
            "localEndpoints": count,
            "serviceProxyHealthy": healthy,
        },
        indent=1,
    ).encode()
    headers = [
        ("Content-Type", "application/json"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Load-Balancing-Endpoint-Weight", str(count)),
    ]
    status = HTTPStatus.OK if count and healthy else HTTPStatus.SERVICE_UNAVAILABLE
    return _message(status, headers, body, with_body=request[1] != b"HEAD")


def _message(
    status: HTTPStatus, headers: list[tuple[str, str]], body: bytes, *, with_body: bool = True
) -> bytes:
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines += [f"Content-Length: {len(body)}", f"Date: {formatdate(usegmt=True)}"]
    lines += ["Connection: close", "", ""]
    return "\r\n".join(lines).encode() + (body if with_body else b"")
