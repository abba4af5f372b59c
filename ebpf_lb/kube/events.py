"""Events about Services, which `kubectl get events` shows beside other components' words.

They are for people and may be lost: nothing waits for them, and whatever a Service does, what is
published of it is bounded, as upstream's recorder bounds it. The same words again count up the
Event there is, and are sent at most once a while; many different words of one kind about a Service
become one Event that says so; and a Service may cause so many requests, and no more. What every
node finds alike is one Event for all of them: it is named by what it says.
"""

import hashlib
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeVar

from ebpf_lb.kube.client import ApiError
from ebpf_lb.model.key import ObjectKey

K = TypeVar("K")
V = TypeVar("V")

COMPONENT = "ebpf-lb"
SIMILAR = 4  # different words of one kind about one Service, in SIMILAR_S; then they are combined
SIMILAR_S = 600.0
AGAIN_S = 60.0  # the same words are not sent more often
BURST = 6  # requests about one Service; then one every REFILL_S
REFILL_S = 300.0
REMEMBERED = 4096  # Events, and as many Services; the longest unused are forgotten
_WAITING = 50  # the rest of a flood is dropped
_PAUSE_S = 0.2  # between two of them
_MESSAGE_CHARACTERS = 512
_NOT_FOUND, _CONFLICT = 404, 409


class Client(Protocol):
    """What is asked of `ApiClient` here."""

    def create(self, path: str, document: Any) -> None: ...
    def patch(self, path: str, document: Any) -> None: ...


class _Warning(NamedTuple):
    service: ObjectKey
    reason: str
    message: str
    everywhere: bool
    when: datetime


@dataclass(slots=True)
class _Sent:
    """An Event as the server has it, or should."""

    count: int
    sent_s: float


@dataclass(slots=True)
class _Budget:
    """Requests that a Service may still cause, as of a time."""

    left: float
    at_s: float


class EventRecorder:
    """Sends warnings from a thread of its own, which begins with the first one.

    node: our Node's name. log: structlog's. today: the time of day. clock: monotonic seconds.
    """

    def __init__(
        self,
        client: Client,
        node: str,
        log: Any,
        today: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._client = client
        self._node = node
        self._log = log
        self._today = today
        self._clock = clock
        self._pause = pause
        self._waiting: queue.Queue[_Warning] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._sent: OrderedDict[str, _Sent] = OrderedDict()  # by the Event's path
        self._similar: OrderedDict[tuple[ObjectKey, str], dict[str, float]] = OrderedDict()
        self._budgets: OrderedDict[ObjectKey, _Budget] = OrderedDict()

    def warn(
        self, service: ObjectKey, reason: str, message: str, *, everywhere: bool = False
    ) -> None:
        """Says that something is wrong with a Service. `reason`: a word in CamelCase; `everywhere`:
        every node says the same."""
        try:
            self._waiting.put_nowait(_Warning(service, reason, message, everywhere, self._today()))
        except queue.Full:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_all, name="events", daemon=True)
            self._thread.start()

    def _send_all(self) -> None:
        while True:
            warning = self._waiting.get()
            try:
                if not self._send(warning):
                    continue
            except ApiError as error:
                self._log.debug("event not sent", service=str(warning.service), error=str(error))
            self._pause(_PAUSE_S)

    def _send(self, warning: _Warning) -> bool:
        """Whether the server was asked."""
        message = self._combined(warning)
        name = self._name(warning, message)
        folder = f"/api/v1/namespaces/{warning.service.namespace}/events"
        path = f"{folder}/{name}"
        now, stamp = self._clock(), warning.when.strftime("%Y-%m-%dT%H:%M:%SZ")
        known = self._sent.get(path)
        if known is not None:
            known.count += 1
            if now - known.sent_s < AGAIN_S:
                return False
        if not self._afford(warning.service, now):
            return False
        count = known.count if known is not None else 1
        _remember(self._sent, path, _Sent(count, now))
        if known is not None and self._patch(path, {"count": count, "lastTimestamp": stamp}):
            return True
        try:
            self._client.create(folder, self._event(warning, message, name, stamp, count))
        except ApiError as error:
            if error.status != _CONFLICT:
                raise
            if not warning.everywhere:  # said before this process began; else another node keeps it
                self._patch(path, {"lastTimestamp": stamp})
        return True

    def _patch(self, path: str, change: dict[str, Any]) -> bool:
        """False if the server has forgotten it: it keeps Events for an hour."""
        try:
            self._client.patch(path, change)
        except ApiError as error:
            if error.status != _NOT_FOUND:
                raise
            return False
        return True

    def _name(self, warning: _Warning, message: str) -> str:
        """As other components name them, by the object and a number; ours is of what is said."""
        where = "" if warning.everywhere else self._node
        said = "\0".join((where, warning.reason, message))
        return f"{warning.service.name}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"

    def _combined(self, warning: _Warning) -> str:
        """The message; or, where there were too many others like it, one for all of them."""
        service, reason, now = warning.service, warning.reason, self._clock()
        message = warning.message[:_MESSAGE_CHARACTERS]
        similar = self._similar.get((service, reason), {})
        similar = {text: seen for text, seen in similar.items() if now - seen < SIMILAR_S}
        if message in similar or len(similar) < SIMILAR:
            similar[message] = now
            combined = message
        else:
            combined = (
                f"There are more than {SIMILAR} of this kind; the log of {COMPONENT} has all."
            )
        _remember(self._similar, (service, reason), similar)
        return combined

    def _afford(self, service: ObjectKey, now: float) -> bool:
        budget = self._budgets.get(service) or _Budget(BURST, now)
        left = min(BURST, budget.left + (now - budget.at_s) / REFILL_S)
        affordable = left >= 1
        _remember(self._budgets, service, _Budget(left - affordable, now))
        return affordable

    def _event(
        self, warning: _Warning, message: str, name: str, stamp: str, count: int
    ) -> dict[str, Any]:
        service = warning.service
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": service.namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Service",
                "namespace": service.namespace,
                "name": service.name,
            },
            "type": "Warning",
            "reason": warning.reason,
            "message": message,
            "source": {"component": COMPONENT, "host": self._node},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._node,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": count,
        }


def _remember(into: OrderedDict[K, V], key: K, value: V) -> None:
    into[key] = value
    into.move_to_end(key)
    if len(into) > REMEMBERED:
        into.popitem(last=False)
