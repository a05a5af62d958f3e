"""Sessions in an SQLite file: the embedded default, for any number of processes on one machine.

Write-ahead logging lets readers and a writer work at once; every write is one short immediate
transaction. With ``synchronous=NORMAL`` a killed process loses nothing that was acknowledged;
a power cut may lose the last moments, and never tears the file.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from lamella.stack.kernel.errors import ConfigError

from ._session_json import decode, encode
from ._session_store import (
    MOST_NAMES,
    MOVED_SECONDS,
    TOO_MANY_NAMES,
    Change,
    ConflictError,
    GoneError,
    PerProcess,
    Record,
    StoreDownError,
)

if TYPE_CHECKING:
    from lamella.stack.kernel.keys import JSON

__all__ = ["SQLiteStore"]

# Seconds to wait for another writer; a write takes less than a millisecond.
_BUSY_TIMEOUT = 5.0
# Expired rows are looked for at most this often, in seconds, and this many are removed at once.
_PURGE_EVERY, _PURGE_AT_ONCE = 60.0, 500
# Connections kept open when idle; more are opened under load and closed after use.
_IDLE_CONNECTIONS = 16
# The version of a row that only tells, instead of data, which name its record has now.
_MOVED = -1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS lamella_session (
    id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    created REAL NOT NULL,
    expires REAL NOT NULL,
    permanent INTEGER NOT NULL,
    data TEXT NOT NULL,
    lock_holder TEXT,
    lock_until REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS lamella_session_expires ON lamella_session (expires);
"""


