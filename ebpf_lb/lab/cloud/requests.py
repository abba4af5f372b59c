"""What `ebpf-lb lab route` and the cloud say to each other: a line of JSON each way, by a socket.

Request: {} to list, {"address": A, "node": N} to pin, {"address": A, "node": null} to let go.
Answer: {"routes": {ADDRESS: {"nodes": [N, …], "pinned": BOOL}}} or {"error": SENTENCE}; by then the
router's routes are as the answer says.
"""

import json
import queue
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ebpf_lb.errors import UserError

_TIMEOUT_S = 30.0
_STARTS_WITHIN_S = 30.0

Json = dict[str, Any]


class CloudError(UserError):
    """The lab's cloud refuses, or does not answer."""


@dataclass(slots=True)
class Request:
    """One request; whoever serves it puts the answer into `answer`."""

    body: Json
    answer: "queue.Queue[Json]" = field(default_factory=lambda: queue.Queue(1))


def ask(path: Path, body: Json) -> Json:
    """The answer's routes. Raises CloudError."""
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while True:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_TIMEOUT_S)
                connection.connect(str(path))
                connection.sendall(json.dumps(body).encode() + b"\n")
                answer: Json = json.loads(connection.makefile().readline())
            break
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if time.monotonic() > deadline:
                raise CloudError("the lab's cloud does not run: see `ebpf-lb lab down`") from error
            time.sleep(0.05)
        except (OSError, ValueError) as error:
            raise CloudError(f"the lab's cloud does not answer: {error}") from error
    if "error" in answer:
        raise CloudError(answer["error"])
    routes: Json = answer["routes"]
    return routes


def serve(path: Path, put: Callable[[Request], None]) -> NoReturn:
    """Takes requests for ever, one after the other: a thread's work."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(_TIMEOUT_S)
                try:
                    request = Request(json.loads(connection.makefile().readline()))
                    put(request)
                    answer = request.answer.get(timeout=_TIMEOUT_S)
                    connection.sendall(json.dumps(answer).encode() + b"\n")
                except (OSError, ValueError, queue.Empty):
                    continue  # whoever asked hears that nobody answers
