"""The server's state on disk, in SQLite.

A change is handed to the kernel before it is told to anyone, so a killed process loses nothing that
a client has seen (a power cut may: nothing waits for the disk, this is a lab).
"""

import json
import sqlite3
from pathlib import Path

from ebpf_lb.apiserver.kinds import BY_TYPE, Kind
from ebpf_lb.apiserver.store import Change, Stored

_TABLES = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS objects (
    api_version TEXT, kind TEXT, key TEXT, object BLOB, PRIMARY KEY (api_version, kind, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS version (number INTEGER);
INSERT INTO version SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM version);
"""


class Journal:
    """The objects as they are, and the last version."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)  # there are Secrets in it
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.executescript(_TABLES)

    def read(self) -> tuple[int, list[Stored]]:
        """The last version and the objects; (0, []) where there is nothing yet."""
        [version] = self._database.execute("SELECT number FROM version").fetchone()
        rows = self._database.execute("SELECT api_version, kind, object FROM objects ORDER BY key")
        return version, [Stored(BY_TYPE[row[:2]], json.loads(row[2])) for row in rows]

    def write(self, kind: Kind, change: Change) -> None:
        place = (kind.api_version, kind.name, change.subject.key)
        with self._database:
            self._database.execute("BEGIN")
            self._database.execute("UPDATE version SET number = ?", (change.version,))
            if change.after is None:
                where = "api_version = ? AND kind = ? AND key = ?"
                self._database.execute(f"DELETE FROM objects WHERE {where}", place)
            else:
                row = (*place, change.after.item_json)
                self._database.execute("REPLACE INTO objects VALUES (?, ?, ?, ?)", row)

    def close(self) -> None:
        self._database.close()
