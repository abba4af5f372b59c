"""Following a collection: a list, then the changes, then a list again when the watch is lost."""

import functools
import http.client
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import NoReturn, TypeVar

from ebpf_lb.lab.objects.client import ApiError, Client, Json

log = logging.getLogger(__name__)

_WATCH_S = 300
_RETRY_S = 0.3

News = list[Json] | Json
"""A whole list of objects, or one watch event."""
Item = TypeVar("Item")


def follow_each(client: Client, paths: Iterable[str], put: Callable[[str, News], None]) -> None:
    """Starts a thread for each collection, which calls `put` with its path and what is new."""
    for path in paths:
        arguments = (client, path, functools.partial(put, path))
        threading.Thread(target=follow, args=arguments, daemon=True).start()


def taken(events: "queue.Queue[Item]", due: float | None) -> list[Item]:
    """Whatever has come, at least one event unless it is `due` (of time.monotonic) before."""
    try:
        found = [events.get(timeout=None if due is None else max(0.0, due - time.monotonic()))]
    except queue.Empty:
        return []
    while not events.empty():
        found.append(events.get())
    return found


class Mirror:
    """Collections as they were told last. keep: which objects of a path are of interest."""

    def __init__(self, keep: Callable[[str, Json], bool] = lambda _path, _object: True) -> None:
        self._keep = keep
        self._objects: dict[str, dict[str, Json]] = {}  # path -> uid -> object

    def take(self, path: str, news: News) -> None:
        if isinstance(news, list):
            self._objects[path] = {}
            for object_ in news:
                self.put(path, object_)
        elif news["type"] == "DELETED":
            self._objects[path].pop(news["object"]["metadata"]["uid"], None)
        else:
            self.put(path, news["object"])

    def put(self, path: str, object_: Json) -> None:
        uid = object_["metadata"]["uid"]
        if self._keep(path, object_):
            self._objects[path][uid] = object_
        else:
            self._objects[path].pop(uid, None)

    def knows(self, paths: Iterable[str]) -> bool:
        """Whether all of them have been listed."""
        return self._objects.keys() >= set(paths)

    def of(self, path: str) -> list[Json]:
        """By namespace and name."""
        found = self._objects[path].values()
        return sorted(found, key=lambda o: (o["metadata"].get("namespace"), o["metadata"]["name"]))


def follow(client: Client, path: str, put: Callable[[News], None]) -> NoReturn:
    """Calls `put` with whole lists of objects and with single watch events, for ever: a thread's
    work. What is missing in a list that comes later is gone."""
    while True:
        try:
            listed = client.get(path)
            put(listed["items"])
            version = listed["metadata"]["resourceVersion"]
            while True:
                version = _watch(client, path, version, put)
        except ApiError as error:
            if error.status != 410:  # 410: too old a version, which a list mends
                log.warning("API server: %s", error)
        except (OSError, http.client.HTTPException) as error:
            log.warning("API server does not answer: %s", error)
        time.sleep(_RETRY_S)


def _watch(client: Client, path: str, version: str, put: Callable[[News], None]) -> str:
    """One watch request; yields the version to go on from."""
    for event in client.watch(path, version, _WATCH_S):
        if event["type"] == "ERROR":
            raise ApiError(
                event["object"].get("code", 500),
                event["object"].get("reason", ""),
                event["object"].get("message", ""),
            )
        version = event["object"]["metadata"]["resourceVersion"]
        if event["type"] != "BOOKMARK":
            put(event)
    return version
