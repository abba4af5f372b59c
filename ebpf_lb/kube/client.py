"""The way to the API server: credentials and TLS by the kubernetes library, raw JSON by us.

The library's generated models cost ten times the memory and time of what we keep of an object, so
only its configuration (kubeconfig, in-cluster credentials, token refresh) and its connection pool
are used.
"""

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

import urllib3
import yaml
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException
from kubernetes.config.incluster_config import load_incluster_config
from kubernetes.config.kube_config import load_kube_config

from ebpf_lb.errors import UserError

# A dead machine at the other end is noticed after about 30 s even while nothing is to be said.
_KEEPALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
]


class ApiError(Exception):
    """A request that came to nothing. `status` is HTTP's; 0: no answer at all."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


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
            raise ApiError(0, f"the connection broke: {_because(error)}") from None
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
    """Requests with the credentials of one configuration. Threads may share it."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._pool: urllib3.PoolManager = RESTClientObject(configuration).pool_manager

    @property
    def server(self) -> str:
        """The API server's URL."""
        return str(self._configuration.host).rstrip("/")

    def get(self, path: str, query: Mapping[str, str], *, timeout_s: float = 30) -> Any:
        """The JSON document at `path`; ApiError if there is none."""
        response = self._request(path, query, timeout_s)
        try:
            return json.loads(response.read())
        except urllib3.exceptions.ReadTimeoutError:
            raise Silence from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(0, f"the connection broke: {_because(error)}") from None
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
        headers = {"Content-Type": "application/json"}
        body = json.dumps(document).encode()
        self._request(path, {}, timeout_s, headers, body).drain_conn()

    def close(self) -> None:
        self._pool.clear()

    def _request(
        self,
        path: str,
        query: Mapping[str, str],
        read_timeout_s: float,
        headers: Mapping[str, str] = MappingProxyType({}),
        body: bytes | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """A GET, or with a body a POST."""
        url = f"{self.server}{path}"
        try:
            response = self._pool.request(
                "GET" if body is None else "POST",
                f"{url}?{urlencode(query)}" if query else url,
                body=body,
                headers={**self._headers(), **headers},
                preload_content=False,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=5, read=read_timeout_s),
            )
        except urllib3.exceptions.ReadTimeoutError:
            raise Silence from None
        except (urllib3.exceptions.HTTPError, ConfigException, OSError) as error:
            raise ApiError(
                0, f"the API server {self.server} cannot be reached: {_because(error)}"
            ) from None
        if response.status not in (200, 201):
            raise _refusal(self.server, path, response)
        return response

    def _headers(self) -> dict[str, str]:
        """Asked for anew each time: tokens expire, and the library then reads the next one."""
        headers = {"Accept": "application/json", "User-Agent": "ebpf-lb"}
        for setting in self._configuration.auth_settings().values():
            if setting.get("in") == "header" and setting.get("value"):
                headers[setting["key"]] = setting["value"]
        if self._configuration.username and "authorization" not in headers:
            headers["authorization"] = self._configuration.get_basic_auth_token()
        return headers


def _refusal(server: str, path: str, response: urllib3.BaseHTTPResponse) -> ApiError:
    try:
        message = json.loads(response.read())["message"]
    except (ValueError, LookupError, TypeError, urllib3.exceptions.HTTPError, OSError):
        message = response.reason or "no reason given"
    response.close()
    return ApiError(
        response.status, f"{server} refused {path} with status {response.status}: {message}"
    )


def _because(error: BaseException) -> str:
    """The innermost reason, in one line."""
    for inner in (getattr(error, "reason", None), *reversed(error.args)):
        if isinstance(inner, BaseException):
            return _because(inner)
    text = str(error).rpartition(": Failed to establish a new connection: ")[2]
    return " ".join(text.split()) or type(error).__name__


def connect(kubeconfig: Path | None, server: str | None = None) -> ApiClient:
    """A client by a kubeconfig file, else with the credentials that a pod is given.

    `server` overrides the server's URL: a pod is told the Service's own ClusterIP, which cannot
    work before we forward it. No request is made. UserError if the credentials cannot be read.
    """
    configuration = Configuration()
    if kubeconfig is None:
        try:
            load_incluster_config(client_configuration=configuration)
        except ConfigException as error:
            raise UserError(
                "There is no way to the API server: no kubeconfig file is named, and this is not "
                f"a pod with a service account ({_sentence(error)}); use --kubeconfig FILE."
            ) from None
    else:
        _load_file(kubeconfig, configuration)
    if server is not None:
        configuration.host = server
    if getattr(configuration, "socket_options", None) is None:
        configuration.socket_options = _KEEPALIVE
    try:
        return ApiClient(configuration)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"The credentials for the API server {configuration.host} cannot be used: "
            f"{_sentence(error)}."
        ) from None


def _load_file(path: Path, configuration: Configuration) -> None:
    if not path.exists():
        raise UserError(
            f"The kubeconfig file {path} does not exist; name one that does with --kubeconfig FILE."
        )
    try:
        load_kube_config(
            config_file=str(path), client_configuration=configuration, persist_config=False
        )
    except OSError as error:
        raise UserError(
            f"The kubeconfig file {path} cannot be used: {error.strerror or error}"
            + (f" ({error.filename})." if error.filename else ".")
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise UserError(f"The kubeconfig file {path} is not YAML{where}; correct it.") from None
    except (ConfigException, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(
            f"The kubeconfig file {path} does not say how to reach a cluster: {_sentence(error)}; "
            "correct it or name another with --kubeconfig FILE."
        ) from None


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
