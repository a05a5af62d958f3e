"""The session in a store, and in the cookie only its signed id."""

from __future__ import annotations

import logging
import random
import re
import secrets as random_source
import threading
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from lamella.stack.kernel.cookies import CookieFormat, cookie_finder
from lamella.stack.kernel.signing import SIGNATURE_LENGTH, encode_base64url, signer

from ._session_cookie import Lifetime
from ._session_errors import SessionUnavailableError
from ._session_mapping import SessionMapping
from ._session_store import Change, ConflictError, GoneError, Record, Store, StoreDownError

if TYPE_CHECKING:
    from lamella.stack.kernel.keys import JSON

__all__ = ["StoreBackend", "record_key"]

P = ParamSpec("P")
T = TypeVar("T")

# 32 random bytes in base64url, a dot, the signature.
_ID_LENGTH: Final = 43
_ID = re.compile(r"[A-Za-z0-9_-]{43}")
# A request holds the lock for at most this long, and waits for another's for at most this long, in seconds.
_LOCK_HELD, _LOCK_WAIT = 30.0, 10.0
# Two failures in a row, and the store is left alone for this long, in seconds: requests do not queue for it.
_PAUSE_AFTER, _PAUSE = 2, 0.5

_log = logging.getLogger("lamella.session")


def record_key(session_id: str) -> str:
    """Return the name of a session's record: the SHA-256 of its id."""
    return sha256(session_id.encode()).hexdigest()


class Outage:
    """Knows whether the store answers; says so once when it stops, and once when it is back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._since = 0.0
        self._resume = 0.0

    def call(self, ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Ask the store.

        Raises:
            StoreDownError: It does not answer, or did not a moment ago.
        """
        if self._resume and time.monotonic() < self._resume:
            raise StoreDownError("the session store did not answer a moment ago")
        try:
            result = ask(*args, **kwargs)
        except StoreDownError as error:
            self._note_failure(error)
            raise
        if self._failures:
            self._note_success()
        return result

    def _note_failure(self, error: StoreDownError) -> None:
        now = time.monotonic()
        with self._lock:
            self._failures += 1
            first = self._failures == 1
            if first:
                self._since = now
            if self._failures >= _PAUSE_AFTER:
                self._resume = now + _PAUSE
        if first:
            _log.error("the session store does not answer: %s", error)

    def _note_success(self) -> None:
        with self._lock:
            down, self._failures, self._resume = self._failures, 0, 0.0
            seconds = time.monotonic() - self._since
        if down:
            _log.warning("the session store answers again, after %.1f s", seconds)


