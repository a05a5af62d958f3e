"""The session as an application sees it: its values, its age and its id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lamella.stack.kernel.keys import JSON

from ._session_errors import SessionUnavailableError, SessionWriteError
from ._session_tracking import TrackedMapping

__all__ = ["Backend", "SessionMapping"]

# Where Flask keeps its flashed messages too, so that both see the same.
_FLASHES = "_flashes"


class Backend(Protocol):
    """Where sessions are kept: in the cookie itself, or in a store."""

    def open(self, session: SessionMapping) -> dict[str, JSON]:
        """Read the session that the request's cookies name; fill in what is known of it."""

    def commit(self, session: SessionMapping) -> list[str]:
        """Keep what was changed; return ``Set-Cookie`` lines."""


class SessionMapping(TrackedMapping):
    """One request's session.

    Each layer has a subclass with its backend, and each request an instance with its cookies. The
    layer sets ``header``, ``failure``, ``sealed``, ``sent`` and the data, which are not loaded
    (an instance that nobody uses costs nothing else); the first use sets the others.
    """

    __slots__ = (
        "_created",
        "_permanent",
        "attention",
        "detached",
        "doomed",
        "due",
        "failure",
        "former",
        "header",
        "invalidated",
        "key",
        "lines",
        "lock_token",
        "locked_key",
        "new",
        "rotated",
        "sent",
        "stale",
        "token",
        "version",
        "was_permanent",
    )

    #: Loads and keeps it.
    _backend: Backend

    #: The request's ``Cookie`` field.
    header: str
    #: The headers are out: even a first look is refused, the answer could no longer say ``Vary``.
    sent: bool
    #: Why the store could not be asked.
    failure: SessionUnavailableError | None

    #: ``Set-Cookie`` lines of the commit.
    lines: Sequence[str]
    #: The commit has to do more than keep values.
    attention: bool

    # Filled in by the backend.
    _created: float
    _permanent: bool
    new: bool
    #: Whether the loaded session was permanent.
    was_permanent: bool
    #: Name of its record in the store: the hash of its id.
    key: str | None
    #: Records that ids of ours named, and that are not there.
    former: tuple[str, ...]
    #: The record's.
    version: int
    #: Its id, as the cookie has it.
    token: str
    #: The cookie should be sent again: it was signed with an old key, or ends too soon.
    stale: bool
    #: The record should be told that it was used.
    due: bool
    #: The store is down and the session plays an empty one.
    detached: bool
    #: Names the holder of the record's lock.
    lock_token: str | None
    #: The record that is locked.
    locked_key: str | None

    # Asked for by the application.
    rotated: bool
    invalidated: bool
    #: Records to delete.
    doomed: tuple[str, ...]

    def _load(self) -> dict[str, JSON]:
        if self.failure is not None:
            raise self.failure
        if self.sent:
            raise SessionWriteError(
                "the session is first used after the headers went out, which then lack Vary: Cookie; "
                "use it before the first block of the body"
            )
        self._dirty = self._given = self.key = self.lock_token = self.locked_key = None
        self.attention = self._permanent = self.was_permanent = self.stale = self.due = False
        self.detached = self.rotated = self.invalidated = False
        self.new = True
        self.version = 0
        self.token = ""
        self.doomed = self.former = self.lines = ()
        data = self._data = self._backend.open(self)
        return data

    def __repr__(self) -> str:
        state = "not loaded" if self._data is None else "new" if self.new else "loaded"
        return f"<Session {state}>"

    @property
    def created(self) -> float:
        """When the session began: seconds since the epoch."""
        if self._data is None:
            self._load()
        return self._created

    @property
    def is_new(self) -> bool:
        """Whether the client sent no valid session."""
        if self._data is None:
            self._load()
        return self.new

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser's own session."""
        if self._data is None:
            self._load()
        return self._permanent

    @permanent.setter
    def permanent(self, value: bool) -> None:
        if self._data is None:
            self._load()
        if self.sealed and bool(value) != self._permanent:
            self._refuse("session.permanent is set")
        self._permanent = bool(value)
        self.attention = True

    def rotate(self) -> None:
        """Give the session a new id; the old one is dead. Call it when rights change (login)."""
        if self.sealed:
            self._refuse("the session is rotated")
        if self._data is None:
            self._load()
        self.rotated = self.attention = True

    def invalidate(self) -> None:
        """Forget everything, in the store and in the browser (logout)."""
        if self.sealed:
            self._refuse("the session is invalidated")
        if self._data is None:
            self._load()
        # An id that is dead, because another request changed it a moment ago, still ends the session.
        self.doomed += (self.key,) if self.key is not None else self.former
        self.former = ()
        self.invalidated = self.attention = True
        self.rotated = self.stale = self._permanent = self.was_permanent = False
        self.new = True
        self.key = None
        self._data, self._dirty, self._given = {}, {}, None

    def flash(self, message: str, category: str = "message") -> None:
        """Keep *message* until it is shown once."""
        if not isinstance(message, str) or not isinstance(category, str):
            raise TypeError("a message and its category are text")
        kept = self.get(_FLASHES)
        self[_FLASHES] = [*(kept if isinstance(kept, list) else ()), [category, message]]

    def flashes(self) -> list[tuple[str, str]]:
        """Return (category, message) pairs not shown yet, and forget them."""
        kept = self.pop(_FLASHES, None)
        if not isinstance(kept, (list, tuple)):
            return []
        return [(str(pair[0]), str(pair[1])) for pair in kept if isinstance(pair, (list, tuple)) and len(pair) == 2]

    def abandon(self) -> None:
        """Forget the changes, which could not be kept."""
        self._dirty = self._given = self._kept = None
        self.rotated = self.stale = self.due = False
        self.doomed = ()
