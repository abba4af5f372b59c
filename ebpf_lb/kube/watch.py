"""Following a collection of the API for ever: list it, watch it, and again when the server forgot.

Three nested generators, each with one reason to begin anew:

    _for_ever         lists again: the version is gone (410), or the list itself failed
    _list, _watch_on  connect again, from the last version seen: it ended, broke or was silent
    _connection       one watch request, until it ends

Every failure is followed by a pause that doubles, with jitter; every sign of progress resets it. It
stays short: who waits for a server that is back serves what was true before. Where all nodes have
to list at once (410, a server that hung), chance spreads them.
"""

import random
import threading
import time
from array import array
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ebpf_lb.kube.client import ApiClient, ApiError, Silence, Stream
from ebpf_lb.kube.resources import Resource
from ebpf_lb.model.key import ObjectKey

GONE = 410
NOT_FOUND = 404
FORBIDDEN = 403


@dataclass(frozen=True, slots=True)
class Listed:
    """The whole collection, as values: whatever is not in it is gone. Comes first, and again after
    the server forgot what changed since. `triggered_s`: of each object; () if none says it."""

    resource: Resource
    objects: tuple[Any, ...]
    triggered_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Changed:
    """An object is new or other than it was. `triggered_s`: see Parsed."""

    resource: Resource
    object: Any
    key: ObjectKey
    triggered_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Deleted:
    """An object is gone, or no longer of a kind that we look at."""

    resource: Resource
    key: ObjectKey


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to tell people, in one sentence; the watch goes on by itself.

    `key`: the object a part of which was refused; None: the connection as a whole, reported once
    an outage.
    """

    resource: Resource
    text: str
    key: ObjectKey | None = None


@dataclass(frozen=True, slots=True)
class Interrupted(Problem):
    """The collection is not followed at the moment; told once for each cause, which may be other
    collections' as well. `silent_s`: it has not been followed for so long already."""

    cause: str = ""
    silent_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Restored:
    """It is followed again."""

    resource: Resource


Event = Listed | Changed | Deleted | Problem | Restored


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """page_size: objects a page of a list. server_timeout_s: when the server ends a watch by itself
    (it is asked for one to two times that, so that nodes spread). silence_s: a watch on which
    nothing was heard for so long is given up; servers send a bookmark a minute, and two may come
    late. list_timeout_s: likewise for lists. relist_within_s: a list that all nodes may need at
    once comes at a time by chance, at most so late. absent_s: when to ask again for what the server
    does not have, or not for us. backoff_*: pauses after failures, halved at random.
    """

    page_size: int = 200  # what a page takes to parse leaves holes between what is kept
    server_timeout_s: int = 300
    silence_s: float = 150
    list_timeout_s: float = 60
    relist_within_s: float = 4
    absent_s: float = 60
    backoff_first_s: float = 0.2
    backoff_max_s: float = 5


DEFAULTS = WatchSettings()

# The server answers, but refuses this watch again and again: it may have lost its history (etcd
# restored from a backup) without saying so by 410. Only a list can tell.
_REFUSALS_BEFORE_RELIST = 5
# A server that just started refuses what it will allow when it knows its roles.
_FORBIDDEN_BEFORE_PATIENCE = 24
_LONGEST_WISH_S = 30.0  # for how long a server may send us away


