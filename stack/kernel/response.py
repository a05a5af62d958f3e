"""Answering, and changing the answer of the app inside, without breaking PEP 3333.

Written once here: editing headers (lazily, with ``write()`` and ``exc_info``), learning of
the end of the body (``close()`` once, ``wsgi.file_wrapper`` kept), replacing an answer by
another, and whole small answers of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from .errors import BadRequestError
from .http import is_field_value, is_token, parse_list

if TYPE_CHECKING:
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = [
    "ClosingBody",
    "Headers",
    "add_vary",
    "answer",
    "check_header",
    "close",
    "edit_headers",
    "get_header",
    "has_body",
    "hook_close",
    "name_kinds",
    "name_test",
    "on_close",
    "refuse",
    "remove_headers",
    "set_header",
    "substitute",
]

Headers: TypeAlias = list[tuple[str, str]]
ExcInfo: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None"

# How many names are remembered by name_test() and name_kinds(): apps use some dozens, and may make them up.
_NAMES, _NAME_LENGTH = 256, 64


# --- header lists -------------------------------------------------------------------------------


def get_header(headers: Headers, name: str) -> str | None:
    """Return the field value: equal names joined with a comma (RFC 9110 section 5.3), None if absent."""
    name = name.lower()
    values = [value for key, value in headers if key.lower() == name]
    return ", ".join(values) if values else None


def remove_headers(headers: Headers, *names: str) -> Headers:
    """Return a copy of *headers* without the fields called *names* (in lower case)."""
    return [header for header in headers if header[0].lower() not in names]


def set_header(headers: Headers, name: str, value: str) -> Headers:
    """Return a copy of *headers* in which *name* stands once, with *value*."""
    return [*remove_headers(headers, name.lower()), (name, value)]


def add_vary(headers: Headers, *names: str) -> Headers:
    """Return a copy of *headers* whose one Vary field also lists *names* (RFC 9110 section 12.5.5).

    A ``*`` swallows every name; names are compared without case and never doubled.
    """
    kept: Headers = []
    present = []
    for header in headers:
        if header[0].lower() == "vary":
            present.append(header[1])
        else:
            kept.append(header)
    kept.append(("Vary", _merged_vary(", ".join(present), names)))
    return kept


@lru_cache(256)  # an app sends the same few: 400 instead of 20,000 instructions
def _merged_vary(value: str, names: tuple[str, ...]) -> str:
    present = parse_list(value)
    if "*" in present:
        return "*"
    known = {name.lower() for name in present}
    return ", ".join([*present, *(name for name in names if name.lower() not in known)])


def name_test(names: Iterable[str]) -> tuple[Set[str], Callable[[str], bool]]:
    """Return what tells cheaply that a header is none of *names*, and what tells whether it is one of them.

    A name in the set is another one for sure; of one that is not, ask the function, which remembers it, as it is
    written, where it is another one. So that for the names that apps use, one look-up is enough.

    >>> others, is_one = name_test(["Vary"])
    >>> ["Content-Type" in others, is_one("Content-Type"), "Content-Type" in others, is_one("vary")]
    [False, False, True, True]
    """
    wanted = frozenset(name.lower() for name in names)
    others: set[str] = set()

    def is_one(name: str) -> bool:
        found = name.lower() in wanted
        if not found and len(others) < _NAMES and len(name) < _NAME_LENGTH:
            others.add(name)
        return found

    return others, is_one


def name_kinds(names: Iterable[str]) -> tuple[dict[str, str], Callable[[str], str]]:
    """Return a table that has names of headers as apps write them, and what tells those that are not in it.

    Both say which of *names* it is, in lower case, and ``""`` for any other. The function puts it into the table,
    within bounds, so that for the names that apps use, one look-up is enough.

    >>> kinds, kind_of = name_kinds(["Vary"])
    >>> kind_of("VARY"), kind_of("Content-Type"), kinds
    ('vary', '', {'VARY': 'vary', 'Content-Type': ''})
    """
    wanted = frozenset(name.lower() for name in names)
    kinds: dict[str, str] = {}

    def kind_of(name: str) -> str:
        lower = name.lower()
        found = lower if lower in wanted else ""
        if len(kinds) < _NAMES and len(name) < _NAME_LENGTH:
            kinds[name] = found
        return found

    return kinds, kind_of


def check_header(name: str, value: str) -> tuple[str, str]:
    """Return the pair, fit to be sent.

    Raises:
        ValueError: *name* is not a token, or *value* has a control character or one outside latin-1.
    """
    if not is_token(name):
        raise ValueError(f"not a header name: {name!r}")
    if not is_field_value(value):
        raise ValueError(f"the value of {name} has a character that no header may have")
    return name, value


def edit_headers(start_response: StartResponse, edit: Callable[[Headers], Headers]) -> StartResponse:
    """Return a ``start_response`` that passes the headers through *edit*.

    Runs when the app calls it, however late; hands ``exc_info`` on and ``write()`` back.

    Args:
        start_response: The outer one.
        edit: Pure: takes the app's list and returns another (the app may keep its own).
    """

    def start(status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
        if exc_info is None:
            return start_response(status, edit(headers))
        return start_response(status, edit(headers), exc_info)

    return start


# --- bodies -------------------------------------------------------------------------------------


def close(body: object) -> None:
    """Call ``body.close()`` if there is one, as a server does (PEP 3333, "Specification Details")."""
    closing = getattr(body, "close", None)
    if closing is not None:
        closing()


class ClosingBody:
    """An inner body, iterated as it is, that calls a hook after its ``close()``.

    Args:
        body: The inner iterable; its own ``close()`` is called exactly once.
        hook: Called once, after the inner ``close()``, also where that raised. Its argument
            tells whether the body was iterated to its end.
    """

    __slots__ = ("_body", "_finished", "_hook", "_iterator", "_next")

    def __init__(self, body: Iterable[bytes], hook: Callable[[bool], object]) -> None:
        self._body = body
        self._hook: Callable[[bool], object] | None = hook
        self._iterator: Iterator[bytes] | None = None
        self._finished = False

    def __iter__(self) -> ClosingBody:
        return self

    def __next__(self) -> bytes:
        iterator = self._iterator
        if iterator is None:
            iterator = self._iterator = iter(self._body)
        try:
            return next(iterator)
        except StopIteration:
            self._finished = True
            raise

    def close(self) -> None:
        """Close the inner body, then call the hook; a second call does nothing."""
        hook, self._hook = self._hook, None
        if hook is None:
            return
        try:
            close(self._body)
        finally:
            hook(self._finished)


def on_close(environ: WSGIEnvironment, body: Iterable[bytes], hook: Callable[[bool], object]) -> Iterable[bytes]:
    """Return a body that calls *hook* once at its end, however it ends.

    The server's own ``wsgi.file_wrapper`` instance is returned as it is, with its ``close``
    replaced, so that the server still recognises it and uses ``sendfile``.

    Args:
        environ: The request, for its ``wsgi.file_wrapper``.
        body: What the app returned.
        hook: Called with True where the body was iterated to its end; a file wrapper's end
            is the server's affair and counts as True.
    """
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type) and isinstance(body, wrapper) and hook_close(body, hook):
        return body
    return ClosingBody(body, hook)


def hook_close(body: object, hook: Callable[[bool], object]) -> bool:
    """Replace ``body.close`` on the instance; False where it takes no attributes."""
    inner = getattr(body, "close", None)
    pending = [hook]

    def closing() -> None:
        if pending:
            last = pending.pop()
            try:
                if inner is not None:
                    inner()
            finally:
                last(True)

    try:
        body.close = closing  # type: ignore[attr-defined]
    except AttributeError:
        return False
    return True


def substitute(
    app: WSGIApplication,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    choose: Callable[[str, Headers], WSGIApplication | None],
) -> Iterable[bytes]:
    """Call *app*, and let another application answer where *choose* says so.

    Works for apps that start late (inside the first ``next()``); what the app wrote or
    yields of a replaced answer is dropped and its body closed. An answer that is kept
    passes through untouched, its iterable included.

    Args:
        app: The app inside.
        environ: The request. The replacement gets the same one: copy it before, where the
            app may spoil it.
        start_response: The outer one.
        choose: Takes status and headers; returns the application that answers instead, or None.
    """
    exchange = _Exchange(start_response, choose)
    body = app(environ, exchange.start)
    if not exchange.decided:
        return _LateBody(body, exchange, environ)
    if exchange.replacement is None:
        return body
    close(body)
    return exchange.replacement(environ, start_response)


class _Exchange:
    """One answer on trial: decided at the first ``start_response``."""

    __slots__ = ("_choose", "_start_response", "decided", "replacement")

    def __init__(self, start_response: StartResponse, choose: Callable[[str, Headers], WSGIApplication | None]) -> None:
        self._start_response = start_response
        self._choose = choose
        self.decided = False
        self.replacement: WSGIApplication | None = None

    def start(self, status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
        if not self.decided:
            self.decided = True
            self.replacement = self._choose(status, headers)
        if self.replacement is not None:
            return _discard
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)


def _discard(data: bytes, /) -> None:
    """``write()`` of an answer that was replaced."""


class _LateBody:
    """The body of an app that had not started when it returned."""

    __slots__ = ("_body", "_closed", "_environ", "_exchange", "_iterator")

    def __init__(self, body: Iterable[bytes], exchange: _Exchange, environ: WSGIEnvironment) -> None:
        self._body = body
        self._exchange: _Exchange | None = exchange
        self._environ = environ
        self._iterator: Iterator[bytes] | None = None
        self._closed = False

    def __iter__(self) -> _LateBody:
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = iter(self._body)
        exchange = self._exchange
        if exchange is None:
            return next(self._iterator)
        try:
            block = next(self._iterator)
        except StopIteration:
            if exchange.replacement is None:
                raise
            block = b""
        if exchange.decided:
            self._exchange = None
            if exchange.replacement is not None:
                return self._switch(exchange.replacement, exchange._start_response)
        return block

    def _switch(self, replacement: WSGIApplication, start_response: StartResponse) -> bytes:
        """Close the refused body and begin the other."""
        refused, self._body = self._body, ()
        close(refused)
        self._body = replacement(self._environ, start_response)
        self._iterator = iter(self._body)
        return next(self._iterator)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            close(self._body)


# --- answers of our own -------------------------------------------------------------------------


def has_body(status: str, method: str = "GET") -> bool:
    """Tell whether such an answer has content: not HEAD, 1xx, 204, 304 (RFC 9110 section 6.4.1)."""
    return method != "HEAD" and status[:3] not in ("204", "304") and not status.startswith("1")


def answer(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    status: str,
    body: bytes = b"",
    headers: Iterable[tuple[str, str]] = (),
    *,
    content_type: str = "text/plain; charset=utf-8",
) -> list[bytes]:
    """Send one whole answer, with a true ``Content-Length`` and no body where none may be.

    Args:
        environ: The request, for its method.
        start_response: The server's.
        status: Status line, such as ``404 Not Found``.
        body: The content, in bytes.
        headers: More fields, already checked (see :func:`check_header`).
        content_type: Of *body*.
    """
    fields: Headers = [*headers]
    if has_body(status):
        fields += [("Content-Type", content_type), ("Content-Length", str(len(body)))]
        start_response(status, fields)
        return [b""] if environ.get("REQUEST_METHOD") == "HEAD" else [body]
    start_response(status, fields)
    return [b""]


def refuse(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    error: BadRequestError,
    headers: Iterable[tuple[str, str]] = (),
) -> list[bytes]:
    """Answer a :class:`~lamella.stack.kernel.errors.BadRequestError` with its status and its reason."""
    more: list[tuple[str, str]] = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"), *headers]
    return answer(environ, start_response, error.status, f"{error.reason}\n".encode(), more)
