"""A mapping that loads late and knows what was changed: keys set, keys deleted, containers changed in place."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, overload

from lamella.stack.kernel.keys import JSON, Session

from ._session_errors import SessionWriteError
from ._session_json import SCALARS, check, encode

if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["TrackedMapping"]

# A number that needs no look at its length.
_PLAIN_INT = 2**64


class TrackedMapping(Session):
    """The values of one session. A subclass loads them."""

    __slots__ = ("_base", "_data", "_dirty", "_given", "sealed")

    #: What is stored, once loaded.
    _data: dict[str, JSON] | None
    #: The data as they were loaded, once a key is set or deleted.
    _base: dict[str, JSON] | None
    #: Keys set or deleted.
    _dirty: set[str] | None
    #: JSON text of the containers that were handed out, as they were then.
    _given: dict[str, str] | None
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
