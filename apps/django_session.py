"""Let a Django project use the session of the ``session`` layer: a session engine.

.. code-block:: python

    SESSION_ENGINE = "lamella.apps.django_session"

``request.session`` is then ``lamella.session``: nested changes are noticed without
``modified``, parallel requests keep each other's writes, ``cycle_key()`` and ``flush()`` (Django's
login and logout) rotate and invalidate it. Django sets no session cookie of its own, and
neither database nor cache is used. How long a session lives, the layer's options say;
``set_expiry()`` only decides whether the cookie outlives the browser. Use it with Django's WSGI
application, inside the layer.
"""

from __future__ import annotations

from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.contrib.sessions.backends.base import SessionBase
from django.core.signals import request_finished, request_started

from lamella.stack.kernel.errors import MissingLayerError
from lamella.stack.kernel.keys import SESSION, Session

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["SessionStore"]

# Django makes the store from a cookie alone; the signal before brings the environ.
_current: ContextVar[Session | None] = ContextVar("lamella_django_session", default=None)


def _begin(environ: WSGIEnvironment | None = None, **_: object) -> None:
    _current.set(None if environ is None else SESSION.get(environ))


def _end(**_: object) -> None:
    _current.set(None)


_signals: Any = (request_started, request_finished)
for _signal, _receiver in zip(_signals, (_begin, _end), strict=True):
    _signal.connect(_receiver, dispatch_uid="lamella.apps.django_session")


class SessionStore(SessionBase):
    """``request.session``, by way of the layer's.

    Args:
        session_key: What Django read from a cookie of its own; ignored.
    """

    def __init__(self, session_key: str | None = None) -> None:
        base: Any = super()
        base.__init__(None)
        self._shared = _current.get()

    @property
    def _session(self) -> Session:
        if self._shared is None:
            raise MissingLayerError(SESSION.name, "session")
        return self._shared

    # SessionBase keeps a cache and two flags; Django's middleware saves and sets a cookie by them.

    def _get_session(self, no_load: bool = False) -> Session:
        return self._session

    async def _aget_session(self, no_load: bool = False) -> Session:
        return self._session

    @property
    def modified(self) -> bool:
        """Always false for Django's middleware: the layer keeps what changed and sets the cookie."""
        return False

    @modified.setter
    def modified(self, value: bool) -> None:
        """Nothing to note: the layer compares."""

    @property
    def accessed(self) -> bool:
        """Always false for Django's middleware: the layer adds ``Vary: Cookie``."""
        return False

    @accessed.setter
    def accessed(self, value: bool) -> None:
        """Nothing to note: the layer knows."""

    def is_empty(self) -> bool:
        """Return False, so that Django's middleware deletes no cookie."""
        return False

    @property
    def session_key(self) -> str | None:
        """Name of the record in the store (not the id, which is a secret); None for a session without one."""
        len(self._session)  # loads it
        key: str | None = getattr(self._session, "key", None)
        return key

    def clear(self) -> None:
        """Forget every value."""
        self._session.clear()

    # --- engine ---------------------------------------------------------------------------------

    def exists(self, session_key: str) -> bool:
        """Return False: sessions are not looked up by a key of Django's."""
        return False

    def create(self) -> None:
        """Do nothing: the layer makes a record when there is something to keep."""

    def save(self, must_create: bool = False) -> None:
        """Do nothing: the layer keeps the session when the response starts."""

    def delete(self, session_key: str | None = None) -> None:
        """Forget the session; one with another key is not ours to delete."""
        if session_key is None or session_key == self.session_key:
            self._session.invalidate()

    def load(self) -> dict[str, Any]:
        """Return a copy of the values."""
        return dict(self._session)

    @classmethod
    def clear_expired(cls) -> None:
        """Do nothing: the layer's store forgets by itself."""

    def flush(self) -> None:
        """Forget everything, in the store and in the browser (logout)."""
        self._session.invalidate()

    def cycle_key(self) -> None:
        """Give the session a new id, the old one is dead (login)."""
        self._session.rotate()

    def set_expiry(self, value: int | datetime | timedelta | None) -> None:
        """Keep the cookie beyond the browser's own session, unless *value* is 0."""
        base: Any = super()
        base.set_expiry(value)
        self._session.permanent = value is not None and value != 0

    # --- the same for async views ---------------------------------------------------------------

    async def aexists(self, session_key: str) -> bool:
        """See :meth:`exists`."""
        return False

    async def acreate(self) -> None:
        """See :meth:`create`."""

    async def asave(self, must_create: bool = False) -> None:
        """See :meth:`save`."""

    async def adelete(self, session_key: str | None = None) -> None:
        """See :meth:`delete`."""
        self.delete(session_key)

    async def aload(self) -> dict[str, Any]:
        """See :meth:`load`."""
        return self.load()

    @classmethod
    async def aclear_expired(cls) -> None:
        """See :meth:`clear_expired`."""

    async def aflush(self) -> None:
        """See :meth:`flush`."""
        self.flush()

    async def acycle_key(self) -> None:
        """See :meth:`cycle_key`."""
        self.cycle_key()

    async def aset_expiry(self, value: int | datetime | timedelta | None) -> None:
        """See :meth:`set_expiry`."""
        self.set_expiry(value)
