"""Small real things in place of time, randomness, stores, and what a layer outside provides; they record."""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lamella.stack.kernel.keys import JSON, Session

__all__ = ["FakeClock", "FakeRandom", "FakeSession", "FakeStore"]


class FakeSession(Session):
    """A session in memory, for layers and apps that need ``lamella.session``.

    >>> from lamella.stack.kernel.keys import SESSION
    >>> session = FakeSession({"user": "alice"})
    >>> request = {SESSION.name: session}

    Args:
        data: What it holds at first; copied.
        is_new: Whether the client is to have sent none.

    Attributes:
        rotated: How often :meth:`rotate` was called.
        invalidated: How often :meth:`invalidate` was called.
        accessed: Whether anything was read or written.
    """

    def __init__(self, data: Mapping[str, JSON] | None = None, *, is_new: bool = True) -> None:
        self._data: dict[str, JSON] = dict(data or {})
        self._flashes: list[tuple[str, str]] = []
        self._created = time.time()
        self._is_new = is_new
        self._permanent = False
        self.rotated = 0
        self.invalidated = 0
        self.accessed = False

    def __getitem__(self, key: str) -> JSON:
        self.accessed = True
        return self._data[key]

    def __setitem__(self, key: str, value: JSON) -> None:
        self.accessed = True
        self._data[key] = value

    def __delitem__(self, key: str) -> None:
        self.accessed = True
        del self._data[key]

    def __iter__(self) -> Iterator[str]:
        self.accessed = True
        return iter(self._data)

    def __len__(self) -> int:
        self.accessed = True
        return len(self._data)

    @property
    def created(self) -> float:
        """When the session began."""
        return self._created

    @property
    def is_new(self) -> bool:
        """Whether the client sent no valid session."""
        return self._is_new

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser's own session."""
        return self._permanent

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self._permanent = value

    def rotate(self) -> None:
        """Count; the data stays."""
        self.rotated += 1

    def invalidate(self) -> None:
        """Count, and forget everything."""
        self.invalidated += 1
        self._data.clear()
        self._flashes.clear()

    def flash(self, message: str, category: str = "message") -> None:
        """Keep a message."""
        self._flashes.append((category, message))

    def flashes(self) -> list[tuple[str, str]]:
        """Return the messages, and forget them."""
        found, self._flashes = self._flashes, []
        return found


class FakeClock:
    """A clock that stands still until a test moves it: for options called ``clock`` and ``sleep``.

    >>> clock = FakeClock(1_000)
    >>> clock.advance(60)
    >>> clock()
    1060.0

    Args:
        now: Seconds since the epoch; the beginning of 2026 by default.

    Attributes:
        slept: What was given to :meth:`sleep`, oldest first.
    """

    def __init__(self, now: float = 1_767_225_600.0) -> None:
        self._now = float(now)
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass; backwards with a negative number, as a corrected clock does."""
        self._now += seconds

    def sleep(self, seconds: float) -> None:
        """Note the pause and let the time pass at once."""
        self.slept.append(seconds)
        self._now += seconds


class FakeRandom:
    """Random bytes that are the same in every run: for options called ``generator`` or ``random``.

    >>> FakeRandom("a").token_bytes(4) == FakeRandom("a").token_bytes(4)
    True

    Args:
        seed: Chooses the sequence.

    Attributes:
        given: What was handed out, oldest first.
    """

    def __init__(self, seed: str = "lamella") -> None:
        self._seed = seed.encode()
        self._count = 0
        self.given: list[bytes] = []

    def token_bytes(self, count: int = 32) -> bytes:
        """Return *count* bytes; no two calls return the same ones."""
        made = b""
        while len(made) < count:
            self._count += 1
            made += hashlib.sha256(self._seed + self._count.to_bytes(8, "big")).digest()
        self.given.append(made[:count])
        return made[:count]

    def token_hex(self, count: int = 32) -> str:
        """Return *count* bytes in hexadecimal digits."""
        return self.token_bytes(count).hex()

    def token_urlsafe(self, count: int = 32) -> str:
        """Return *count* bytes in the URL-safe alphabet of base64."""
        return base64.urlsafe_b64encode(self.token_bytes(count)).rstrip(b"=").decode()

    def uuid4(self) -> str:
        """Return a UUID of version 4."""
        return str(uuid.UUID(bytes=self.token_bytes(16), version=4))

    def __call__(self) -> str:
        return self.uuid4()


class FakeStore:
    """A store that records what it is asked, and fails when it is told to.

    Stands in front of a real one, so that it keeps what it is given: of the session layer, or of
    anything else whose methods take and return plain values.

    >>> from lamella.middleware.session import SessionMiddleware
    >>> from lamella.stack.testing import RecordingApp
    >>> store = FakeStore()
    >>> layer = SessionMiddleware(RecordingApp(), secret="0123456789abcdefghijklmnopqrstuvwxyz", store=store)

    Args:
        store: The real one; sessions in memory by default.
        clock: For the default store.

    Attributes:
        calls: Name and positional arguments of each call, oldest first.
        error: Raised by every call while it is set; :meth:`goes_down` sets it.
    """

    def __init__(self, store: Any = None, *, clock: Callable[[], float] = time.time) -> None:
        if store is None:
            from lamella.middleware._session_store import open_store

            store = open_store("memory:", clock)
        self._store = store
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.error: Exception | None = None

    def goes_down(self) -> None:
        """Answer no more, as a server that was stopped."""
        from lamella.middleware._session_store import StoreDownError

        self.error = StoreDownError("the store is down")

    def comes_back(self) -> None:
        """Answer again."""
        self.error = None

    def called(self, name: str) -> int:
        """Return how often the method *name* was called."""
        return sum(called == name for called, _ in self.calls)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def recorded(*arguments: Any, **named: Any) -> Any:
            self.calls.append((name, arguments))
            if self.error is not None:
                raise self.error
            return found(*arguments, **named)

        return recorded
