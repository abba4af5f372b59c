"""How much the log says of one object, and of one namespace's objects: so much a minute.

Objects are their owners', and the log is the operator's: what is wrong with a Service may be
written into it again with every update, by whoever may update it.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from structlog import DropEvent

OBJECT_BYTES = 4096  # at once, and again within a minute
NAMESPACE_BYTES = 8 * OBJECT_BYTES
REFILL_S = 60.0
LONGEST_TEXT = 1000  # characters of one field
REMEMBERED = 4096
_LINE_BYTES = 100  # time, level and names
_FIELDS = ("service", "object")  # that name an object, as namespace/name


@dataclass(slots=True)
class _Account:
    """Bytes that may still be written, as of a time. `overdrawn`: that it is empty was said."""

    left: float
    at_s: float
    overdrawn: bool = False


class LogBudget:
    """A processor for structlog. Lines about no object are left alone. `clock`: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def __call__(self, logger: Any, method: str, event: dict[str, Any]) -> dict[str, Any]:
        name = next((event[field] for field in _FIELDS if field in event), None)
        if not isinstance(name, str):
            return event
        for field, value in event.items():
            if isinstance(value, str) and len(value) > LONGEST_TEXT:
                event[field] = f"{value[:LONGEST_TEXT]}…"
        size = _LINE_BYTES + sum(len(value) for value in event.values() if isinstance(value, str))
        namespace = name.partition("/")[0]
        for key, limit in ((name, OBJECT_BYTES), (f"{namespace}/", NAMESPACE_BYTES)):
            account = self._account(key, limit)
            if account.left >= size:
                account.left -= size
                continue
            if account.overdrawn:
                raise DropEvent
            account.overdrawn = True
            more = "less is said of it for a while"
            return {key: event[key] for key in ("timestamp", "level") if key in event} | {
                "event": "too much about one object",
                "object": key,
                "problem": more,
            }
        return event

    def _account(self, key: str, limit: int) -> _Account:
        now = self._clock()
        account = self._accounts.pop(key, None) or _Account(limit, now)
        account.left = min(limit, account.left + (now - account.at_s) * limit / REFILL_S)
        account.at_s = now
        if account.left >= limit / 2:
            account.overdrawn = False
        self._accounts[key] = account
        if len(self._accounts) > REMEMBERED:
            self._accounts.popitem(last=False)
        return account
