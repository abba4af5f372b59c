"""Events about Services, which `kubectl get events` shows beside other components' words.

They are for people and may be lost: nothing waits for them, and a flood of them is cut short, since
the log and the metrics say the same.
"""

import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from ebpf_lb.kube.client import ApiError
from ebpf_lb.model.key import ObjectKey

COMPONENT = "ebpf-lb"
_WAITING = 50  # the rest of a flood is dropped
_PAUSE_S = 0.2  # between two of them
_MESSAGE_CHARACTERS = 1024  # the API server takes no more


class Client(Protocol):
    """What is asked of `ApiClient` here."""

    def create(self, path: str, document: Any) -> None: ...


class EventRecorder:
    """Sends warnings from a thread of its own, which begins with the first one.

    node: our Node's name. log: structlog's. today: the time of day.
    """

    def __init__(
        self,
        client: Client,
        node: str,
        log: Any,
        today: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._node = node
        self._log = log
        self._today = today
        self._waiting: queue.Queue[tuple[ObjectKey, str, str, datetime]] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None

    def warn(self, service: ObjectKey, reason: str, message: str) -> None:
        """Says once that something is wrong with a Service. `reason`: a word in CamelCase."""
        try:
            self._waiting.put_nowait((service, reason, message, self._today()))
        except queue.Full:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_all, name="events", daemon=True)
            self._thread.start()

    def _send_all(self) -> None:
        while True:
            service, reason, message, when = self._waiting.get()
            document = self._event(service, reason, message, when)
            try:
                self._client.create(f"/api/v1/namespaces/{service.namespace}/events", document)
            except ApiError as error:
                self._log.debug("event not sent", service=str(service), error=str(error))
            time.sleep(_PAUSE_S)

    def _event(
        self, service: ObjectKey, reason: str, message: str, when: datetime
    ) -> dict[str, Any]:
        stamp = when.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                # as other components name them; a name must be new in its namespace
                "name": f"{service.name}.{int(when.timestamp() * 1e6):x}",
                "namespace": service.namespace,
            },
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Service",
                "namespace": service.namespace,
                "name": service.name,
            },
            "type": "Warning",
            "reason": reason,
            "message": message[:_MESSAGE_CHARACTERS],
            "source": {"component": COMPONENT, "host": self._node},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._node,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
