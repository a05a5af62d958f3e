"""The session as an application sees it: a mapping that loads late and knows what was changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, overload

from lamella.stack.kernel.errors import LamellaError
from lamella.stack.kernel.keys import JSON, Session

from ._session_json import SCALARS, check, encode

if TYPE_CHECKING:
    from typing import TypeVar

    from lamella.stack.kernel.response import Headers

    T = TypeVar("T")

__all__ = [
    "Backend",
    "SessionError",
    "SessionMapping",
    "SessionTooLargeError",
    "SessionUnavailableError",
    "SessionWriteError",
]

# Where Flask keeps its flashed messages too, so that both see the same.
_FLASHES = "_flashes"
# A number that needs no look at its length.
_PLAIN_INT = 2**64


class SessionError(LamellaError):
    """Base of what a session raises."""


class SessionWriteError(SessionError, RuntimeError):
    """The session was changed, or first used, when the headers were already on their way."""


class SessionTooLargeError(SessionError, ValueError):
    """The session does not fit into cookies; keep it in a server-side store, or keep less."""


class SessionUnavailableError(SessionError, ConnectionError):
    """The store does not answer, or the session is locked by another request for too long."""


class Backend(Protocol):
    """Where sessions are kept: in the cookie itself, or in a store."""

    def open(self, session: SessionMapping) -> dict[str, JSON]:
        """Read the session that the request's cookies name; fill in what is known of it."""

    def commit(self, session: SessionMapping) -> list[str]:
        """Keep what was changed; return ``Set-Cookie`` lines."""


