"""What an operator does with a store of sessions: purge it, count it, look at one; and make a secret.

The functions behind ``lamella session purge|count|show`` and ``lamella secret FILE``.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamella.middleware._session_server import record_key
from lamella.middleware._session_store import Store, StoreError, open_store
from lamella.stack.kernel.errors import ConfigError

if TYPE_CHECKING:
    from lamella.stack.kernel.keys import JSON

__all__ = ["StoreError", "count", "create_secret", "purge", "show"]

# 32 random bytes are what HMAC-SHA256 can use (RFC 2104 section 3), here in 43 characters of text.
_SECRET_BYTES = 32


def purge(url: str) -> int:
    """Remove expired sessions and the old names of rotated ones; return how many.

    Redis and memcached do it by themselves: 0.

    Args:
        url: The ``store`` of the layer.

    Raises:
        ConfigError: No such store, or one that only its own process sees.
        StoreError: It does not answer.
    """
    store = _open(url)
    try:
        return store.purge()
    finally:
        store.close()


def count(url: str) -> int:
    """Return how many sessions live.

    Raises:
        ConfigError: No such store, or one that only its own process sees.
        StoreError: It does not answer, or cannot tell (memcached).
    """
    store = _open(url)
    try:
        return store.count()
    finally:
        store.close()


def show(url: str, session: str) -> dict[str, JSON] | None:
    """Return one session: ``key``, ``created``, ``expires``, ``permanent`` and ``data``.

    Args:
        url: The ``store`` of the layer.
        session: The value of the cookie, its part before the dot (the id), or the name of the record:
            64 hexadecimal digits.

    Returns:
        What is stored, or None where there is no such session.

    Raises:
        ConfigError: No such store, one that only its own process sees, or no session's name.
        StoreError: It does not answer.
    """
    key = _key(session)
    store = _open(url)
    try:
        record = store.load(key)
    finally:
        store.close()
    if record is None:
        return None
    return {
        "key": key,
        "created": record.created,
        "expires": record.expires,
        "permanent": record.permanent,
        "data": record.data,
    }


def create_secret(path: str | os.PathLike[str]) -> Path:
    """Write a new random secret to a file that only this user can read; never over another.

    Raises:
        ConfigError: There is such a file already, or it cannot be written.
    """
    target = Path(path)
    try:
        descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except FileExistsError:
        raise ConfigError(
            "file", str(target), "a file that does not exist yet; a secret is never overwritten"
        ) from None
    except OSError as error:
        raise ConfigError("file", str(target), f"a file that can be written ({error.strerror})") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        os.fchmod(descriptor, 0o600)
        file.write(secrets.token_urlsafe(_SECRET_BYTES) + "\n")
    return target


def _open(url: str) -> Store:
    """The store, unless there is nothing to see in it from here."""
    if not isinstance(url, str) or url in ("cookie", "memory:"):
        where = "browsers" if url == "cookie" else "the process that serves"
        raise ConfigError("store", url, f"a server-side store that several processes share; this one is in {where}")
    store: Any = open_store(url, time.time)
    found: Store = store
    return found


def _key(session: str) -> str:
    """Name of the record of a cookie, an id, or a name itself."""
    session_id = session.partition("=")[2] if session.startswith("session=") else session
    session_id = session_id.partition(".")[0]
    if len(session_id) == 64 and all(character in "0123456789abcdef" for character in session_id):
        return session_id
    if len(session_id) == 43 and session_id.isascii():
        return record_key(session_id)
    raise ConfigError("session", "***", "the session cookie, the id in it, or the name of its record (64 hex digits)")
