"""Let a Flask app use the session of the ``session`` layer, so that it shares it with all that is mounted.

>>> import flask
>>> from lamella.apps.flask_session import FlaskSessionInterface
>>> app = flask.Flask("shop")
>>> app.session_interface = FlaskSessionInterface()

``flask.session`` is then ``lamella.session``: nested changes are noticed, parallel requests keep
each other's writes, ``flask.flash`` and ``session.flash`` fill one list. Values are plain JSON:
Flask's tags for dates, bytes and markup are not written. No ``SECRET_KEY`` is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flask.sessions import SessionInterface, SessionMixin

from lamella.stack.kernel.keys import SESSION, Session

if TYPE_CHECKING:
    from flask import Flask
    from flask.wrappers import Request, Response

__all__ = ["FlaskSession", "FlaskSessionInterface"]


class FlaskSession(SessionMixin):
    """``flask.session``, by way of the layer's.

    Args:
        session: The request's ``lamella.session``.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    #: The layer notices changes by itself, also those inside of lists and dicts; set it or leave it.
    modified = False

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Whether the client sent no valid session."""
        return self._session.is_new

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser's own session; how long, the layer's options say."""
        return self._session.permanent

    @permanent.setter
    def permanent(self, value: bool) -> None:
        self._session.permanent = value

    @property
    def created(self) -> float:
        """When the session began: seconds since the epoch."""
        return self._session.created

    def rotate(self) -> None:
        """Give the session a new id; call it at login."""
        self._session.rotate()

    def invalidate(self) -> None:
        """Forget everything, in the store and in the browser (logout)."""
        self._session.invalidate()

    def __getitem__(self, key: str) -> Any:
        return self._session[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._session[key] = value

    def __delitem__(self, key: str) -> None:
        del self._session[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._session)

    def __len__(self) -> int:
        return len(self._session)

    def __contains__(self, key: object) -> bool:
        return key in self._session

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of *key*, or *default*."""
        return self._session.get(key, default)

    def clear(self) -> None:
        """Forget every value; the session itself, its age and its id stay."""
        self._session.clear()

    def __repr__(self) -> str:
        return repr(self._session)


class FlaskSessionInterface(SessionInterface):
    """Gives Flask the layer's session; Flask itself then reads and sets no session cookie."""

    session_class = FlaskSession

    def open_session(self, app: Flask, request: Request) -> FlaskSession:
        """Return the request's session, not loaded yet.

        Raises:
            MissingLayerError: The layer ``session`` is not outside this app.
        """
        return self.session_class(SESSION.require(request.environ))

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Do nothing: the layer keeps the session when the response starts."""
