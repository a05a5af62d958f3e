"""The request body, read in pieces of a known size and never past its end.

A server without ``wsgi.input_terminated`` blocks for ever where an application asks for more
than ``CONTENT_LENGTH``, and ``read()`` without a size does. Layers that hand a body on wrap it in
:class:`BodyReader`; one that counts, records or checks overrides :meth:`BodyReader.received`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .environ import content_length

if TYPE_CHECKING:
    from collections.abc import Iterator
    from wsgiref.types import WSGIEnvironment

__all__ = ["BodyReader", "body_length"]

#: Bytes asked for at once where the length is not known; as many as a pipe or a socket buffer gives.
BLOCK = 64 * 1024


class _Stream(Protocol):
    """What is needed of ``wsgi.input``."""

    def read(self, size: int = ..., /) -> bytes: ...

    def readline(self, size: int = ..., /) -> bytes: ...


def body_length(environ: WSGIEnvironment) -> int | None:
    """Return how many bytes of body may be read; None for "until it ends".

    Without ``CONTENT_LENGTH`` there is a body only where the server promises its end
    (``wsgi.input_terminated``: a chunked request); else it is empty.

    Raises:
        BadRequestError: ``CONTENT_LENGTH`` is malformed.
    """
    length = content_length(environ)
    if length is None and not environ.get("wsgi.input_terminated"):
        return 0
    return length


class BodyReader:
    """A ``wsgi.input`` that ends where the body does.

    Args:
        stream: The server's ``wsgi.input``.
        length: How many bytes it has, or None where it ends by itself.
    """

    __slots__ = ("_left", "_stream")

    def __init__(self, stream: _Stream, length: int | None) -> None:
        self._stream = stream
        self._left = length

    def received(self, data: bytes, asked: int) -> bytes:
        """Look at what the server gave; what is returned goes on to the reader.

        Args:
            data: Less than *asked*, where a line ended or the client stopped sending.
            asked: How much was asked for; always above 0.
        """
        return data

    def _get(self, size: int, *, line: bool) -> bytes:
        """Read once from the stream: at most *size* bytes, above 0."""
        left = self._left
        if left is not None:
            if left == 0:
                return b""
            size = min(size, left)
        data = self.received(self._stream.readline(size) if line else self._stream.read(size), size)
        if left is not None:
            # At its early end there is nothing more to wait for.
            self._left = left - len(data) if data else 0
        return data

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most *size* bytes; all of them without a size."""
        if size is not None and size >= 0:
            return self._get(size, line=False) if size else b""
        return b"".join(iter(lambda: self._get(self._left or BLOCK, line=False), b""))

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read to the end of the line, or at most *size* bytes of it."""
        if size is not None and size >= 0:
            return self._get(size, line=True) if size else b""
        pieces = []
        while piece := self._get(BLOCK, line=True):
            pieces.append(piece)
            if piece.endswith(b"\n"):
                break
        return b"".join(pieces)

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Read all lines, or as many as make *hint* bytes."""
        lines, total = [], 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")
