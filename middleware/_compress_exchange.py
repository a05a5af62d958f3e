"""One compressed answer: when it starts, what its headers become, and its body block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from lamella.stack.kernel.response import ExcInfo, Headers, close

from ._compressors import Compressor

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["Exchange", "Make", "weakened"]

#: Fields that describe the bytes as they were (RFC 9110 sections 8.6 and 14.3; RFC 9530).
_OF_THE_BYTES = frozenset({"content-length", "accept-ranges", "content-md5", "digest", "content-digest"})

#: Takes the request, the codings that its client wants, status and headers.
Make = Callable[["WSGIEnvironment", Sequence[str], str, Headers], tuple[Headers, "Compressor | None", str]]


class Exchange:
    """One answer: its start is held back until the app has returned, so that a whole body keeps its length."""

    __slots__ = (
        "_compressor",
        "_environ",
        "_held",
        "_make",
        "_returned",
        "_start_response",
        "_wanted",
        "_write",
        "is_head",
    )

    def __init__(
        self, environ: WSGIEnvironment, start_response: StartResponse, make: Make, wanted: Sequence[str]
    ) -> None:
        self._environ = environ
        self.is_head = environ.get("REQUEST_METHOD") == "HEAD"  # now: the app may do to environ what it wants
        self._start_response = start_response
        self._make = make
        self._wanted = wanted
        self._compressor: Compressor | None = None
        self._held: tuple[str, Headers, str, ExcInfo] | None = None
        self._returned = False
        self._write: Callable[[bytes], object] | None = None

    def start(self, status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
        """``start_response`` for the app inside."""
        if self._write is not None:  # begun already: the server decides what a second call is worth
            return self._begin(status, headers, exc_info)
        headers, self._compressor, coding = self._make(self._environ, self._wanted, status, headers)
        if self._compressor is None:
            self._held = None
            self._write = self._begin(status, headers, exc_info)
            return self._write
        if self._held is not None and exc_info is None:
            return self._begin(status, headers, None)  # twice without exc_info: let the server say so
        self._held = (status, headers, coding, exc_info)
        if self._returned:
            self._release()
        return self._write_compressed

    def _begin(self, status: str, headers: Headers, exc_info: ExcInfo) -> Callable[[bytes], object]:
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

    def _release(self, length: int | None = None) -> None:
        """Start the compressed answer."""
        if self._held is None:
            return
        (status, headers, coding, exc_info), self._held = self._held, None
        fields = _encoded(headers, coding)
        if length is not None:
            fields.append(("Content-Length", str(length)))
        self._write = self._begin(status, fields, exc_info)

    def _write_compressed(self, data: bytes, /) -> object:
        self._release()
        if self._write is None or self._compressor is None:
            return None
        return self._write(data if self.is_head else self._compressor.block(data))

    def body(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return what the server iterates."""
        self._returned = True
        if self._held is not None and not self.is_head and type(body) in (list, tuple) and len(body) == 1:  # type: ignore[arg-type]
            return self._whole(next(iter(body)))
        try:
            self._release()
        except BaseException:
            close(body)  # the server refused the headers, and will never see this body
            raise
        if self._write is not None and (self._compressor is None or self.is_head):
            return body
        return _Compressed(body, self)

    def _whole(self, data: bytes) -> list[bytes]:
        """A body of one block: compressed at once, with its true length, if that is shorter at all."""
        if self._held is None or self._compressor is None:
            return [data]
        compressed = self._compressor.last(data)
        if len(compressed) < len(data):
            self._release(len(compressed))
            return [compressed]
        (status, headers, _, exc_info), self._held = self._held, None
        self._compressor = None
        self._write = self._begin(status, headers, exc_info)
        return [data]


class _Compressed:
    """The body, block by block: each is flushed, none is held back."""

    __slots__ = ("_body", "_ended", "_exchange", "_iterator")

    def __init__(self, body: Iterable[bytes], exchange: Exchange) -> None:
        self._body = body
        self._exchange = exchange
        self._iterator: Iterator[bytes] | None = None
        self._ended = False

    def __iter__(self) -> _Compressed:
        return self

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        if self._iterator is None:
            self._iterator = iter(self._body)
        block = next(self._iterator, None)
        # An app that starts late has made the compressor only now.
        exchange = self._exchange
        compressor = None if exchange.is_head else exchange._compressor
        if block is None:
            self._ended = True
            if compressor is None:
                raise StopIteration
            return compressor.last()
        return block if compressor is None or not block else compressor.block(block)

    def close(self) -> None:
        close(self._body)


def _encoded(headers: Headers, coding: str) -> Headers:
    """The headers of the compressed answer; a strong tag becomes weak, for its bytes are others now."""
    fields = [weakened(header) for header in headers if header[0].lower() not in _OF_THE_BYTES]
    fields.append(("Content-Encoding", coding))
    return fields


def weakened(header: tuple[str, str]) -> tuple[str, str]:
    name, value = header
    return (name, "W/" + value) if name.lower() == "etag" and value.startswith('"') else header
