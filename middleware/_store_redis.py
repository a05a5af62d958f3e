"""Sessions in Redis or Valkey: one hash for each, changed by scripts, ended by the server.

A hash has the fields ``v`` (version), ``c`` (created), ``e`` (expires), ``p`` (permanent), and
``k<key>`` with the JSON text of each of the session's keys, so that a commit writes only what
changed. After a change of the id, the text at ``<old name>:moved`` is the new name, for some
minutes. Redis forgets what is expired by itself. What it keeps over its own restart is its
configuration: without ``appendonly yes`` a killed Redis loses everything.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

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
)

if TYPE_CHECKING:
    from lamella.stack.kernel.keys import JSON

__all__ = ["RedisStore"]

T = TypeVar("T")

# Seconds: longer than any healthy Redis, shorter than a client's patience.
_CONNECT_TIMEOUT, _TIMEOUT = 1.0, 2.0

# KEYS: record. ARGV: milliseconds to live, then field and value pairs. Adds a record.
_CREATE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""
# KEYS: record, its next name, what leads there. ARGV: version that must be ('' for any), milliseconds to live,
# expires, permanent, next name without prefix, milliseconds that its old one leads there, number of fields to set,
# those with their values, fields to delete.
_COMMIT = """
local version = redis.call('HGET', KEYS[1], 'v')
if not version then return 0 end
if ARGV[1] ~= '' and ARGV[1] ~= version then return -1 end
redis.call('HINCRBY', KEYS[1], 'v', 1)
redis.call('HSET', KEYS[1], 'e', ARGV[3], 'p', ARGV[4])
local at = 8
for _ = 1, tonumber(ARGV[7]) do
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
    at = at + 2
end
for gone = at, #ARGV do redis.call('HDEL', KEYS[1], ARGV[gone]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if KEYS[2] ~= KEYS[1] then
    redis.call('RENAME', KEYS[1], KEYS[2])
    redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[6])
end
return 1
"""
# KEYS: record, what leads on from there. ARGV: prefix of keys, most names. Deletes it by any name that it had.
_DELETE = """
local key, way = KEYS[1], KEYS[2]
for _ = 1, tonumber(ARGV[2]) do
    local name = redis.call('GET', way)
    redis.call('DEL', key, way)
    if not name then return 1 end
    key = ARGV[1] .. name
    way = key .. ':moved'