class SQLiteStore:
    """Keeps records in one table of one file.

    Args:
        url: ``sqlite:///relative/path`` or ``sqlite:////absolute/path``.
        clock: Seconds since the epoch.
    """

    single_process: str | None = None

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        parts = urlsplit(url)
        path = unquote(parts.path[1:])
        if parts.netloc or not path or path == ":memory:" or "\0" in path or parts.query:
            raise ConfigError("store", url, '"sqlite:///path/to/file" (for memory only: "memory:")')
        self._path = Path(path).absolute()
        if not self._path.parent.is_dir():
            raise ConfigError("store", url, f"a file in a folder that exists ({self._path.parent} does not)")
        self._clock = clock
        self._pool: PerProcess[deque[sqlite3.Connection]] = PerProcess(partial(_prepare, self._path), _disconnect)
        self._next_purge = 0.0

    @contextmanager
    def _connection(self, *, writes: bool = False) -> Iterator[sqlite3.Connection]:
        """Lend one connection to one thread or greenlet; in an immediate transaction where it *writes*."""
        try:
            pool = self._pool()
            try:
                connection = pool.pop()
            except IndexError:
                connection = _connect(self._path)
        except (sqlite3.Error, OSError) as error:
            raise StoreDownError(f"SQLite: {error}") from error
        usable = False
        try:
            if writes:
                connection.execute("BEGIN IMMEDIATE")
            yield connection
            if writes:
                connection.execute("COMMIT")
            usable = True
        except sqlite3.Error as error:
            raise StoreDownError(f"SQLite: {error}") from error
        except (GoneError, ConflictError):
            connection.execute("ROLLBACK")
            usable = True
            raise
        finally:
            if usable and len(pool) < _IDLE_CONNECTIONS:
                pool.append(connection)
            else:
                connection.close()

    def load(self, key: str) -> Record | None:
        """Return the record, or None where there is none that lives."""
        with self._connection() as connection:
            row = connection.execute(
                "SELECT data, version, created, expires, permanent FROM lamella_session"
                " WHERE id = ? AND expires > ? AND version > 0",
                (key, self._clock()),
            ).fetchone()
        if row is None:
            return None
        return Record(cast("dict[str, JSON]", decode(row[0])), row[1], row[2], row[3], bool(row[4]))

    def create(self, key: str, record: Record) -> bool:
        """Add a record; False where the key is taken."""
        with self._connection(writes=True) as connection:
            added = connection.execute(
                "INSERT OR IGNORE INTO lamella_session (id, version, created, expires, permanent, data)"
                " VALUES (?, 1, ?, ?, ?, ?)",
                (key, record.created, record.expires, int(record.permanent), encode(record.data)),
            ).rowcount
        now = self._clock()
        if now >= self._next_purge:
            self._next_purge = now + _PURGE_EVERY
            self._purge(_PURGE_AT_ONCE)
        return bool(added)

    def commit(self, key: str, version: int, change: Change) -> None:
        """Write the changed keys."""
        with self._connection(writes=True) as connection:
            row = connection.execute(
                "SELECT version, data, created FROM lamella_session WHERE id = ? AND expires > ? AND version > 0",
                (key, self._clock()),
            ).fetchone()
            if row is None:
                raise GoneError("the session is gone")
            if row[0] == version:
                data = change.data
            elif change.strict:
                raise ConflictError("the session was written by another request")
            else:
                stored = cast("dict[str, JSON]", decode(row[1]))
                data = {name: value for name, value in stored.items() if name not in change.dels}
                data |= {name: change.data[name] for name in change.sets}
            values = (row[0] + 1, encode(data), change.expires, int(change.permanent))
            if change.rename is None:
                connection.execute(
                    "UPDATE lamella_session SET version = ?, data = ?, expires = ?, permanent = ? WHERE id = ?",
                    (*values, key),
                )
                return
            # A row of its own, so that a lock stays with the old name, by which its holder releases it.
            connection.execute(
                "INSERT INTO lamella_session (version, data, expires, permanent, id, created)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (*values, change.rename, row[2]),
            )
            connection.execute(
                "UPDATE lamella_session SET version = ?, data = ?, expires = ? WHERE id = ?",
                (_MOVED, change.rename, self._clock() + MOVED_SECONDS, key),
            )

    def delete(self, key: str) -> None:
        """Remove the record, by any name that it had a moment ago."""
        with self._connection(writes=True) as connection:
            for _ in range(MOST_NAMES):
                row = connection.execute(
                    "SELECT data FROM lamella_session WHERE id = ? AND version = ? AND expires > ?",
                    (key, _MOVED, self._clock()),
                ).fetchone()
                connection.execute("DELETE FROM lamella_session WHERE id = ?", (key,))
                if row is None:
                    return
                key = row[0]
        raise StoreDownError(TOO_MANY_NAMES)

    def touch(self, key: str, expires: float) -> None:
        """Let the record, if it is there, live until *expires*."""
        with self._connection(writes=True) as connection:
            connection.execute(
                "UPDATE lamella_session SET expires = ? WHERE id = ? AND expires > ? AND version > 0",
                (expires, key, self._clock()),
            )

    def purge(self) -> int:
        """Remove expired records and old names; return how many."""
        removed = 0
        while more := self._purge(_PURGE_AT_ONCE):
            removed += more
        return removed

    def _purge(self, limit: int) -> int:
        with self._connection(writes=True) as connection:
            return connection.execute(
                "DELETE FROM lamella_session WHERE id IN (SELECT id FROM lamella_session WHERE expires <= ? LIMIT ?)",
                (self._clock(), limit),
            ).rowcount

    def count(self) -> int:
        """Return how many records live."""
        with self._connection() as connection:
            number: int = connection.execute(
                "SELECT count(*) FROM lamella_session WHERE expires > ? AND version > 0", (self._clock(),)
            ).fetchone()[0]
        return number

    def acquire(self, key: str, holder: str, seconds: float) -> bool:
        """Lock the record for *holder*; False where another holds it. A missing record needs no lock."""
        now = self._clock()
        with self._connection(writes=True) as connection:
            taken = connection.execute(
                "UPDATE lamella_session SET lock_holder = ?, lock_until = ?"
                " WHERE id = ? AND (lock_holder IS NULL OR lock_until <= ?)",
                (holder, now + seconds, key, now),
            ).rowcount
            if taken:
                return True
            return connection.execute("SELECT 1 FROM lamella_session WHERE id = ?", (key,)).fetchone() is None

    def release(self, key: str, holder: str) -> None:
        """Unlock it, if *holder* still holds it."""
        with self._connection(writes=True) as connection:
            connection.execute(
                "UPDATE lamella_session SET lock_holder = NULL, lock_until = NULL WHERE id = ? AND lock_holder = ?",
                (key, holder),
            )

    def close(self) -> None:
        """Close this process's idle connections."""
        self._pool.close()


def _prepare(path: Path) -> deque[sqlite3.Connection]:
    """Make the file, readable by this user alone, and the table; return the pool of connections."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass
    connection = _connect(path)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return deque([connection])


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=32
    )
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _disconnect(pool: deque[sqlite3.Connection]) -> None:
    while pool:
        pool.pop().close()
