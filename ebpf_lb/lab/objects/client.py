"""A small client of the lab's API server, over its local socket."""

import http.client
import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from ebpf_lb.errors import UserError

Json = dict[str, Any]

_TIMEOUT_S = 30.0
# How much longer than the server's own time-out a watch waits for its end.
_WATCH_SLACK_S = 10.0

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


class ApiError(UserError):
    """The server's refusal. `status` is HTTP's, `reason` the API's ("NotFound"), `causes` the
    fields that are wrong, where it named some: each has `field`, `message` and `reason`."""

    def __init__(
        self, status: int, reason: str, message: str, causes: list[dict[str, str]] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = causes or []


@contextmanager
def best_effort(log: logging.Logger, what: str) -> Iterator[None]:
    """A write that the next event from the API server makes good: that something is gone or has
    changed meanwhile is nobody's concern, all else is logged."""
    try:
        yield
    except ApiError as error:
        if error.status not in (404, 409):
            log.error("%s: %s", what, error)
    except (OSError, http.client.HTTPException) as error:
        log.error("%s: %s", what, error)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(str(self._path))


class Client:
    """One connection for each request, so it can be used from several threads.

    Every method raises ApiError where the server refuses; OSError or http.client.HTTPException
    where it does not answer. Paths are the API's (`/api/v1/namespaces/default/services/web`),
    keyword parameters go into the query.
    """

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    def get(self, path: str, **params: str | int) -> Json:
        return self._request("GET", path, params)

    def table(self, path: str, **params: str | int) -> Json:
        """What is at a path as a Table: cells for people, without the objects themselves."""
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
        return self._request("GET", path, params | {"includeObject": "Metadata"}, accept=accept)

    def create(self, path: str, object_: Json, **params: str | int) -> Json:
        """`path` is that of the collection."""
        return self._request("POST", path, params, object_)

    def update(self, path: str, object_: Json, **params: str | int) -> Json:
        return self._request("PUT", path, params, object_)

    def patch(self, path: str, patch: Any, content_type: str = MERGE, **params: str | int) -> Json:
        return self._request("PATCH", path, params, patch, content_type)

    def delete(
        self,
        path: str,
        grace_period_s: int | None = None,
        uid: str | None = None,
        **params: str | int,
    ) -> Json:
        """grace_period_s: the object's own if None. uid: only this one, not its successor of the
        same name (else ApiError with status 409)."""
        options: Json = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        return self._request("DELETE", path, params, options)

    def watch(
        self, path: str, resource_version: str, timeout_s: float, **params: str | int
    ) -> Iterator[Json]:
        """Events after `resource_version` ("0": the present objects first), bookmarks among them,
        until the server ends the watch after `timeout_s`. An event of type ERROR is the last."""
        params |= {
            "watch": "1",
            "resourceVersion": resource_version,
            "timeoutSeconds": max(1, round(timeout_s)),
            "allowWatchBookmarks": "true",
        }
        connection = _UnixConnection(self._path, timeout_s + _WATCH_SLACK_S)
        try:
            connection.request("GET", _target(path, params))
            response = connection.getresponse()
            if response.status >= 400:
                raise _error(response.status, response.read())
            while line := response.readline():
                yield json.loads(line)
        finally:
            connection.close()

    def _request(
        self,
        method: str,
        path: str,
        params: dict[str, str | int],
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Json:
        connection = _UnixConnection(self._path, _TIMEOUT_S)
        try:
            headers = {"Accept": accept}
            if body is not None:
                headers["Content-Type"] = content_type
            content = json.dumps(body) if body is not None else None
            connection.request(method, _target(path, params), content, headers)
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            raise _error(response.status, raw)
        if response.headers.get_content_type() != "application/json":
            return {}  # /readyz and the like say "ok"
        answer: Json = json.loads(raw)
        return answer


def _target(path: str, params: dict[str, str | int]) -> str:
    return quote(path) + (f"?{urlencode(params)}" if params else "")


def _error(status: int, raw: bytes) -> ApiError:
    try:
        body = json.loads(raw)
    except ValueError:
        body = {"message": raw.decode(errors="replace").strip()}
    causes = (body.get("details") or {}).get("causes")
    return ApiError(status, body.get("reason", ""), body.get("message", ""), causes)
