"""Sessions in the memory of this process: for development and tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._session_json import decode, encode
from ._session_store import (
    MOST_NAMES,
    MOVED_SECONDS,
    TOO_MANY_NAMES,
    Change,
    ConflictError,
    GoneError,
    Record,
    StoreDownError,
)

if TYPE_CHECKING:
    from lamella.stack.kernel.keys import JSON

__all__ = ["MemoryStore"]

# Expired records are looked for at most this often, in seconds.
_PURGE_EVERY = 60.0


class MemoryStore:
    """Keeps records in a dictionary, as JSON text: what comes out never shares anything with what went in.

    Args:
        clock: Seconds since the epoch.
    """

    single_process: str | None = "the store memory: is seen by one process only"

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._records: dict[str, tuple[dict[str, str], Record]] = {}
        # Old names: the new one, and when the old one is forgotten.
        self._moved: dict[str, tuple[str, float]] = {}
        self._holders: dict[str, tuple[str, float]] = {}
        self._next_purge = 0.0

    def _alive(self, key: str) -> tuple[dict[str, str], Record] | None:
        found = self._records.get(key)
        if found is not None and found[1].expires <= self._clock():
            del self._records[key]
            return None
        return found

    def load(self, key: str) -> Record | None:
        """Return the record, or None where there is none that lives."""
        with self._lock:
            found = self._alive(key)
        if found is None:
            return None
        data: dict[str, JSON] = {name: decode(text) for name, text in found[0].items()}
        return found[1]._replace(data=data)

    def create(self, key: str, record: Record) -> bool:
        """Add a record; False where the key is taken."""
        texts = {name: encode(value) for name, value in record.data.items()}
        with self._lock:
            if self._alive(key) is not None:
                return False
            self._records[key] = (texts, record._replace(data={}, version=1))
        if self._clock() >= self._next_purge:
            self.purge()
        return True

    def commit(self, key: str, version: int, change: Change) -> None:
        """Write the changed keys."""
        with self._lock:
            found = self._alive(key)
            if found is None:
                raise GoneError("the session is gone")
            texts, record = found
            if change.strict and record.version != version:
                raise ConflictError("the session was written by another request")
            texts = {name: text for name, text in texts.items() if name not in change.dels} | change.sets
            record = record._replace(version=record.version + 1, expires=change.expires, permanent=change.permanent)
            if change.rename is not None:
                del self._records[key]
                self._moved[key] = (change.rename, self._clock() + MOVED_SECONDS)
            self._records[change.rename or key] = (texts, record)

    def delete(self, key: str) -> None:
        """Remove the record, by any name that it had a moment ago."""
        now = self._clock()
        with self._lock:
            for _ in range(MOST_NAMES):
                self._records.pop(key, None)
                key, until = self._moved.pop(key, ("", 0.0))
                if until <= now:
                    return
        raise StoreDownError(TOO_MANY_NAMES)

    def touch(self, key: str, expires: float) -> None:
        """Let the record, if it is there, live until *expires*."""
        with self._lock:
            found = self._alive(key)
            if found is not None:
                self._records[key] = (found[0], found[1]._replace(expires=expires))

    def purge(self) -> int:
        """Remove expired records and old names; return how many."""
        now = self._clock()
        self._next_purge = now + _PURGE_EVERY
        with self._lock:
            expired = [key for key, (_, record) in self._records.items() if record.expires <= now]
            for key in expired:
                del self._records[key]
            moved = [key for key, (_, until) in self._moved.items() if until <= now]
            for key in moved:
                del self._moved[key]
            for key in [key for key, (_, until) in self._holders.items() if until <= now]:
                del self._holders[key]
        return len(expired) + len(moved)

    def count(self) -> int:
        """Return how many records live."""
        now = self._clock()
        with self._lock:
            return sum(record.expires > now for _, record in self._records.values())

    def acquire(self, key: str, holder: str, seconds: float) -> bool:
        """Lock the record for *holder*; False where another holds it."""
        now = self._clock()
        with self._lock:
            held = self._holders.get(key)
            if held is not None and held[1] > now:
                return False
            self._holders[key] = (holder, now + seconds)
            return True

    def release(self, key: str, holder: str) -> None:
        """Unlock it, if *holder* still holds it."""
        with self._lock:
            held = self._holders.get(key)
            if held is not None and held[0] == holder:
                del self._holders[key]

    def close(self) -> None:
        """Nothing to give up."""
