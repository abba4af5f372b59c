"""The server's state on disk: a snapshot followed by the changes since, one JSON line each.

A line is handed to the kernel before the change is told to anyone, so a killed process loses
nothing that a client has seen (a power cut may: no fsync, this is a lab). Reading it makes a new
snapshot, written aside and renamed.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from ebpf_lb.lab.apiserver.kinds import BY_TYPE, Kind
from ebpf_lb.lab.apiserver.store import Change, Stored

# Changes after which the snapshot is made anew, at least; more if there are more objects.
_COMPACT_AFTER = 20_000


class Journal:
    """`read` first, then `write` every change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._lines = 0
        self._objects: dict[tuple[Kind, str], Stored] = {}

    def read(self) -> tuple[int, list[Stored]]:
        """The last version and the objects; (0, []) where there is no journal yet."""
        version = 0
        lines = self._path.read_bytes().split(b"\n") if self._path.exists() else []
        for line in lines[:-1]:  # what follows the last newline is a write that was cut off
            record = json.loads(line)
            version = max(version, record["version"])
            if "key" not in record:
                continue
            kind = BY_TYPE[record["apiVersion"], record["kind"]]
            if record["object"] is None:
                self._objects.pop((kind, record["key"]), None)
            else:
                self._objects[kind, record["key"]] = Stored(kind, record["object"])
        self._snapshot(version)
        return version, list(self._objects.values())

    def write(self, kind: Kind, change: Change) -> None:
        key = change.subject.key
        if change.after is None:
            self._objects.pop((kind, key), None)
        else:
            self._objects[kind, key] = change.after
        os.write(self._descriptor, _line(kind, change.version, key, change.after))
        self._lines += 1
        if self._lines > max(_COMPACT_AFTER, 2 * len(self._objects)):
            self._snapshot(change.version)

    def _snapshot(self, version: int) -> None:
        aside = self._path.with_suffix(".new")
        with aside.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)  # there are Secrets in it
            file.write(b'{"version":%d}\n' % version)
            file.writelines(self._object_lines(version))
        aside.replace(self._path)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._lines = 0

    def _object_lines(self, version: int) -> Iterable[bytes]:
        for (kind, key), stored in self._objects.items():
            yield _line(kind, version, key, stored)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _line(kind: Kind, version: int, key: str, stored: Stored | None) -> bytes:
    head = json.dumps(
        {"version": version, "apiVersion": kind.api_version, "kind": kind.name, "key": key}
    )
    body = stored.item_json if stored else b"null"
    return head[:-1].encode() + b',"object":' + body + b"}\n"
