"""Objects, their versions, and the history that watches are served from.

Rules: a stored object is never changed, a change stores a new one; every change, a deletion
included, takes the next number of one counter for all kinds (`resourceVersion`); the last
`history_limit` changes of each kind are kept, so a watcher is a position in the history and not a
queue: however slow a client is, it costs no memory, and what fell behind gets 410 Gone.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

from ebpf_lb.apiserver.kinds import KINDS, Kind

Json = dict[str, Any]


class Stored:
    """One version of one object, without `kind` and `apiVersion`: the items of a list have none
    in the real API either."""

    def __init__(self, kind: Kind, object_: Json) -> None:
        self.kind = kind
        self.object = object_

    @property
    def metadata(self) -> Json:
        metadata: Json = self.object["metadata"]
        return metadata

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    @property
    def namespace(self) -> str:
        """ "" for a kind without namespaces."""
        return str(self.metadata.get("namespace", ""))

    @property
    def uid(self) -> str:
        return str(self.metadata["uid"])

    @property
    def labels(self) -> dict[str, str]:
        return self.metadata.get("labels") or {}

    @property
    def annotations(self) -> dict[str, str]:
        return self.metadata.get("annotations") or {}

    @property
    def terminating(self) -> bool:
        return "deletionTimestamp" in self.metadata

    @property
    def spec(self) -> Json:
        return self.object.get("spec") or {}

    @property
    def status(self) -> Json:
        return self.object.get("status") or {}

    @property
    def version(self) -> int:
        return int(self.metadata["resourceVersion"])

    @property
    def key(self) -> str:
        """Unique in its kind; lists are in this order (etcd's)."""
        return object_key(self.namespace, self.name)

    def at_version(self, version: int) -> "Stored":
        metadata = self.metadata | {"resourceVersion": str(version)}
        return Stored(self.kind, self.object | {"metadata": metadata})

    @cached_property
    def item_json(self) -> bytes:
        """As an item of a list. Encoded once, however many clients get it."""
        return json.dumps(self.object, separators=(",", ":")).encode()

    @property
    def json(self) -> bytes:
        """As an object of its own."""
        head = json.dumps({"kind": self.kind.name, "apiVersion": self.kind.api_version})
        return head[:-1].encode() + b"," + self.item_json[1:]


def object_key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


class Change(NamedTuple):
    """From one version of an object to the next; `before` is None if created, `after` if gone."""

    version: int
    before: Stored | None
    after: Stored | None

    @property
    def subject(self) -> Stored:
        subject = self.after or self.before
        assert subject is not None
        return subject


class Compacted(Exception):
    """The version asked for is older than the history; `oldest` is the oldest that can be had."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"oldest version: {oldest}")
        self.oldest = oldest


class _Shelf:
    """All objects of one kind, and their history."""

    def __init__(self, history_limit: int) -> None:
        self.objects: dict[str, Stored] = {}
        self.by_namespace: dict[str, dict[str, Stored]] = {}
        self.history: deque[Change] = deque(maxlen=history_limit)
        self.dropped = 0  # changes that have left the history
        self.oldest = 0  # the state at this version and later can be had
        self.changed = asyncio.Event()


class Store:
    """The server's state. `journal` is called with every change before anyone learns of it."""

    def __init__(
        self, history_limit: int = 10_000, journal: Callable[[Kind, Change], None] | None = None
    ) -> None:
        self.version = 0
        self._shelves = {kind: _Shelf(history_limit) for kind in KINDS}
        self._listeners: list[Callable[[Change], None]] = []
        self.journal = journal

    def restore(self, version: int, objects: Iterable[Stored]) -> None:
        """The state of an earlier process. History begins anew: older versions are Gone, as they
        are for the watch cache of an API server that has just started."""
        self.version = version
        for stored in objects:
            self._place(stored.kind, stored.key, stored)
            self._tell(Change(stored.version, None, stored))
        for shelf in self._shelves.values():
            shelf.oldest = version

    def subscribe(self, listener: Callable[[Change], None]) -> None:
        """`listener` is called at every change, at once; it must only take note."""
        self._listeners.append(listener)

    def get(self, kind: Kind, namespace: str, name: str) -> Stored | None:
        return self._shelves[kind].objects.get(object_key(namespace, name))

    def objects(self, kind: Kind, namespace: str | None = None) -> list[Stored]:
        """In the order of `Stored.key`; all namespaces if None is given."""
        shelf = self._shelves[kind]
        objects = shelf.by_namespace.get(namespace, {}) if namespace else shelf.objects
        return [objects[key] for key in sorted(objects)]

    def objects_at(self, kind: Kind, version: int, namespace: str | None = None) -> list[Stored]:
        """The same as it was at `version`. Raises Compacted if that is too long ago."""
        shelf = self._shelves[kind]
        if version < shelf.oldest:
            raise Compacted(shelf.oldest)
        objects = dict(shelf.objects)
        for change in reversed(shelf.history):
            if change.version <= version:
                break
            if change.before is None:
                objects.pop(change.subject.key, None)
            else:
                objects[change.before.key] = change.before
        return [
            objects[key]
            for key in sorted(objects)
            if not namespace or objects[key].namespace == namespace
        ]

    def put(self, kind: Kind, object_: Json) -> Stored:
        """Stores a new version; `object_` belongs to the store from now on."""
        version = self.version + 1
        object_["metadata"]["resourceVersion"] = str(version)
        after = Stored(kind, object_)
        self._commit(kind, Change(version, self._shelves[kind].objects.get(after.key), after))
        return after

    def remove(self, stored: Stored) -> Stored:
        """Returns the object's last version, which carries the number of the deletion."""
        change = Change(self.version + 1, stored, None)
        self._commit(stored.kind, change)
        return stored.at_version(change.version)

    def _commit(self, kind: Kind, change: Change) -> None:
        if self.journal:
            self.journal(kind, change)
        self.version = change.version
        shelf = self._shelves[kind]
        self._place(kind, change.subject.key, change.after)
        if len(shelf.history) == shelf.history.maxlen:
            shelf.oldest = shelf.history[0].version
            shelf.dropped += 1
        shelf.history.append(change)
        shelf.changed.set()
        shelf.changed = asyncio.Event()
        self._tell(change)

    def _place(self, kind: Kind, key: str, stored: Stored | None) -> None:
        shelf = self._shelves[kind]
        if stored is not None:
            shelf.objects[key] = stored
            shelf.by_namespace.setdefault(stored.namespace, {})[key] = stored
        else:
            namespace = shelf.objects.pop(key).namespace
            del shelf.by_namespace[namespace][key]

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)

    def watch(self, kind: Kind, version: int) -> "Cursor":
        """The changes after `version`. Raises Compacted if that is too long ago."""
        shelf = self._shelves[kind]
        if version < shelf.oldest:
            raise Compacted(shelf.oldest)
        behind = 0
        for change in reversed(shelf.history):
            if change.version <= version:
                break
            behind += 1
        return Cursor(shelf, shelf.dropped + len(shelf.history) - behind)


class Cursor:
    """A position in one kind's history."""

    def __init__(self, shelf: _Shelf, position: int) -> None:
        self._shelf = shelf
        self._position = position

    def take(self) -> list[Change]:
        """What happened since the last call. Raises Compacted if some of it was forgotten."""
        shelf = self._shelf
        start = self._position - shelf.dropped
        if start < 0:
            raise Compacted(shelf.oldest)
        changes = list(islice(shelf.history, start, None))
        self._position += len(changes)
        return changes

    async def wait(self, timeout_s: float) -> None:
        """Until there is something to take, or the time is over."""
        shelf = self._shelf
        if self._position < shelf.dropped + len(shelf.history):
            return
        try:
            await asyncio.wait_for(shelf.changed.wait(), max(0.0, timeout_s))
        except TimeoutError:
            return
