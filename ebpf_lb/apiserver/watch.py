"""Watches: a stream of JSON lines, one event each, until the client goes or the time is over.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

import asyncio
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import web

from ebpf_lb.apiserver import errors
from ebpf_lb.apiserver.kinds import Kind
from ebpf_lb.apiserver.selectors import Matcher
from ebpf_lb.apiserver.store import Change, Compacted, Store, Stored
from ebpf_lb.apiserver.table import table

# Without a wish of the client a watch lasts this long, up to twice (the real server's default).
_MIN_TIMEOUT_S = 1800
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """version: "" and "0" ask for the present state first. matches: None lets all pass.
    initial_events: the present state first, ended by a bookmark that says so (KEP-3157).
    table_include: events carry Tables, with this besides the cells; None: objects."""

    kind: Kind
    namespace: str | None
    version: str
    matches: Matcher | None
    bookmarks: bool
    initial_events: bool
    timeout_s: int
    bookmark_interval_s: float
    table_include: str | None = None

    def body(self, stored: Stored) -> bytes:
        """An object as its events carry it."""
        if self.table_include is None:
            return stored.json
        metadata = {"resourceVersion": stored.metadata["resourceVersion"]}
        return json.dumps(table(self.kind, [stored], metadata, self.table_include)).encode()

    def passes(self, stored: Stored | None) -> bool:
        if stored is None or (self.namespace and stored.namespace != self.namespace):
            return False
        return self.matches is None or self.matches(stored.object)


def _event(kind: str, body: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), body)


def event_for(change: Change, watch: WatchRequest) -> bytes | None:
    """What a watcher sees of a change: entering its selection is ADDED, leaving it is DELETED."""
    before, after = watch.passes(change.before), watch.passes(change.after)
    if after and change.after:
        return _event("MODIFIED" if before else "ADDED", watch.body(change.after))
    if before and change.before:
        return _event("DELETED", watch.body(change.before.at_version(change.version)))
    return None


def _bookmark(kind: Kind, version: int, annotations: dict[str, str] | None = None) -> bytes:
    metadata: dict[str, object] = {"resourceVersion": str(version), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = annotations
    body = {"kind": kind.name, "apiVersion": kind.api_version, "metadata": metadata}
    return _event("BOOKMARK", json.dumps(body).encode())


def _gone(oldest: int, asked: int) -> errors.StatusError:
    return errors.expired(f"too old resource version: {asked} ({oldest})")


async def stream_watch(
    store: Store, watch: WatchRequest, request: web.Request
) -> web.StreamResponse:
    """Serves one watch to its end."""
    if watch.version and not watch.version.isdigit():
        raise errors.bad_request(f"Invalid value: {watch.version!r}: resourceVersion")
    start = int(watch.version or 0)
    from_now = start == 0 or watch.initial_events
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    version = store.version if from_now else start
    initial = [s for s in store.objects(watch.kind, watch.namespace) if watch.passes(s)]
    try:
        cursor = store.watch(watch.kind, version)
    except Compacted as compacted:
        # As in the real server, the answer is 200 and the failure is the first event.
        await response.prepare(request)
        await response.write(_error_event(_gone(compacted.oldest, start)))
        return response
    await response.prepare(request)
    if from_now:
        for chunk in _chunks(_event("ADDED", watch.body(stored)) for stored in initial):
            await response.write(chunk)
        if watch.initial_events and watch.bookmarks:
            ended = {_INITIAL_EVENTS_END: "true"}
            await response.write(_bookmark(watch.kind, version, ended))
    timeout_s = watch.timeout_s or _MIN_TIMEOUT_S * (1 + random.random())
    deadline = time.monotonic() + timeout_s
    next_bookmark = time.monotonic() + watch.bookmark_interval_s
    while (now := time.monotonic()) < deadline:
        if watch.bookmarks and now >= next_bookmark:
            next_bookmark = now + watch.bookmark_interval_s
            await response.write(_bookmark(watch.kind, store.version))
        until = min(deadline, next_bookmark) if watch.bookmarks else deadline
        await cursor.wait(until - now)
        try:
            changes = cursor.take()
        except Compacted as compacted:
            await response.write(_error_event(_gone(compacted.oldest, version)))
            return response
        events = [event_for(change, watch) for change in changes if change.version > version]
        for chunk in _chunks(event for event in events if event):
            await response.write(chunk)
        await asyncio.sleep(0)
    if watch.bookmarks:
        await response.write(_bookmark(watch.kind, store.version))
    return response


def _error_event(error: errors.StatusError) -> bytes:
    return _event("ERROR", json.dumps(error.body()).encode())


def _chunks(events: Iterator[bytes], size_bytes: int = 65_536) -> Iterator[bytes]:
    """Events joined to writes of about `size_bytes`: one system call for many small ones."""
    pending: list[bytes] = []
    length = 0
    for event in events:
        pending.append(event)
        length += len(event)
        if length >= size_bytes:
            yield b"".join(pending)
            pending, length = [], 0
    if pending:
        yield b"".join(pending)
