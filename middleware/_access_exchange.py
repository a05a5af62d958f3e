"""One request on its way through ``access_log``: what was answered, and how much of it was handed out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

from lamella.stack.kernel.response import Headers, close, get_header

from ._access_format import Asked

if TYPE_CHECKING:
    from types import TracebackType
    from wsgiref.types import StartResponse

    ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None

__all__ = ["Exchange", "Finish", "Stream", "TimedExchange", "hook_file"]

#: Writes the line: of which exchange, how many bytes (None where only the server knows), whether all, what was raised.
Finish: TypeAlias = "Callable[[Exchange, int | None, bool, BaseException | None], None]"


class Exchange:
    """One request: its ``start_response``, its ``write()``, and its body where that is a list or tuple.

    The server iterates the list itself, and ``close()`` sees how far it came. No subclass of list:
    granian joins those and never calls their ``close()``. One object is a third of the work of a closure
    for each of its methods and an object for the body; for the same reason it has no ``__init__``: who
    makes one sets the first six.
    """

    __slots__ = (
        *("asked", "finish", "first", "start_response", "status", "written"),
        *("blocks", "fields", "iterator", "put"),
    )

    asked: Asked
    finish: Finish | None
    #: When the first byte was handed out, by ``perf_counter``; 0 where none was, or where nobody wants to know.
    first: float
    #: Of the list; there is no other way to see how far a server came.
    iterator: Iterator[bytes]
    start_response: StartResponse
    status: str
    #: Bytes that went through ``write()``.
    written: int
    blocks: list[bytes] | tuple[bytes, ...]
    fields: Headers
    put: Callable[[bytes], object]

    def start(self, status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
        """Pass an answer's start on, and remember it."""
        start_response = self.start_response
        if exc_info is None:
            self.put = start_response(status, headers)
        else:
            self.put = start_response(status, headers, exc_info)
        self.status = status
        self.fields = headers
        return self  # the exchange is its own write(): no method is bound for what hardly any app calls

    def __call__(self, data: bytes, /) -> object:
        """Count what the app writes."""
        result = self.put(data)
        if data:
            self.written += len(data)
            self.first = self.first or perf_counter()
        return result

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[bytes]:
        return self.iterator

    def close(self) -> None:
        """Tell how much of the list was handed out; once."""
        finish = self.finish
        if finish is not None:
            self.finish = None
            left, blocks = self.iterator.__length_hint__(), self.blocks  # type: ignore[attr-defined]
            if left:
                finish(self, sum(map(len, blocks[: len(blocks) - left])), False, None)
            else:
                finish(self, len(blocks[0]) if len(blocks) == 1 else sum(map(len, blocks)), True, None)


class TimedExchange(Exchange):
    """The same for lines that tell when the first byte was handed out, and whether the answer was cut off."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        self.first = self.first or perf_counter()
        return self.iterator

    def close(self) -> None:
        """Tell also whether the server asked beyond the last block: where not, it may have failed to send that."""
        iterator: Any = self.iterator
        finish = self.finish
        if finish is not None and not iterator.__length_hint__():
            # An iterator that was asked so has forgotten the list; one that was not can go back.
            iterator.__setstate__(0)
            if iterator.__length_hint__():
                self.finish = None
                finish(self, sum(map(len, self.blocks)), False, None)
                return
        super().close()


class Stream:
    """Any other body, counted block by block."""

    __slots__ = ("_body", "_ended", "_error", "_exchange", "_iterator", "_sent")

    def __init__(self, exchange: Exchange, body: Iterable[bytes]) -> None:
        self._exchange = exchange
        self._body = body
        self._iterator: Iterator[bytes] | None = None
        self._sent = 0
        self._ended = False
        self._error: BaseException | None = None

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> bytes:
        iterator = self._iterator
        try:
            if iterator is None:
                iterator = self._iterator = iter(self._body)
            block = next(iterator)
        except StopIteration:
            self._ended = True
            raise
        except BaseException as error:
            self._error = error
            raise
        if block:
            if not self._sent:
                self._exchange.first = self._exchange.first or perf_counter()
            self._sent += len(block)
        return block

    def close(self) -> None:
        exchange = self._exchange
        finish, exchange.finish = exchange.finish, None
        if finish is None:
            return
        error = self._error
        try:
            close(self._body)
        except BaseException as raised:
            error = error or raised
            raise
        finally:
            self._error = None
            finish(exchange, self._sent, self._ended, error)


def hook_file(exchange: Exchange, body: Any) -> bool:
    """Let the server's own file wrapper log when it is closed; False where it takes no attributes.

    How much of it was sent is the server's secret (``sendfile``): the ``Content-Length`` counts, else the file's size.
    """
    inner = getattr(body, "close", None)
    size = _file_size(body)
    at = perf_counter()

    def closing() -> None:
        finish, exchange.finish = exchange.finish, None
        if finish is None:
            return
        error: BaseException | None = None
        try:
            if inner is not None:
                inner()
        except BaseException as raised:
            error = raised
            raise
        finally:
            length = get_header(exchange.fields, "content-length") or "" if exchange.status else ""
            exchange.first = exchange.first or at
            finish(exchange, int(length) if length.isascii() and length.isdigit() else size, True, error)

    try:
        body.close = closing
    except AttributeError:
        return False
    return True


def _file_size(body: Any) -> int | None:
    """Bytes from the file's position to its end; None where it is no real file."""
    file: Any = getattr(body, "filelike", None) or getattr(body, "file", None)  # waitress calls it `file`
    try:
        return max(0, os.fstat(file.fileno()).st_size - int(file.tell()))
    except (AttributeError, OSError, ValueError, TypeError):
        return None
