"""The notes of the demo, in SQLite: one file, any number of processes."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

__all__ = ["Note", "add", "all_notes", "find", "remove"]

_TABLE = """
    CREATE TABLE IF NOT EXISTS note (
        id INTEGER PRIMARY KEY, title TEXT NOT NULL, text TEXT NOT NULL, author TEXT NOT NULL, created TEXT NOT NULL
    )
"""
_COLUMNS = "id, title, text, author, created"


class Note(NamedTuple):
    """One note."""

    id: int
    title: str
    text: str
    author: str
    #: UTC, as ISO 8601.
    created: str


def _path() -> Path:
    """Where the notes are kept: ``LAMELLA_DEMO_DB``, or a file of this user among the temporary files."""
    chosen = os.environ.get("LAMELLA_DEMO_DB")
    return Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"lamella-demo-{os.getuid()}.sqlite3"


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    """Open the file, commit at the end, close."""
    connection = sqlite3.connect(_path(), timeout=5)
    try:
        with connection:
            connection.execute(_TABLE)
            yield connection
    finally:
        connection.close()


def all_notes() -> list[Note]:
    """Return the notes, newest first."""
    with _database() as database:
        return [Note(*row) for row in database.execute(f"SELECT {_COLUMNS} FROM note ORDER BY id DESC LIMIT 200")]  # noqa: S608


def find(number: int) -> Note | None:
    """Return one note, or None."""
    if number >= 2**63:
        return None
    with _database() as database:
        row = database.execute(f"SELECT {_COLUMNS} FROM note WHERE id = ?", (number,)).fetchone()  # noqa: S608
    return Note(*row) if row else None


def add(title: str, text: str, author: str) -> Note:
    """Keep a new note and return it."""
    with _database() as database:
        cursor = database.execute(
            "INSERT INTO note (title, text, author, created) VALUES (?, ?, ?, strftime('%Y-%m-%dT%H:%M:%SZ'))",
            (title, text, author),
        )
        number = cursor.lastrowid
    note = find(number or 0)
    if note is None:
        raise LookupError("the note was removed at once")
    return note


def remove(number: int) -> bool:
    """Remove a note; tell whether it was there."""
    with _database() as database:
        return database.execute("DELETE FROM note WHERE id = ?", (number,)).rowcount == 1