end
return 0
"""
_TOUCH = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'e', ARGV[2])
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class RedisStore:
    """Keeps each record in one hash.

    Args:
        url: As redis-py takes it (``redis://``, ``rediss://``), or ``redis+unix:///path/to.sock``. Its query may have
            ``prefix``, the beginning of every key.
        clock: Seconds since the epoch.
    """

    single_process: str | None = None

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self._redis: Any = import_extra("redis", "redis")
        import_extra("redis.retry", "redis")
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        self._prefix = query.pop("prefix", "lamella:session:")
        scheme = "unix" if parts.scheme == "redis+unix" else parts.scheme
        self._url = urlunsplit((scheme, parts.netloc, parts.path, urlencode(query), ""))
        if scheme == "unix":  # urlunsplit drops the empty host
            self._url = f"unix://{parts.path}" + (f"?{urlencode(query)}" if query else "")
        self._clock = clock
        self._client: PerProcess[Any] = PerProcess(partial(_connect, self._redis, self._url), _disconnect)
        try:
            self._redis.ConnectionPool.from_url(self._url)  # opens nothing
        except (ValueError, TypeError):
            raise ConfigError(
                "store", url, "a URL that redis-py takes, such as redis://:password@host:6379/0"
            ) from None

    def _ask(self, ask: Callable[[Any], T]) -> T:
        """Ask this process's client."""
        try:
            return ask(self._client())
        except (self._redis.RedisError, OSError) as error:
            raise StoreDownError(f"Redis: {error}") from error

    def _milliseconds(self, expires: float) -> int:
        return max(1, int((expires - self._clock()) * 1000))

    def load(self, key: str) -> Record | None:
        """Return the record, or None where there is none that lives."""
        fields: dict[str, str] = self._ask(lambda client: client.hgetall(self._prefix + key))
        if not fields or "v" not in fields or float(fields["e"]) <= self._clock():
            return None
        data: dict[str, JSON] = {}
        for field, text in fields.items():
            if field[0] == "k":
                name = decode(field[1:])
                data[str(name)] = decode(text)
        return Record(data, int(fields["v"]), float(fields["c"]), float(fields["e"]), fields["p"] == "1")

    def create(self, key: str, record: Record) -> bool:
        """Add a record; False where the key is taken."""
        arguments: list[object] = [
            self._milliseconds(record.expires),
            *("v", 1, "c", repr(record.created), "e", repr(record.expires), "p", int(record.permanent)),
        ]
        for name, value in record.data.items():
            arguments += ("k" + encode(name), encode(value))
        return bool(self._ask(lambda client: client.lamella_create(keys=[self._prefix + key], args=arguments)))

    def commit(self, key: str, version: int, change: Change) -> None:
        """Write the changed keys."""
        arguments: list[object] = [
            version if change.strict else "",
            self._milliseconds(change.expires),
            repr(change.expires),
            int(change.permanent),
            change.rename or "",
            int(MOVED_SECONDS * 1000),
            len(change.sets),
        ]
        for name, text in change.sets.items():
            arguments += ("k" + encode(name), text)
        arguments += ["k" + encode(name) for name in change.dels]
        keys = [self._prefix + key, self._prefix + (change.rename or key), f"{self._prefix}{key}:moved"]
        done = self._ask(lambda client: client.lamella_commit(keys=keys, args=arguments))
        if done == 0:
            raise GoneError("the session is gone")
        if done == -1:
            raise ConflictError("the session was written by another request")

    def delete(self, key: str) -> None:
        """Remove the record, by any name that it had a moment ago."""
        keys = [self._prefix + key, f"{self._prefix}{key}:moved"]
        if not self._ask(lambda client: client.lamella_delete(keys=keys, args=[self._prefix, MOST_NAMES])):
            raise StoreDownError(TOO_MANY_NAMES)

    def touch(self, key: str, expires: float) -> None:
        """Let the record, if it is there, live until *expires*."""
        arguments = [self._milliseconds(expires), repr(expires)]
        self._ask(lambda client: client.lamella_touch(keys=[self._prefix + key], args=arguments))

    def purge(self) -> int:
        """Return 0: Redis removes expired records by itself."""
        return 0

    def count(self) -> int:
        """Return how many records live."""
        pattern = "".join("\\" + c if c in "*?[]\\" else c for c in self._prefix) + "[0-9a-f]*"
        return self._ask(
            lambda client: sum(
                not key.endswith(":lock") for key in client.scan_iter(match=pattern, count=1000, _type="hash")
            )
        )

    def acquire(self, key: str, holder: str, seconds: float) -> bool:
        """Lock the record for *holder*; False where another holds it."""
        name = f"{self._prefix}{key}:lock"
        return bool(self._ask(lambda client: client.set(name, holder, nx=True, px=int(seconds * 1000))))

    def release(self, key: str, holder: str) -> None:
        """Unlock it, if *holder* still holds it."""
        name = f"{self._prefix}{key}:lock"
        self._ask(lambda client: client.lamella_release(keys=[name], args=[holder]))

    def close(self) -> None:
        """Close this process's connections."""
        self._client.close()


def _connect(redis: Any, url: str) -> Any:
    client = redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=_CONNECT_TIMEOUT,
        socket_timeout=_TIMEOUT,
        health_check_interval=30,
        retry=redis.retry.Retry(redis.backoff.NoBackoff(), 1),
    )
    scripts = {"create": _CREATE, "commit": _COMMIT, "delete": _DELETE, "touch": _TOUCH, "release": _RELEASE}
    for name, script in scripts.items():
        setattr(client, f"lamella_{name}", client.register_script(script))
    return client


def _disconnect(client: Any) -> None:
    # The scripts hold the client, and the client the scripts: close the sockets, not the last reference.
    client.close()
    client.connection_pool.disconnect()
