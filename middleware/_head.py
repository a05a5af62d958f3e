"""Ask an app that knows no HEAD for GET, and keep the content back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.stack.kernel.response import close

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from lamella.stack.kernel.response import ExcInfo, Headers

__all__ = ["head_as_get"]


def head_as_get(app: WSGIApplication) -> WSGIApplication:
    """Return *app* with HEAD answered as RFC 9110 section 9.3.2 has it: the headers of GET, without the content."""

    def get_instead(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "HEAD":
            return app(environ, start_response)
        started = False

        def start(status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
            nonlocal started
            started = True
            if exc_info is None:
                start_response(status, headers)
            else:
                start_response(status, headers, exc_info)
            return _drop

        body = app({**environ, "REQUEST_METHOD": "GET"}, start)
        if started:
            close(body)
            return [b""]
        return _UntilStarted(body, lambda: started)

    return get_instead


def _drop(data: bytes, /) -> None:
    """``write()`` of an answer without content."""


class _UntilStarted:
    """The body of an app that had not started when it returned: asked until it has, and no further."""

    __slots__ = ("_body", "_has_started", "_iterator")

    def __init__(self, body: Iterable[bytes], has_started: Callable[[], bool]) -> None:
        self._body: Iterable[bytes] | None = body
        self._has_started = has_started
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> _UntilStarted:
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = iter(self._body or ())
        elif self._has_started():
            raise StopIteration
        next(self._iterator)
        return b""

    def close(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            close(body)
