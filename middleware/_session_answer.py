"""The answer of a request that used its session: its headers, and what becomes of its body."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.http import split_quoted
from lamella.stack.kernel.response import Headers, add_vary, close, has_body, on_close

from ._session_errors import SessionUnavailableError
from ._session_mapping import SessionMapping

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["Answer", "LateBody", "edited_headers", "finished"]

_UNAVAILABLE = b"503: the session store does not answer. Please try again in a moment.\n"
_VARY, _PRIVATE = ("Vary", "Cookie"), ("Cache-Control", "private")
_ADDED = [_VARY, _PRIVATE]
_UNAVAILABLE_HEADERS = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Content-Length", str(len(_UNAVAILABLE))),
    ("Cache-Control", "no-store"),
    ("Retry-After", "1"),
)


class Answer:
    """The start of one request's answer, which is held until the app returned.

    What the app gets for ``start_response`` and ``write()`` are methods of it: to bind one costs a third of
    making a closure, and every request needs both. It knows the session and not the reverse: the environ
    holds the session, most servers' ``start_response`` holds the environ, and nothing should wait for the collector.
    """

    __slots__ = ("_exc_info", "_headers", "_outer", "_status", "_write", "held", "session")

    # The layer sets these three: an __init__ would cost as much again.
    session: SessionMapping
    #: The outer ``start_response``.
    _outer: StartResponse
    #: The start of the answer waits for the app to return.
    held: bool
    #: What the outer ``start_response`` returned; set when the headers are sent.
    _write: Callable[[bytes], object]

    # What the app gave, while it is held.
    _status: str
    _headers: Headers
    _exc_info: Any

    def start(self, status: str, headers: Headers, exc_info: Any = None, /) -> Callable[[bytes], object]:
        """Keep the session at the first call, and hold the headers; what comes after they are sent goes on at once."""
        session = self.session
        if not session.sealed:
            session.sealed = True
            if session._data is not None and (session.attention or session._dirty or session._given):
                self._keep()
        if session.sent or (self.held and exc_info is None):
            return self._restart(status, headers, exc_info)
        self.held = True
        self._status = status
        self._headers = headers
        self._exc_info = exc_info
        return self._write_body

    def _keep(self) -> None:
        """Keep the session; what cannot be kept is dropped, so that an error page gets through."""
        session = self.session
        try:
            session.lines = session._backend.commit(session)
        except SessionUnavailableError:
            session._given = None
            return  # noted in failure: the answer becomes a 503
        except BaseException:
            session.abandon()
            raise
        session.freeze()

    def _write_body(self, data: bytes, /) -> object:
        if self.held:
            self.send()
        return None if self.session.failure is not None else self._write(data)

    def send(self) -> None:
        """Send the headers that were held, with what the session adds; a 503 where the store did not answer."""
        session = self.session
        status, headers, exc_info = "503 Service Unavailable", [*_UNAVAILABLE_HEADERS], None
        if session.failure is None:
            status, headers, exc_info = self._status, self._headers, self._exc_info
            if session._data is not None:
                headers = edited_headers(headers, session.lines)
        self.held = False
        session.sent = True
        if exc_info is None:
            self._write = self._outer(status, headers)
        else:
            self._exc_info = None  # its traceback holds what called us, and that this answer
            self._write = self._outer(status, headers, exc_info)

    def _restart(self, status: str, headers: Headers, exc_info: Any) -> Callable[[bytes], object]:
        """Hand a second call on: with ``exc_info`` the server may still change its mind, without it says no."""
        if self.held:
            self.send()
        if self.session._data is not None:
            headers = edited_headers(headers, self.session.lines)
        return self._outer(status, headers) if exc_info is None else self._outer(status, headers, exc_info)


def edited_headers(headers: Headers, lines: Sequence[str]) -> Headers:
    """A copy of *headers* that keeps shared caches away (RFC 9111 section 5.2.2.7), and sets cookies."""
    varies = controlled = False
    for name, _ in headers:
        # By length first: a call of lower() for each header costs more than all the rest of this function.
        length = len(name)
        if length == 4:
            varies = varies or name.lower() == "vary"
        elif length == 13:
            controlled = controlled or name.lower() == "cache-control"
    if varies or controlled:
        edited = add_vary(headers, "Cookie") if varies else [*headers, _VARY]
        edited = _made_private(edited) if controlled else [*edited, _PRIVATE]
    elif not lines:
        return headers + _ADDED
    else:
        edited = headers + _ADDED
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
        answer: Of the request.
        release: Lets a lock go that no commit released.
        environ: The request.
    """

    __slots__ = ("_answer", "_body", "_closed", "_environ", "_iterator", "_release")

    def __init__(
        self,
        body: Iterable[bytes],
        answer: Answer,
        release: Callable[[SessionMapping], object],
        environ: WSGIEnvironment,
    ) -> None:
        self._body = body
        self._answer = answer
        self._release = release
        self._environ = environ
        self._iterator: Iterator[bytes] | None = None
        self._closed = False

    def __iter__(self) -> LateBody:
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = iter(self._body)
        answer = self._answer
        session = answer.session
        if session.sent and not answer.held:
            return next(self._iterator)
        try:
            block = next(self._iterator)
        except StopIteration:
            if not answer.held:
                raise
            answer.send()
            if session.failure is None:
                raise
        except SessionUnavailableError:
            if session.failure is None or session.sent:
                raise
            answer.send()
        else:
            if not answer.held:
                return block
            answer.send()
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
            self._release(self._answer.session)
            self._answer.session.check_unchanged()
