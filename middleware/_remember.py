"""Remember-me tokens: separate from the session, each revocable, useless to who reads the database.

A token is ``selector.validator``. The selector finds the row, the validator is kept as its SHA-256 only and is
replaced at each use. One that was replaced before is a copy: the whole series dies, whoever holds it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from lamella.stack.kernel.errors import ConfigError

__all__ = ["Redeemed", "RememberStore"]

_TOKEN = re.compile(r"([A-Za-z0-9_-]{16})\.([A-Za-z0-9_-]{43})")
# Seconds in which the validator before the last still counts: a browser sends several requests at once.
_GRACE = 60
_SCHEMA = """
CREATE TABLE IF NOT EXISTS remembered (
    selector TEXT PRIMARY KEY, user TEXT NOT NULL, stamp TEXT NOT NULL, validator BLOB NOT NULL,
    previous BLOB NOT NULL, rotated REAL NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS remembered_user ON remembered (user);
"""


class Redeemed(NamedTuple):
    """A token that was right."""

    user: str
    #: That of the user's password when the token was given out.
    stamp: str
    #: What the browser must send from now on; empty where it has been told already.
    token: str
    #: Seconds left.
    left: int


class RememberStore:
    """Tokens in a SQLite file, shared by the processes of one machine.

    A connection lives for one operation: they are rare, and nothing is carried over a fork.

    Args:
        path: Made where it is missing, readable by its owner only.

    Raises:
        ConfigError: It cannot be made or opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            with self._open() as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError("remember_file", str(path), f"a file to keep tokens in ({reason})") from None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=5, isolation_level=None)) as database:
            yield database

    def issue(self, user: str, stamp: str, seconds: int, now: float) -> str:
        """Return a new token of *user*; forget those that have expired."""
        selector, validator = secrets.token_urlsafe(12), secrets.token_urlsafe(32)
        row = (selector, user, stamp, _hash(validator), b"", now, now + seconds)
        with self._open() as database:
            database.execute("DELETE FROM remembered WHERE expires <= ?", (now,))
            database.execute("INSERT INTO remembered VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return f"{selector}.{validator}"

    def redeem(self, token: str, now: float) -> Redeemed | None:
        """Return whose token it is and the one that replaces it; None where it is wrong, old, or a copy."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        selector, validator = match.groups()
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                found = self._redeem(database, selector, _hash(validator), now)
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")
        return found

    def _redeem(self, database: sqlite3.Connection, selector: str, hashed: bytes, now: float) -> Redeemed | None:
        columns = "user, stamp, validator, previous, rotated, expires"
        row = database.execute(f"SELECT {columns} FROM remembered WHERE selector = ?", (selector,)).fetchone()  # noqa: S608
        if row is None:
            return None
        user, stamp, current, previous, rotated, expires = row
        if expires <= now:
            database.execute("DELETE FROM remembered WHERE selector = ?", (selector,))
            return None
        if hmac.compare_digest(hashed, current):
            fresh = secrets.token_urlsafe(32)
            change = "UPDATE remembered SET validator = ?, previous = ?, rotated = ? WHERE selector = ?"
            database.execute(change, (_hash(fresh), current, now, selector))
            return Redeemed(user, stamp, f"{selector}.{fresh}", int(expires - now))
        if hmac.compare_digest(hashed, previous) and now - rotated <= _GRACE:
            return Redeemed(user, stamp, "", int(expires - now))
        database.execute("DELETE FROM remembered WHERE selector = ?", (selector,))
        return None

    def revoke(self, token: str) -> None:
        """Forget the series of *token*."""
        with self._open() as database:
            database.execute("DELETE FROM remembered WHERE selector = ?", (token.partition(".")[0],))

    def revoke_user(self, user: str) -> int:
        """Forget every token of *user*; return how many there were."""
        with self._open() as database:
            return database.execute("DELETE FROM remembered WHERE user = ?", (user,)).rowcount


def _hash(validator: str) -> bytes:
    return hashlib.sha256(validator.encode()).digest()
