"""What a server-side store of sessions is, and which one a URL means.

A store keeps records: JSON values by key, a version, when it began and when it ends. It is
told the *hash* of a session's id, so that who reads the store cannot take over a session
(CVE-2019-16782). ``commit`` writes only the keys that a request changed, so that requests at
the same time keep each other's writes, and never brings back a record that is gone. A record
that was given another name leaves a way there, for deletion alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeVar

from lamella.stack.kernel.errors import ConfigError, LamellaError

if TYPE_CHECKING:
    from lamella.stack.kernel.keys import JSON

__all__ = [
    "MOST_NAMES",
    "MOVED_SECONDS",
    "TOO_MANY_NAMES",
    "Change",
    "ConflictError",
    "GoneError",
    "PerProcess",
    "Record",
    "Store",
    "StoreDownError",
    "StoreError",
    "open_store",
]

T = TypeVar("T")

#: For so long the old name of a record leads to the new one, in seconds: longer than any request takes.
MOVED_SECONDS: Final = 600.0
#: A deletion follows at most so many names; more changes of an id during one request are no accident.
MOST_NAMES: Final = 100
TOO_MANY_NAMES: Final = "the id of one session was changed too often"


class StoreError(LamellaError):
    """A store cannot do what was asked."""


class StoreDownError(StoreError, ConnectionError):
    """The store does not answer, or answers that it cannot."""


class GoneError(StoreError, LookupError):
    """The record was deleted, expired, or given another id."""


class ConflictError(StoreError):
    """Somebody else wrote, although the record was locked."""


class Record(NamedTuple):
    """One stored session."""

    #: The session's values.
    data: dict[str, JSON]
    #: Counts the commits.
    version: int
    #: When the session began, in seconds since the epoch.
    created: float
    #: When it ends.
    expires: float
    #: Whether its cookie outlives the browser's own session.
    permanent: bool


class Change(NamedTuple):
    """What one request did to a session."""

    #: All values, as the request left them.
    data: dict[str, JSON]
    #: JSON text of the keys that it set.
    sets: dict[str, str]
    #: Keys that it deleted.
    dels: list[str]
    #: When the session ends now.
    expires: float
    #: Whether its cookie outlives the browser's own session.
    permanent: bool
    #: Name of the record from now on, where the id changes.
    rename: str | None = None
    #: Refuse, instead of merging, where somebody else wrote.
    strict: bool = False


class Store(Protocol):
    """Keeps records. Every method may raise :class:`StoreDownError`; none takes long without an answer."""

    #: Why it is right in one process only; None where any number of processes may share it.
    single_process: str | None

    def load(self, key: str) -> Record | None:
        """Return the record, or None where there is none that lives."""

    def create(self, key: str, record: Record) -> bool:
        """Add a record; False where the key is taken."""

    def commit(self, key: str, version: int, change: Change) -> None:
        """Write the changed keys; whole where *version* is still the record's, merged where it is not.

        Where ``change.rename`` is given, *key* leads :meth:`delete` there for ``MOVED_SECONDS``, and is of
        no other use: a logout that overlaps the change of an id would else leave the new one alive.

        Raises:
            GoneError: There is no such record (any more).
            ConflictError: ``change.strict``, and the version is another.
        """

    def delete(self, key: str) -> None:
        """Remove the record, if it is there or was given another name, and every trace of its names.

        Raises:
            StoreDownError: It has had more than ``MOST_NAMES`` names, too.
        """

    def touch(self, key: str, expires: float) -> None:
        """Let the record, if it is there, live until *expires*."""

    def purge(self) -> int:
        """Remove expired records and old names; return how many."""

    def count(self) -> int:
        """Return how many records live."""

    def acquire(self, key: str, holder: str, seconds: float) -> bool:
        """Lock the record for *holder*, for at most that long; False where another holds it."""

    def release(self, key: str, holder: str) -> None:
        """Unlock it, if *holder* still holds it."""

    def close(self) -> None:
        """Give up connections of this process; the store may be used again."""


def open_store(url: str, clock: Callable[[], float]) -> Store:
    """Return the store that *url* means. Nothing is connected yet.

    Args:
        url: ``memory:``, ``sqlite:///path``, ``redis://…``, ``rediss://…``, ``memcached://…``, or a URL of SQLAlchemy.
        clock: Seconds since the epoch.

    Raises:
        ConfigError: No such store. The error never shows a URL that may hold a password, nor what a library says of it.
        MissingExtraError: Its client library is not installed.
    """
    try:
        return _open(url, clock)
    except ConfigError as error:
        raise ConfigError(error.option, _without_password(url), error.expected) from None
    except ValueError:
        raise ConfigError("store", _without_password(url), "a URL with a well-formed host and port") from None


def _without_password(url: str) -> str:
    """The URL of a file as it is, of a server its scheme only: a slash in a password moves it out of its place."""
    scheme = url.partition(":")[0].lower()
    return url if scheme in (url, "memory", "sqlite") else f"{scheme}:…"


def _open(url: str, clock: Callable[[], float]) -> Store:
    scheme = url.partition(":")[0].lower()
    if url == "memory:":
        from ._store_memory import MemoryStore

        return MemoryStore(clock)
    if scheme == "sqlite":
        from ._store_sqlite import SQLiteStore

        return SQLiteStore(url, clock)
    if scheme in ("redis", "rediss", "redis+unix"):
        from ._store_redis import RedisStore

        return RedisStore(url, clock)
    if scheme in ("memcached", "memcache"):
        from ._store_memcached import MemcachedStore

        return MemcachedStore(url, clock)
    if "://" in url:
        from ._store_sql import SQLStore

        return SQLStore(url, clock)
    raise ConfigError(
        "store", url, '"cookie", "memory:", "sqlite:///path", "redis://…", "memcached://…" or a URL of SQLAlchemy'
    )


class PerProcess(Generic[T]):
    """A client opened on first use in each process: forked workers never share a connection.

    What a parent process opened is kept, unused and unclosed: closing it here would say goodbye
    on the parent's own connection.

    Args:
        connect: Makes the client.
        disconnect: Closes it; called when the store is closed or forgotten, in the process that opened it.
    """

    def __init__(self, connect: Callable[[], T], disconnect: Callable[[T], object]) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._lock = (0, threading.Lock())
        self._client: tuple[int, T] | None = None
        self._inherited: list[object] = []

    def __call__(self) -> T:
        """Return this process's client."""
        client = self._client
        pid = os.getpid()
        if client is not None and client[0] == pid:
            return client[1]
        if self._lock[0] != pid:  # a lock that another thread held while the process forked never opens
            self._lock = (pid, threading.Lock())
        with self._lock[1]:
            client = self._client
            if client is None or client[0] != pid:
                if client is not None:
                    self._inherited.append(client)
                client = self._client = (pid, self._connect())
        return client[1]

    def close(self) -> None:
        """Close this process's client, if it has one; the next use opens another."""
        client, self._client = self._client, None
        if client is None:
            return
        if client[0] == os.getpid():
            self._disconnect(client[1])
        else:
            self._inherited.append(client)

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # noqa: BLE001, S110 - the interpreter is going down, and everything with it
            pass