class StoreBackend:
    """Keeps the session in a store.

    Args:
        store: The store.
        cookie: Name and attributes.
        secrets: The first signs, all verify.
        lifetime: The limits.
        lock: One request at a time for each session.
        anonymous: Play an empty session while the store is down, instead of raising.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        cookie: CookieFormat,
        secrets: Sequence[bytes],
        lifetime: Lifetime,
        *,
        lock: bool,
        anonymous: bool,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._cookie = cookie
        self._sign, self._verify = signer(secrets, "session", cookie.name, "id")
        self._lifetime = lifetime
        self._lock = lock
        self._anonymous = anonymous
        self._clock = clock
        self._find = cookie_finder(cookie.name, verified=True)
        self._outage = Outage()

    # --- reading --------------------------------------------------------------------------------

    def open(self, session: SessionMapping) -> dict[str, JSON]:
        """Load the record that the cookie names; an unknown id is never adopted."""
        header = session.header
        for value in self._find(header) if header else ():
            number = self._authentic(value)
            if number >= 0:
                session.stale = number > 0
                if self._lock or number > 0:
                    session.attention = True
                session.token = value[:_ID_LENGTH]
                key = record_key(session.token)
                record = self._load(session, key)
                if record is not None:
                    session.former = ()
                    return self._fill(session, record)
                if session.detached:
                    break
                session.former += (key,)
        session.stale = False
        session.token = ""
        session._created = self._clock()
        return {}

    def _authentic(self, value: str) -> int:
        """Number of the key that signed the id, or -1. Anything else never gets near the store."""
        if len(value) != _ID_LENGTH + 1 + SIGNATURE_LENGTH or value[_ID_LENGTH] != "." or not value.isascii():
            return -1
        number = self._verify(value[:_ID_LENGTH].encode(), value[_ID_LENGTH + 1 :].encode())
        return number if number < 0 or _ID.fullmatch(value[:_ID_LENGTH]) else -1

    def _load(self, session: SessionMapping, key: str) -> Record | None:
        try:
            if self._lock and not session.sealed:
                self._wait_for_lock(session, key)
            record = self._outage.call(self._store.load, key)
        except StoreDownError as error:
            self.release(session)
            if not self._anonymous:
                raise self._unavailable(session, "the session store does not answer") from error
            session.detached = True
            session.key = key
            return None
        session.key = key if record is not None else None
        if record is None:
            self.release(session)
        return record

    def _unavailable(self, session: SessionMapping, why: str) -> SessionUnavailableError:
        session.failure = SessionUnavailableError(why)
        return session.failure

    def _fill(self, session: SessionMapping, record: Record) -> dict[str, JSON]:
        session.new = False
        session.version = record.version
        session._created = record.created
        lifetime = self._lifetime
        if lifetime.end(record.created, self._clock()) - record.expires > lifetime.refresh:
            session.due = session.attention = True
        session._permanent = session.was_permanent = record.permanent
        return record.data

    # --- one request at a time ------------------------------------------------------------------

    def _wait_for_lock(self, session: SessionMapping, key: str) -> None:
        holder = random_source.token_hex(16)
        until = time.monotonic() + _LOCK_WAIT
        pause = 0.001
        while not self._outage.call(self._store.acquire, key, holder, _LOCK_HELD):
            if time.monotonic() >= until:
                raise self._unavailable(session, "another request holds the session for too long")
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 1.5, 0.02)
        session.lock_token = holder
        session.locked_key = key

    def release(self, session: SessionMapping) -> None:
        """Let the next request have the session."""
        holder: str | None = getattr(session, "lock_token", None)  # not set in a session that nobody used
        if holder is None or session.locked_key is None:
            return
        session.lock_token = None
        try:
            self._outage.call(self._store.release, session.locked_key, holder)
        except StoreDownError:
            pass  # noted; the lock ends by itself

    # --- writing --------------------------------------------------------------------------------

    def commit(self, session: SessionMapping) -> list[str]:
        """Keep what changed, and let the browser know a new id.

        Raises:
            SessionUnavailableError: The store does not answer.
        """
        try:
            sets, dels = session.changes()
            lines = self._delete(session)
            if session.detached:
                return lines
            if session.key is None:
                return self._create(session) if sets else lines
            return self._commit(session, session.key, sets, dels)
        except StoreDownError as error:
            if not self._anonymous or session.doomed:
                raise self._unavailable(session, "the session store does not answer") from error
            return []
        except ConflictError as error:
            raise self._unavailable(session, "another request took the session over") from error
        finally:
            if self._lock:
                self.release(session)

    def _delete(self, session: SessionMapping) -> list[str]:
        """Carry out an ``invalidate()``: a logout that cannot be done is never reported as done."""
        for key in session.doomed:
            self._outage.call(self._store.delete, key)
        if session.invalidated and self._find(session.header):
            return [self._cookie.expired()]
        return []

    def _create(self, session: SessionMapping) -> list[str]:
        now = self._clock()
        created = now if session.invalidated else session._created
        record = Record(session.data, 1, created, self._lifetime.end(created, now), session._permanent)
        token = _new_id()
        while not self._outage.call(self._store.create, record_key(token), record):
            token = _new_id()
        return [self._line(token, record.permanent, record.expires - now)]

    def _commit(self, session: SessionMapping, key: str, sets: dict[str, str], dels: list[str]) -> list[str]:
        permanent = session._permanent
        now = self._clock()
        expires = self._lifetime.end(session._created, now)
        token = session.token
        due = session.due
        if sets or dels or session.rotated or permanent is not session.was_permanent:
            rename = None
            if session.rotated:
                token = _new_id()
                rename = record_key(token)
            change = Change(session.data, sets, dels, expires, permanent, rename, self._lock)
            try:
                self._outage.call(self._store.commit, key, session.version, change)
            except GoneError:
                # Logged out, or given another id, by another request: it stays so. The cookie is left
                # alone, too: after a rotation it holds the new id.
                _log.info("a session ended during a request; what the request wrote is dropped")
                return []
        elif due:
            self._outage.call(self._store.touch, key, expires)
        if session.rotated or session.stale or permanent is not session.was_permanent or (permanent and due):
            return [self._line(token, permanent, expires - now)]
        return []

    def _line(self, token: str, permanent: bool, seconds: float) -> str:
        value = f"{token}.{self._sign(token.encode()).decode()}"
        return self._cookie.line(value, max(1, int(seconds)) if permanent else None)


def _new_id() -> str:
    return encode_base64url(random_source.token_bytes(32))
