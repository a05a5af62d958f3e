"""A linter for both sides of a layer: every rule of PEP 3333 that can be seen from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.http import HOP_BY_HOP, is_field_value, is_token

if TYPE_CHECKING:
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["LintError", "lint"]


class LintError(AssertionError):
    """The app, or what calls it, broke a rule."""


def lint(app: WSGIApplication) -> WSGIApplication:
    """Wrap *app* so that a broken rule of PEP 3333 raises :class:`LintError`, on either side of it."""

    def linted(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        _check_environ(environ)
        exchange = _Exchange(environ.get("REQUEST_METHOD", "GET"), start_response)
        body = app(environ, exchange.start)
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper):
            return body
        if isinstance(body, (str, bytes)):
            raise LintError("the app returned text or bytes instead of an iterable of bytes blocks")
        return _LintedBody(body, exchange)

    return linted


def _check(holds: bool, rule: str) -> None:
    if not holds:
        raise LintError(rule)


def _check_environ(environ: Any) -> None:
    _check(type(environ) is dict, "environ must be a builtin dict")
    for key in ("REQUEST_METHOD", "SERVER_NAME", "SERVER_PORT", "wsgi.input", "wsgi.errors", "wsgi.url_scheme"):
        _check(key in environ, f"environ lacks {key}")
    for key, value in environ.items():
        if "." not in key:
            _check(isinstance(value, str), f"environ[{key!r}] must be a str")
            _check(value.isascii() or max(value) <= "\xff", f"environ[{key!r}] has a character outside latin-1")
    _check(not environ.get("SCRIPT_NAME", "").endswith("/"), "SCRIPT_NAME must not end with a slash")


class _Exchange:
    def __init__(self, method: str, start_response: StartResponse) -> None:
        self.method = method
        self._start_response = start_response
        self.status = ""
        self.length: int | None = None
        self.sent = 0

    def start(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None = None,
        /,
    ) -> Callable[[bytes], object]:
        _check(not self.status or exc_info is not None, "start_response called twice without exc_info")
        _check(type(status) is str and status[:3].isdigit() and status[3:4] == " ", f"bad status {status!r}")
        _check(is_field_value(status), f"bad status {status!r}")
        _check(type(headers) is list, "headers must be a list")
        lengths = []
        for item in headers:
            _check(type(item) is tuple and len(item) == 2, f"bad header {item!r}")
            name, value = item
            _check(type(name) is str and is_token(name), f"bad header name {name!r}")
            _check(type(value) is str and is_field_value(value), f"bad value of the header {name!r}")
            _check(value == value.strip(), f"space around the value of the header {name!r}")
            _check(name.lower() not in HOP_BY_HOP, f"hop-by-hop header {name!r}")
            if name.lower() == "content-length":
                lengths.append(value)
        _check(len(lengths) <= 1, "more than one Content-Length")
        _check(not lengths or lengths[0].isdigit(), "Content-Length is no number")
        self.length = int(lengths[0]) if lengths else None
        self.status = status
        if exc_info is None:
            write = self._start_response(status, headers)
        else:
            write = self._start_response(status, headers, exc_info)

        def checked_write(data: bytes, /) -> object:
            self.block(data)
            return write(data)

        return checked_write

    def block(self, block: object) -> None:
        _check(type(block) is bytes, f"a block of the body is {type(block).__name__}, not bytes")
        if block:
            _check(bool(self.status), "a block came before start_response")
            bodiless = self.status[:3] in ("204", "304") or self.status.startswith("1")
            _check(not bodiless, f"a body with {self.status}")
            self.sent += len(block) if isinstance(block, bytes) else 0

    def end(self) -> None:
        _check(bool(self.status), "the body ended and start_response was never called")
        if self.length is not None and self.method != "HEAD" and self.status[:3] not in ("204", "304"):
            _check(self.sent == self.length, f"Content-Length says {self.length}, the body has {self.sent} bytes")


class _LintedBody:
    def __init__(self, body: Iterable[bytes], exchange: _Exchange) -> None:
        self._body = body
        self._exchange = exchange
        self._iterator: Iterator[bytes] | None = None
        self._closed = False

    def __iter__(self) -> _LintedBody:
        _check(self._iterator is None, "the body was iterated twice")
        self._iterator = iter(self._body)
        return self

    def __next__(self) -> bytes:
        _check(not self._closed, "the body was read after close()")
        if self._iterator is None:
            raise LintError("next() was called before iter()")
        try:
            block = next(self._iterator)
        except StopIteration:
            self._exchange.end()
            raise
        self._exchange.block(block)
        return block

    def close(self) -> None:
        _check(not self._closed, "close() was called twice")
        self._closed = True
        closing = getattr(self._body, "close", None)
        if closing is not None:
            closing()
