"""A mapping that loads late and knows what was changed: keys set, keys deleted, containers changed in place."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, overload

from lamella.stack.kernel.keys import JSON, Session

from ._session_errors import SessionWriteError
from ._session_json import SCALARS, check, encode

if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["TrackedMapping"]

# What was stored at a key that is new.
_NOTHING: Final = object()
# A number that needs no look at its length.
_PLAIN_INT = 2**64


class TrackedMapping(Session):
    """The values of one session. A subclass loads them."""

    __slots__ = ("_data", "_dirty", "_given", "_kept", "sealed")

    #: What is stored, once loaded.
    _data: dict[str, JSON] | None
    #: Keys set or deleted, with what was stored there, or _NOTHING.
    _dirty: dict[str, Any] | None
    #: JSON text of the containers that were handed out, as they were then.
    _given: dict[str, str] | None
    #: JSON text of the containers that were handed out or set, as the last look for changes found them.
    _kept: dict[str, str] | None
    #: Changes are refused: ``start_response`` was called.
    sealed: bool

    @abstractmethod
    def _load(self) -> dict[str, JSON]:
        """Load the data, and set all attributes but ``sealed``."""

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
        data = self._data
        if data is None:
            data = self._load()
        if self._dirty is None:
            self._dirty = {key: data.get(key, _NOTHING)}
        elif key not in self._dirty:
            self._dirty[key] = data.get(key, _NOTHING)
        data[key] = value

    def __delitem__(self, key: str) -> None:
        data = self._load() if self._data is None else self._data
        if key not in data:
            raise KeyError(key)
        if self.sealed:
            self._refuse(f"session[{key!r}] is deleted")
        if self._dirty is None:
            self._dirty = {}
        self._dirty.setdefault(key, data[key])
        del data[key]

    def clear(self) -> None:
        """Forget every value; the session itself, its age and its id stay."""
        for key in list(self):
            del self[key]

    def _refuse(self, what: str) -> None:
        raise SessionWriteError(f"{what} after start_response: the cookie is already on its way; change it before")

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
        found = False
        self._kept = None
        if self._dirty is not None:
            data = self._data or {}
            for key, old in self._dirty.items():
                if key not in data:
                    found = found or old is not _NOTHING
                    continue
                new = data[key]
                if type(new) in SCALARS or type(new) is int:
                    found = found or type(old) is not type(new) or old != new
                else:
                    found = self._text(key, new) != self._before(key, old) or found
        if self._given is not None:
            found = bool(self._changed_in_place()) or found
        return found

    def changes(self) -> tuple[dict[str, str], list[str]]:
        """Return what differs from what was loaded: JSON text by key, and deleted keys.

        Raises:
            TypeError: A container was given a value that is no JSON; names the key.
        """
        data = self.data
        sets: dict[str, str] = {}
        dels: list[str] = []
        self._kept = None
        for key, old in (self._dirty or {}).items():
            if key in data:
                text = self._text(key, data[key])
                if text != self._before(key, old):
                    sets[key] = text
            elif old is not _NOTHING:
                dels.append(key)
        return sets | self._changed_in_place(), dels

    def _changed_in_place(self) -> dict[str, str]:
        """The containers that were handed out, and are not what they were: JSON text by key."""
        data, dirty = self.data, self._dirty or {}
        found = {}
        for key, before in (self._given or {}).items():
            if key in data and key not in dirty:
                text = self._text(key, data[key])
                if text != before:
                    found[key] = text
        return found

    def _before(self, key: str, old: Any) -> str | None:
        """JSON text of what was stored at *key*; a container that was handed out may have changed since."""
        if old is _NOTHING:
            return None
        return self._given[key] if self._given is not None and key in self._given else encode(old)

    def _text(self, key: str, value: JSON) -> str:
        """JSON text of one value, which may have been changed since it was checked."""
        if type(value) in SCALARS:
            return encode(value)
        _check(key, value)
        text = encode(value)
        if isinstance(value, (dict, list)):
            if self._kept is None:
                self._kept = {}
            self._kept[key] = text
        return text

    def freeze(self) -> None:
        """After a commit: what is now in the containers is what was kept; anything else came too late."""
        self._given = self._kept
        self._dirty = None

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
