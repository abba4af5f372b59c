"""The plainest clusters that still show a fault, found by leaving things out."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from tests.oracle.situations import Situation

T = TypeVar("T")

# without these it is not an object, or another one
KEPT = {"kind", "metadata", "namespace", "name", "labels", "kubernetes.io/service-name", "spec",
        "type", "clusterIP", "clusterIPs", "status", "loadBalancer", "ingress", "addressType",
        "port", "protocol", "addresses"}  # fmt: skip


def plainest(
    history: list[Situation], fault: Callable[[list[Situation]], T | None], seconds: float
) -> tuple[list[Situation], T | None]:
    """The last history found within so many seconds that has a fault still, and that fault.

    fault: of a history, if it has one. What raises has none: no cluster that anybody could have.
    """

    def has(candidate: list[Situation]) -> T | None:
        try:
            return fault(candidate)
        except Exception:
            return None

    deadline = time.monotonic() + seconds
    best, found, at = history, has(history), 0
    tried = 0  # since anything could be left out, from `at` on
    candidates = list(_plainer(best))
    while found and tried < len(candidates) and time.monotonic() < deadline:
        at %= len(candidates)
        now = has(candidates[at])
        if now:
            best, found, tried = candidates[at], now, 0
            candidates = list(_plainer(best))
        else:
            at, tried = at + 1, tried + 1
    return best, found


def _plainer(history: list[Situation]) -> Iterator[list[Situation]]:
    for at in range(len(history) - 1):
        yield history[:at] + history[at + 1 :]
    for at, situation in reversed(list(enumerate(history))):
        for less in _less(situation):
            yield [*history[:at], less, *history[at + 1 :]]


def _less(situation: Situation) -> Iterator[Situation]:
    if situation.masquerade_all:
        yield replace(situation, masquerade_all=False)
    if not situation.pod_networks_known:
        yield replace(situation, pod_networks_known=True)
    if situation.service_networks:
        yield replace(situation, service_networks=())
    for objects in _smaller(situation.objects):
        yield replace(situation, objects=objects)


def _smaller(value: Any) -> Iterator[Any]:
    """All that comes out when one thing is left out of JSON."""
    if isinstance(value, dict):
        for key in value:
            if key not in KEPT:
                yield {k: v for k, v in value.items() if k != key}
        for key in value:
            for less in _smaller(value[key]):
                yield {**value, key: less}
    elif isinstance(value, list):
        # addresses are never none at all
        for at in range(len(value)) if value and not isinstance(value[0], str) else ():
            yield value[:at] + value[at + 1 :]
        for at, item in enumerate(value):
            for less in _smaller(item):
                yield [*value[:at], less, *value[at + 1 :]]
