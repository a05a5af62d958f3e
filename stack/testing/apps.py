"""Scripted applications that record what reached them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .lint import HOSTILE

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["RecordingApp"]


class RecordingApp:
    """The app inside a layer under test: answers by script, and remembers what it saw.

    Args:
        status: Status line to answer with.
        headers: Header list to answer with; a ``Content-Length`` is not added.
        body: The blocks to yield, one by one; or a callable that makes the iterable.
        raises: Raised instead of answering.
        raises_after: Raised by the body after its last block.
        late: Call ``start_response`` inside the first ``next()``, as generator apps do.
        write: Blocks handed to the ``write()`` callable before the body.
        read: Read this many bytes of ``wsgi.input`` first; -1 for all of ``CONTENT_LENGTH``.
        before: Called with the environ before answering, for what a test wants to do inside.

    Attributes:
        environ: The environ of the last request.
        environs: Those of all requests, oldest first.
        input: The bytes read of the last request's body.
        closed: How often the body's ``close()`` was called, over all requests.
        yielded: How many blocks were handed out, over all requests.
    """

    def __init__(
        self,
        *,
        status: str = "200 OK",
        headers: Iterable[tuple[str, str]] = (("Content-Type", "text/plain; charset=utf-8"),),
        body: Iterable[bytes] | Callable[[], Iterable[bytes]] = (b"hello",),
        raises: BaseException | None = None,
        raises_after: BaseException | None = None,
        late: bool = False,
        write: Iterable[bytes] = (),
        read: int = 0,
        before: Callable[[WSGIEnvironment], object] | None = None,
    ) -> None:
        self._status = status
        self._headers = list(headers)
        self._body = body
        self._raises = raises
        self._raises_after = raises_after
        self._late = late
        self._write = tuple(write)
        self._read = read
        self._before = before
        self.environs: list[dict[str, Any]] = []
        self.input = b""
        self.closed = 0
        self.yielded = 0

    @property
    def environ(self) -> dict[str, Any]:
        """The environ of the last request."""
        if not self.environs:
            raise AssertionError("the app inside was never called")
        return self.environs[-1]

    @property
    def called(self) -> int:
        """How many requests came."""
        return len(self.environs)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.environs.append(environ)
        if self._read:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            self.input = environ["wsgi.input"].read(length if self._read < 0 else min(self._read, length))
        if self._before is not None:
            self._before(environ)
        if self._raises is not None:
            raise self._raises
        if self._late and self._write:
            environ[HOSTILE] = True  # write() from within the iterable, on purpose
        if self._late:
            return _Body(self, lambda: self._start(start_response), self._blocks())
        self._start(start_response)
        return _Body(self, None, self._blocks())

    def _start(self, start_response: StartResponse) -> None:
        write = start_response(self._status, list(self._headers))
        for block in self._write:
            write(block)

    def _blocks(self) -> Iterator[bytes]:
        yield from self._body() if callable(self._body) else self._body
        if self._raises_after is not None:
            raise self._raises_after


class _Body:
    """The body: counts blocks and ``close()`` calls."""

    def __init__(self, app: RecordingApp, start: Callable[[], None] | None, blocks: Iterator[bytes]) -> None:
        self._app = app
        self._start = start
        self._blocks = blocks

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        if self._start is not None:
            start, self._start = self._start, None
            start()
        block = next(self._blocks)
        self._app.yielded += 1
        return block

    def close(self) -> None:
        self._app.closed += 1
