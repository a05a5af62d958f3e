"""Small real things in place of what a layer outside provides; they record what was done with them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from lamella.stack.kernel.keys import JSON, Session

__all__ = ["FakeSession"]


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