class Watcher:
    """Calls `sink` with each event, in order, from a thread of its own.

    `sleep` and `clock` (seconds) and `chance` (a number from 0 to 1) are for tests.
    """

    def __init__(
        self,
        client: ApiClient,
        resource: Resource,
        sink: Callable[[Event], None],
        *,
        settings: WatchSettings = DEFAULTS,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._resource = resource
        self._sink = sink
        self._settings = settings
        self._stopping = threading.Event()
        self._sleep = sleep or self._stopping.wait
        self._clock = clock
        self._chance = chance
        self._thread = threading.Thread(
            target=self._run, name=f"watch-{resource.name}", daemon=True
        )
        self._stream: Stream | None = None
        self._version = ""
        self._in_pages = True
        self._failures = 0  # in a row; the pause follows from it
        self._refusals = 0  # of watches, in a row
        self._forbidden = 0  # lists, in a row
        self._listed = False
        self._complaint = ""
        self._interrupted = False
        self._heard_at: float | None = None

    @property
    def name(self) -> str:
        """Of the kind of objects."""
        return self._resource.name

    @property
    def silent_s(self) -> float | None:
        """Since the server last said anything of this kind, and be it that nothing has changed;
        None before it has. Another thread may ask."""
        heard_at = self._heard_at
        return None if heard_at is None else self._clock() - heard_at

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 0.4) -> None:
        """After this no event comes. A thread that hangs in a connection attempt is left behind;
        it ends with that attempt."""
        self._stopping.set()
        stream = self._stream
        if stream is not None:
            stream.abort()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                for event in self._for_ever():
                    if self._stopping.is_set():
                        return
                    self._sink(event)
            except Exception as error:  # a mistake of ours must not end a node's only watch
                self._sink(Problem(self._resource, f"Internal error in the watch: {error!r}."))
                self._pause()

    # rule: CP-4
    def _for_ever(self) -> Iterator[Event]:
        while not self._stopping.is_set():
            try:
                if (yield from self._list_what_there_is()):
                    yield from self._watch_on()
            except ApiError as error:
                if error.status == GONE:
                    self._failures = 0  # the server is well
                    self._wait_by_chance()
                    continue
                yield from self._complain(error)
                self._pause(error.retry_after_s)

    def _list_what_there_is(self) -> Generator[Event, None, bool]:
        """Of the collection, or of the one that stands in where the server has no such thing; False
        if there is neither, which is told as an empty list."""
        resource = self._resource
        try:
            yield from self._list()
            return True
        except ApiError as error:
            if error.status == NOT_FOUND and resource.otherwise is not None:
                self._resource = resource.otherwise
                yield from self._list()
                return True
            if not resource.optional or error.status not in (NOT_FOUND, FORBIDDEN):
                raise
            if error.status == FORBIDDEN:
                yield from self._forbid(error)
                return False
        self._listed = False
        yield Listed(resource, ())
        self._sleep(self._settings.absent_s * (0.5 + 0.5 * self._chance()))
        return False

    def _forbid(self, error: ApiError) -> Iterator[Event]:
        """What we had stays: rights come back, and without them nobody can say that it is gone."""
        complaint = f"Going without {self._resource.name}: {error}."
        if self._complaint != complaint:
            self._complaint = complaint
            yield Problem(self._resource, complaint)
        if not self._listed and not self._forbidden:
            yield Listed(self._resource, ())
        self._forbidden += 1
        if self._forbidden < _FORBIDDEN_BEFORE_PATIENCE:
            self._wait_by_chance()
        else:
            self._sleep(self._settings.absent_s * (0.5 + 0.5 * self._chance()))

    def _list(self) -> Iterator[Event]:
        """Without resourceVersion: the newest state there is. `0` or NotOlderThan could be served
        from a server's cache that lags behind what we have seen, and would undo it."""
        values: list[Any] = []
        triggered_s = array("d")
        refused: list[Problem] = []
        query = dict(self._resource.selectors)
        if self._in_pages:
            query["limit"] = str(self._settings.page_size)
        while True:
            try:
                page = self._client.get(
                    self._resource.path, query, timeout_s=self._settings.list_timeout_s
                )
            except ApiError as error:
                # the list took longer than the server keeps its state: next time in one piece
                self._in_pages = not (error.status == GONE and "continue" in query)
                raise
            items, version, more = _page(page)
            del page
            for raw in items:
                if not isinstance(raw, dict):
                    raise ApiError(0, "the API server sent a list of something else than objects")
                parsed = self._resource.parse(raw)
                refused += (Problem(self._resource, t, parsed.key) for t in parsed.problems)
                if parsed.value is not None:
                    values.append(parsed.value)
                    triggered_s.append(parsed.triggered_s)
            del items
            if not more:
                break
            query["continue"] = more
        self._in_pages = True
        self._version = version
        self._listed = True
        self._forbidden = 0
        self._heard_at = self._clock()
        yield from self._well_again()
        yield from refused
        yield Listed(self._resource, tuple(values), tuple(triggered_s) if any(triggered_s) else ())

    def _watch_on(self) -> Iterator[Event]:
        self._refusals = 0
        while not self._stopping.is_set():
            began = self._clock()
            try:
                heard = yield from self._connection()
            except ApiError as error:
                if self._stopping.is_set():
                    return
                if isinstance(error, Silence):
                    # what a server says that hung is not to be trusted to be all: list
                    yield from self._complain(error, self._settings.silence_s)
                    self._wait_by_chance()
                    return
                self._refusals += error.status != 0
                if error.status in (400, 404, GONE) or self._refusals >= _REFUSALS_BEFORE_RELIST:
                    raise
                yield from self._complain(error)
                self._pause(error.retry_after_s)
            else:
                if not heard and self._clock() - began < 1:
                    self._pause()  # a server that ends every watch at once

    def _connection(self) -> Generator[Event, None, bool]:
        """One watch; whether anything was heard on it."""
        settings = self._settings
        timeout_s = int(settings.server_timeout_s * (1 + self._chance()))
        query = self._resource.selectors | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(max(1, timeout_s)),
        }
        heard = False
        stream = self._client.stream(self._resource.path, query, silence_s=settings.silence_s)
        self._stream = stream
        try:
            if self._stopping.is_set():
                stream.abort()
            yield from self._well_again()  # it is accepted; what is new comes when there is any
            for message in stream:
                yield from self._message(message)
                heard = True
                self._failures = self._refusals = 0
        finally:
            self._stream = None
            stream.close()
        return heard

    def _message(self, message: Any) -> Iterator[Event]:
        try:
            kind, raw = message["type"], message["object"]
            if kind == "ERROR":
                raise ApiError(int(raw.get("code") or 0), str(raw.get("message") or "no reason"))
            version = raw["metadata"]["resourceVersion"]
        except (LookupError, TypeError, AttributeError, ValueError):
            raise ApiError(0, "the API server sent something that is not a watch event") from None
        if kind in ("ADDED", "MODIFIED"):
            parsed = self._resource.parse(raw)
            for text in parsed.problems:
                yield Problem(self._resource, text, parsed.key)
            if parsed.value is not None:
                yield Changed(self._resource, parsed.value, parsed.key, parsed.triggered_s)
            else:
                yield Deleted(self._resource, parsed.key)
        elif kind == "DELETED":
            yield Deleted(self._resource, self._resource.parse(raw).key)
        self._version = version
        self._heard_at = self._clock()

    def _complain(self, error: ApiError, silent_s: float = 0.0) -> Iterator[Event]:
        """Once for each cause, however many attempts an outage takes."""
        self._interrupted = True
        text = f"Watching {self._resource.name} is interrupted: {error}; trying again."
        if text != self._complaint:
            self._complaint = text
            yield Interrupted(self._resource, text, cause=str(error), silent_s=silent_s)

    def _well_again(self) -> Iterator[Event]:
        self._complaint = ""
        if self._interrupted:
            self._interrupted = False
            yield Restored(self._resource)

    def _pause(self, at_least_s: float = 0.0) -> None:
        settings = self._settings
        self._failures += 1
        doublings = min(self._failures - 1, 30)
        longest = min(settings.backoff_max_s, settings.backoff_first_s * 2**doublings)
        pause_s = longest * (0.5 + 0.5 * self._chance())
        self._sleep(max(pause_s, min(at_least_s, _LONGEST_WISH_S)))

    def _wait_by_chance(self) -> None:
        self._sleep(self._settings.relist_within_s * self._chance())


def _page(page: Any) -> tuple[list[Any], str, str]:
    """A list's objects, its version, and the token for the next page ("": none)."""
    with suppress(LookupError, TypeError, AttributeError):
        metadata = page["metadata"]
        items = page.pop("items") or []
        if isinstance(items, list):
            return items, str(metadata["resourceVersion"]), str(metadata.get("continue") or "")
    raise ApiError(0, "the API server sent something that is not a list")
