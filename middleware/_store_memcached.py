"""Sessions in memcached: one item for each, written by compare-and-set.

memcached forgets what it has no room for, and everything when it restarts: choose it where
losing sessions is no more than a nuisance.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from math import ceil
from operator import methodcaller
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import parse_qs, unquote, urlsplit

from lamella.stack.kernel.errors import ConfigError, import_extra

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
    StoreError,
)

if TYPE_CHECKING:
    from lamella.stack.kernel.keys import JSON

__all__ = ["MemcachedStore"]

T = TypeVar("T")

# Seconds: longer than any healthy memcached, shorter than a client's patience.
_CONNECT_TIMEOUT, _TIMEOUT = 1.0, 2.0
# Over 30 days, memcached takes a time to live for a date.
_LONGEST = 30 * 86400
# A commit that meets other commits tries again; so often in a row is no coincidence.
_ATTEMPTS = 200
# Stands where a record was that has another name now, and begins that name; a record begins with a bracket.
_MOVED = b"moved "
# A time to live that is over: a compare-and-set with it deletes what nobody wrote since.
_OVER = -1


class MemcachedStore:
    """Keeps each record in one item.

    Args:
        url: ``memcached://host:port`` or ``memcached:///path/to.sock``. Its query may have ``prefix``, the
            beginning of every key.
        clock: Seconds since the epoch.
    """

    single_process: str | None = None

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self._base: Any = import_extra("pymemcache.client.base", "memcached")
        self._errors: Any = import_extra("pymemcache.exceptions", "memcached")
        parts = urlsplit(url)
        try:
            server: object = (parts.hostname, parts.port or 11211) if parts.hostname else unquote(parts.path)
        except ValueError:
            raise ConfigError("store", url, "memcached://host:port") from None
        if not server or (parts.path.strip("/") and parts.hostname):
            raise ConfigError("store", url, "memcached://host:port or memcached:///path/to.sock")
        self._prefix = parse_qs(parts.query).get("prefix", ["lamella:session:"])[0]
        if (
            len(self._prefix) > 100
            or not self._prefix.isascii()
            or not self._prefix.isprintable()
            or " " in self._prefix
        ):
            raise ConfigError("store", url, "a prefix of up to 100 ASCII characters without spaces")
        self._clock = clock
        self._client: PerProcess[Any] = PerProcess(partial(_connect, self._base, server), _disconnect)

    def _ask(self, ask: Callable[[Any], T]) -> T:
        """Ask this process's client."""
        try:
            return ask(self._client())
        except (self._errors.MemcacheError, OSError) as error:
            raise StoreDownError(f"memcached: {error!r}") from error

    def _live(self, expires: float) -> int:
        """Time to live, as memcached wants it."""
        seconds = max(1, ceil(expires - self._clock()))
        return seconds if seconds <= _LONGEST else int(time.time()) + seconds

    def _read(self, octets: bytes | None) -> Record | None:
        if octets is None or octets.startswith(_MOVED):
            return None
        data, version, created, expires, permanent = cast("list[Any]", decode(octets.decode()))
        record = Record(data, version, created, expires, permanent)
        return record if record.expires > self._clock() else None

    def load(self, key: str) -> Record | None:
        """Return the record, or None where there is none that lives."""
        return self._read(self._ask(lambda client: client.get(self._prefix + key)))

    def create(self, key: str, record: Record) -> bool:
        """Add a record; False where the key is taken."""
        octets = encode(list(record._replace(version=1))).encode()
        expire = self._live(record.expires)
        return bool(self._ask(lambda client: client.add(self._prefix + key, octets, expire=expire)))

    def commit(self, key: str, version: int, change: Change) -> None:
        """Write the changed keys; again, where another commit came between."""
        for attempt in range(_ATTEMPTS):
            octets, cas = self._ask(lambda client: client.gets(self._prefix + key))
            record = self._read(octets)
            if record is None:
                raise GoneError("the session is gone")
            if change.strict and record.version != version:
                raise ConflictError("the session was written by another request")
            if self._replace(key, cas, self._merged(record, version, change), change.rename):
                return
            time.sleep(random.uniform(0, 0.0002 * min(attempt, 50)))
        raise StoreDownError("memcached: one session is written by too many requests at once")

    def _merged(self, record: Record, version: int, change: Change) -> Record:
        data: dict[str, JSON]
        if record.version == version:
            data = change.data
        else:
            data = {name: value for name, value in record.data.items() if name not in change.dels}
            data |= {name: change.data[name] for name in change.sets}
        return Record(data, record.version + 1, record.created, change.expires, change.permanent)

    def _replace(self, key: str, cas: bytes, record: Record, rename: str | None) -> bool:
        """Write the record where nobody wrote since; tell whether that was so."""
        octets = encode(list(record)).encode()
        expire = self._live(record.expires)
        if rename is None:
            return bool(self._ask(lambda client: client.cas(self._prefix + key, octets, cas, expire=expire)))
        # There is no rename, so the record is copied first. Whoever dies in between leaves a copy with a name that
        # nobody was told.
        self._ask(lambda client: client.set(self._prefix + rename, octets, expire=expire))
        way = _MOVED + rename.encode()
        moved = self._ask(lambda client: client.cas(self._prefix + key, way, cas, expire=int(MOVED_SECONDS)))
        if not moved:
            self._ask(lambda client: client.delete(self._prefix + rename))
        return bool(moved)

    def delete(self, key: str) -> None:
        """Remove the record, by any name that it had a moment ago."""
        names: list[str] = []
        for attempt in range(_ATTEMPTS):
            octets, cas = self._ask(methodcaller("gets", self._prefix + key))
            if octets is None:
                break
            if octets.startswith(_MOVED):
                names.append(key)
                key = octets.removeprefix(_MOVED).decode()
                if len(names) == MOST_NAMES:
                    raise StoreDownError(TOO_MANY_NAMES)
            # By compare-and-set, because a record that is renamed at this moment leads on from here.
            elif self._ask(methodcaller("cas", self._prefix + key, b"", cas, expire=_OVER)):
                break
            else:
                time.sleep(random.uniform(0, 0.0002 * min(attempt, 50)))
        else:
            raise StoreDownError("memcached: one session is written by too many requests at once")
        for name in names:
            self._ask(methodcaller("delete", self._prefix + name))

    def touch(self, key: str, expires: float) -> None:
        """Let the record, if it is there, live until *expires*."""
        for _ in range(_ATTEMPTS):
            octets, cas = self._ask(lambda client: client.gets(self._prefix + key))
            record = self._read(octets)
            if record is None or self._replace(key, cas, record._replace(expires=max(expires, record.expires)), None):
                return

    def purge(self) -> int:
        """Return 0: memcached removes expired records by itself."""
        return 0

    def count(self) -> int:
        """Refuse: memcached cannot list its items."""
        raise StoreError("memcached cannot tell how many sessions it holds")

    def acquire(self, key: str, holder: str, seconds: float) -> bool:
        """Lock the record for *holder*; False where another holds it."""
        name, expire = f"{self._prefix}{key}:lock", max(1, ceil(seconds))
        return bool(self._ask(lambda client: client.add(name, holder.encode(), expire=expire)))

    def release(self, key: str, holder: str) -> None:
        """Unlock it, if *holder* still holds it."""
        name = f"{self._prefix}{key}:lock"
        octets, cas = self._ask(lambda client: client.gets(name))
        # A compare-and-set to "ends now" deletes only what we still hold.
        if octets == holder.encode():
            self._ask(lambda client: client.cas(name, b"", cas, expire=_OVER))

    def close(self) -> None:
        """Close this process's connections."""
        self._client.close()


def _connect(base: Any, server: object) -> Any:
    return base.PooledClient(
        server, connect_timeout=_CONNECT_TIMEOUT, timeout=_TIMEOUT, no_delay=True, default_noreply=False
    )


def _disconnect(client: Any) -> None:
    client.close()
