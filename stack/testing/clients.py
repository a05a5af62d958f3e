"""Clients and connections that misbehave: chunked, slow, gone in the middle.

:func:`~lamella.stack.testing.environ` builds the request of a well-behaved client. Here are the
streams of others, for its ``wsgi.input``, and clients that read an answer step by step.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .client import Response, call, environ

if TYPE_CHECKING:
    from types import TracebackType
    from wsgiref.types import WSGIApplication, WSGIEnvironment

__all__ = ["BrokenInput", "Reader", "SlowInput", "chunked", "hang_up", "slow"]


class SlowInput(io.RawIOBase):
    """A request body that comes in small pieces, as from a slow connection.

    Args:
        body: All of it.
        piece: At most so many bytes a read, whatever was asked for.
        pause: Called before each piece: :meth:`FakeClock.sleep` with a number, or anything else.

    Attributes:
        reads: How often it was read.
    """

    def __init__(self, body: bytes, *, piece: int = 1, pause: Callable[[], object] | None = None) -> None:
        super().__init__()
        self._body = io.BytesIO(body)
        self._piece = piece
        self._pause = pause
        self.reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return one piece, or nothing at the end."""
        self.reads += 1
        if self._pause is not None:
            self._pause()
        return self._body.read(self._piece if size is None or size < 0 else min(size, self._piece))

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return one line, or a part of it."""
        self.reads += 1
        if self._pause is not None:
            self._pause()
        return self._body.readline(self._piece if size is None or size < 0 else min(size, self._piece))

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Return all lines."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)


class BrokenInput(io.BytesIO):
    """A request body whose connection breaks in the middle.

    Args:
        body: What arrives.
        error: Raised by the read that wants more.
    """

    def __init__(self, body: bytes = b"", error: Exception | None = None) -> None:
        super().__init__(body)
        self._error = error or ConnectionResetError("the client went away")

    def read(self, size: int | None = -1, /) -> bytes:
        """Return what has arrived, then fail."""
        data = super().read(size)
        if not data and size != 0:
            raise self._error
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return a line of what has arrived, then fail."""
        data = super().readline(size)
        if not data and size != 0:
            raise self._error
        return data


class _Chunks(SlowInput):
    """A body that ends by itself: each read gives at most one chunk."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__(b"")
        self._chunks = [chunk for chunk in chunks if chunk]

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if not self._chunks:
            return b""
        if size is None or size < 0:
            data, self._chunks = b"".join(self._chunks), []
            return data
        chunk = self._chunks.pop(0)
        if len(chunk) > size:
            self._chunks.insert(0, chunk[size:])
        return chunk[:size]

    def readline(self, size: int | None = -1, /) -> bytes:
        whole = io.BytesIO(b"".join(self._chunks))
        line = whole.readline(size if size is not None else -1)
        self._chunks = [whole.read()]
        return line

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")


def chunked(method: str, path: str, chunks: Iterable[bytes], /, **headers: Any) -> dict[str, Any]:
    """Build a request of unknown length, as a server gives it: no ``CONTENT_LENGTH``, an input that ends.

    Args:
        method: The request method.
        path: Request target.
        chunks: The body's pieces; a read gives at most one.
        **headers: As for :func:`~lamella.stack.testing.environ`.
    """
    request = environ(method, path, **headers)
    request.pop("CONTENT_LENGTH", None)
    request["HTTP_TRANSFER_ENCODING"] = "chunked"
    request["wsgi.input_terminated"] = True
    request["wsgi.input"] = _Chunks(chunks)
    return request


def slow(method: str, path: str, body: bytes, /, *, piece: int = 1, **headers: Any) -> dict[str, Any]:
    """Build a request whose body comes in pieces of *piece* bytes; its input is a :class:`SlowInput`."""
    request = environ(method, path, body=body, **headers)
    request["wsgi.input"] = SlowInput(body, piece=piece)
    return request


def hang_up(app: WSGIApplication, request: WSGIEnvironment, *, after: int = 1) -> Response:
    """Be a client that goes away after some blocks of the answer; 0 asks for none.

    The server notices, reads no more, and closes the body.
    """
    return call(app, request, blocks=after)


class Reader:
    """A client that takes an answer block by block, while the test looks at what the app did so far.

    >>> from lamella.stack.testing import RecordingApp
    >>> app = RecordingApp(body=[b"a", b"b"])
    >>> with Reader(app, environ("GET", "/")) as reader:
    ...     reader.next(), app.yielded
    (b'a', 1)
    >>> app.closed
    1

    Args:
        app: The application, called at once.
        request: Its environ.

    Attributes:
        status: The status line; empty until the app has started.
        headers: The header list.
        written: What came by ``write()``.
    """

    def __init__(self, app: WSGIApplication, request: WSGIEnvironment) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.written: list[bytes] = []
        self._body = app(request, self._start)
        self._blocks: Iterator[bytes] | None = None

    def _start(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None = None,
        /,
    ) -> Callable[[bytes], object]:
        if exc_info is None and self.status:
            raise AssertionError("start_response was called twice without exc_info")
        self.status, self.headers = status, list(headers)
        return self.written.append

    def next(self) -> bytes | None:
        """Return the next block, or None at the end."""
        if self._blocks is None:
            self._blocks = iter(self._body)
        return next(self._blocks, None)

    def close(self) -> None:
        """Close the body, as a server does at the end."""
        closing = getattr(self._body, "close", None)
        if closing is not None:
            closing()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