class SessionMapping(Session):
    """One request's session.

    Each layer has a subclass with its backend, and each request an instance with its cookies. The
    layer sets the first six attributes (an instance that nobody uses costs nothing else), the
    first use sets the others.
    """

    __slots__ = (
        "_base",
        "_created",
        "_data",
        "_dirty",
        "_given",
        "_permanent",
        "attention",
        "detached",
        "doomed",
        "due",
        "failure",
        "header",
        "held",
        "invalidated",
        "key",
        "lines",
        "lock_token",
        "locked_key",
        "new",
        "rotated",
        "sealed",
        "sent",
        "stale",
        "token",
        "version",
        "was_permanent",
        "write",
    )

    #: Loads and keeps it.
    _backend: Backend

    #: The request's ``Cookie`` field.
    header: str
    #: What is stored, once loaded.
    _data: dict[str, JSON] | None
    #: Changes are refused: ``start_response`` was called.
    sealed: bool
    #: The headers are out: even a first look is refused, the answer could no longer say ``Vary``.
    sent: bool
    #: Status, headers and ``exc_info`` that the app gave, not sent yet.
    held: tuple[str, Headers, Any] | None
    #: Why the store could not be asked.
    failure: SessionUnavailableError | None

    #: The server's ``write()``; set when the headers are sent.
    write: Callable[[bytes], object]

    #: The data as they were loaded, once a key is set or deleted.
    _base: dict[str, JSON] | None
    #: Keys set or deleted.
    _dirty: set[str] | None
    #: JSON text of the containers that were handed out, as they were then.
    _given: dict[str, str] | None
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

    # --- the mapping ----------------------------------------------------------------------------

    def _load(self) -> dict[str, JSON]:
        if self.failure is not None:
            raise self.failure
        if self.sent:
            raise SessionWriteError(
                "the session is first used after the headers went out, which then lack Vary: Cookie; "
                "use it before the first block of the body"
            )
        self._base = self._dirty = self._given = self.key = self.lock_token = self.locked_key = None
        self.attention = self._permanent = self.was_permanent = self.stale = self.due = False
        self.detached = self.rotated = self.invalidated = False
        self.new = True
        self.version = 0
        self.token = ""
        self.doomed = self.lines = ()
        data = self._data = self._backend.open(self)
        return data

    def __getitem__(self, key: str) -> JSON:
        data = self._data
        if data is None:
            data = self._load()
        value = data[key]
        if type(value) is dict or type(value) is list:
            self._hand_out(key, value)
        return value

    @overload
    def get(self, key: str, default: None = None, /) -> JSON: ...
    @overload
    def get(self, key: str, default: T, /) -> JSON | T: ...
    def get(self, key: str, default: Any = None, /) -> Any:
        """Return the value of *key*, or *default*."""
        data = self._data
        if data is None:
            data = self._load()
        if key not in data:
            return default
        value = data[key]
        if type(value) is dict or type(value) is list:
            self._hand_out(key, value)
        return value

    def _hand_out(self, key: str, value: JSON) -> None:
        """Note what a container is like before the application gets hold of it."""
        if self._dirty is None or key not in self._dirty:
            if self._given is None:
                self._given = {}
            if key not in self._given:
                self._given[key] = encode(value)

    def __contains__(self, key: object) -> bool:
        return key in (self._load() if self._data is None else self._data)

    def __iter__(self) -> Iterator[str]:
        return iter(self._load() if self._data is None else self._data)

    def __len__(self) -> int:
        return len(self._load() if self._data is None else self._data)

    def __bool__(self) -> bool:
        return bool(self._load() if self._data is None else self._data)

    def __setitem__(self, key: str, value: JSON) -> None:
        if self.sealed:
            self._refuse(f"session[{key!r}] is set")
        if type(value) not in SCALARS and not (type(value) is int and -_PLAIN_INT < value < _PLAIN_INT):
            _check(key, value)
        if not isinstance(key, str):
            raise TypeError(f"the session key {key!r} is no text")
        self._change(key)[key] = value

    def __delitem__(self, key: str) -> None:
        data = self._load() if self._data is None else self._data
        if key not in data:
            raise KeyError(key)
        if self.sealed:
            self._refuse(f"session[{key!r}] is deleted")
        del self._change(key)[key]

    def clear(self) -> None:
        """Forget every value; the session itself, its age and its id stay."""
        for key in list(self):
            del self[key]

    def _change(self, key: str) -> dict[str, JSON]:
        """Return the data, to be changed at *key*."""
        data = self._data
        if data is None:
            data = self._load()
        if self._dirty is None:
            self._base = data.copy()
            self._dirty = {key}
        else:
            self._dirty.add(key)
        return data

    def _refuse(self, what: str) -> None:
        raise SessionWriteError(f"{what} after start_response: the cookie is already on its way; change it before")

    def __repr__(self) -> str:
        state = "not loaded" if self._data is None else "new" if self.new else "loaded"
        return f"<Session {state}>"

    # --- more than a mapping --------------------------------------------------------------------

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
        if self.key is not None:
            self.doomed = (*self.doomed, self.key)
        self.invalidated = self.attention = True
        self.rotated = self.stale = self._permanent = self.was_permanent = False
        self.new = True
        self.key = None
        self._data, self._base, self._dirty, self._given = {}, {}, set(), None

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

    # --- for the layer --------------------------------------------------------------------------

    @property
    def data(self) -> dict[str, JSON]:
        """What is to be stored; empty where nothing was loaded."""
        return self._data if self._data is not None else {}

    def changed(self) -> bool:
        """Tell whether any value differs from what was loaded.

        Raises:
            TypeError: A container was given a value that is no JSON; names the key.
        """
        data, given, dirty = self.data, self._given, self._dirty
        found = False
        if dirty is not None:
            base = self._base or {}
            for key in dirty:
                if key not in data:
                    found = found or key in base
                elif type(new := data[key]) in SCALARS or type(new) is int:
                    found = found or key not in base or type(old := base[key]) is not type(new) or old != new
                else:
                    text = _text(key, new)
                    before = given[key] if given is not None and key in given else None
                    found = found or key not in base or text != (encode(base[key]) if before is None else before)
        if given is not None:
            for key, before in given.items():
                if key in data and (dirty is None or key not in dirty):
                    found = _text(key, data[key]) != before or found
        return found

    def changes(self) -> tuple[dict[str, str], list[str]]:
        """Return what differs from what was loaded: JSON text by key, and deleted keys.

        Raises:
            TypeError: A container was given a value that is no JSON; names the key.
        """
        data = self.data
        given = self._given or {}
        base = data if self._base is None else self._base
        sets: dict[str, str] = {}
        dels: list[str] = []
        for key in self._dirty or ():
            if key not in data:
                if key in base:
                    dels.append(key)
                continue
            text = _text(key, data[key])
            if key not in base or text != (given[key] if key in given else encode(base[key])):
                sets[key] = text
        for key, before in given.items():
            if key in data and (self._dirty is None or key not in self._dirty):
                text = _text(key, data[key])
                if text != before:
                    sets[key] = text
        return sets, dels

    def freeze(self) -> None:
        """After a commit: what is now in the containers is what was kept; anything else came too late."""
        data, given = self.data, self._given
        late = {}
        for key in self._dirty or ():
            if key in data and isinstance(data[key], (dict, list)):
                late[key] = encode(data[key])
        if given is not None:
            late |= {key: encode(data[key]) for key in given if key in data and isinstance(data[key], (dict, list))}
        self._given = late or None
        self._base = self._dirty = None

    def abandon(self) -> None:
        """Forget the changes, which could not be kept."""
        self._dirty = self._base = self._given = None
        self.rotated = self.stale = self.due = False
        self.doomed = ()

    def check_unchanged(self) -> None:
        """Refuse a container that was changed in place after the session was kept.

        Raises:
            SessionWriteError: Names the keys.
        """
        if self._data is None or self._given is None:
            return
        late = [key for key, before in self._given.items() if encode(self._data.get(key)) != before]
        if late:
            self._refuse("session" + "".join(f"[{key!r}]" for key in late) + " was changed in place")


def _check(key: str, value: object) -> None:
    """Refuse *value* by the name of its key."""
    try:
        check(value)
    except TypeError as error:
        raise TypeError(f"session[{key!r}]: {error}; a session holds JSON values only") from None


def _text(key: str, value: JSON) -> str:
    """JSON text of one value, which may have been changed since it was checked."""
    if type(value) not in SCALARS:
        _check(key, value)
    return encode(value)
