"""The answer of a request that used its session: its headers, and what becomes of its body."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.http import split_quoted
from lamella.stack.kernel.response import Headers, add_vary, close, has_body, on_close

from ._session_errors import SessionUnavailableError
from ._session_mapping import SessionMapping

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["LateBody", "edited_headers", "finished", "restart", "send"]

_UNAVAILABLE = b"503: the session store does not answer. Please try again in a moment.\n"
_VARY, _PRIVATE = ("Vary", "Cookie"), ("Cache-Control", "private")
_UNAVAILABLE_HEADERS = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Content-Length", str(len(_UNAVAILABLE))),
    ("Cache-Control", "no-store"),
    ("Retry-After", "1"),
)


def send(session: SessionMapping, start_response: StartResponse) -> None:
    """Send the headers that were held, with what the session adds; a 503 where the store did not answer."""
    if session.failure is not None:
        status, headers, exc_info = "503 Service Unavailable", list(_UNAVAILABLE_HEADERS), None
    else:
        status, headers, exc_info = session.held or ("", [], None)
        if session._data is not None:
            headers = edited_headers(headers, session.lines)
    session.held = None
    session.sent = True
    session.write = start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)


def restart(
    session: SessionMapping, start_response: StartResponse, status: str, headers: Headers, exc_info: Any
) -> Callable[[bytes], object]:
    """Hand a second call on: with ``exc_info`` the server may still change its mind, without it says no."""
    if session.held is not None:
        send(session, start_response)
    if session._data is not None:
        headers = edited_headers(headers, session.lines)
    return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)


def edited_headers(headers: Headers, lines: Iterable[str]) -> Headers:
    """A copy of *headers* that keeps shared caches away (RFC 9111 section 5.2.2.7), and sets cookies."""
    edited = [*headers]
    varies = controlled = False
    for name, _ in headers:
        # By length first: a call of lower() for each header costs more than all the rest of this function.
        if len(name) == 4:
            varies = varies or name.lower() == "vary"
        elif len(name) == 13:
            controlled = controlled or name.lower() == "cache-control"
    if varies:
        edited = add_vary(edited, "Cookie")
    else:
        edited.append(_VARY)
    if controlled:
        edited = _made_private(edited)
    else:
        edited.append(_PRIVATE)
    for line in lines:
        edited.append(("Set-Cookie", line))
    return edited


def _made_private(headers: Headers) -> Headers:
    """Merge ``private`` into the Cache-Control that is there: never weaker, and nothing for shared caches left."""
    text = ", ".join(value for name, value in headers if name.lower() == "cache-control")
    pieces = split_quoted(text, ",")
    kept = []
    for piece in pieces if pieces is not None else ("no-store",):
        directive = piece.partition("=")[0].strip().lower()
        # private="field" speaks of a field; public, s-maxage and proxy-revalidate of shared caches.
        if piece and directive not in ("public", "s-maxage", "proxy-revalidate", "private"):
            kept.append(piece)
    if not any(piece.lower() == "no-store" for piece in kept):
        kept.append("private")
    edited = [header for header in headers if header[0].lower() != "cache-control"]
    edited.append(("Cache-Control", ", ".join(kept)))
    return edited


# --- bodies -------------------------------------------------------------------------------------


def finished(body: Iterable[bytes], session: SessionMapping, environ: WSGIEnvironment) -> Iterable[bytes]:
    """The body of an answer whose headers are out."""
    if session.failure is not None:
        close(body)
        return [_UNAVAILABLE] if has_body("503", environ.get("REQUEST_METHOD", "GET")) else [b""]
    if session._data is None or session._given is None:
        return body
    return on_close(environ, body, lambda finished: session.check_unchanged())


class LateBody:
    """The body of an app that had not started when it returned.

    Args:
        body: What the app returned.
        session: The request's.
        start_response: The outer one.
        release: Lets a lock go that no commit released.
        environ: The request.
    """

    __slots__ = ("_body", "_closed", "_environ", "_iterator", "_release", "_session", "_start_response")

    def __init__(
        self,
        body: Iterable[bytes],
        session: SessionMapping,
        start_response: StartResponse,
        release: Callable[[SessionMapping], object],
        environ: WSGIEnvironment,
    ) -> None:
        self._body = body
        self._session = session
        self._start_response = start_response
        self._release = release
        self._environ = environ
        self._iterator: Iterator[bytes] | None = None
        self._closed = False

    def __iter__(self) -> LateBody:
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = iter(self._body)
        session = self._session
        if session.sent and session.held is None:
            return next(self._iterator)
        try:
            block = next(self._iterator)
        except StopIteration:
            if session.held is None:
                raise
            send(session, self._start_response)
            if session.failure is None:
                raise
        except SessionUnavailableError:
            if session.failure is None or session.sent:
                raise
            send(session, self._start_response)
        else:
            if session.held is None:
                return block
            send(session, self._start_response)
            if session.failure is None:
                return block
        self._body = finished(self._body, session, self._environ)
        self._iterator = iter(self._body)
        return next(self._iterator)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            close(self._body)
        finally:
            self._release(self._session)
            self._session.check_unchanged()
