"""The cascade of ``dispatch``: the next app answers where the first one knows nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lamella.stack.kernel.body import BodyReader, body_length
from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.kernel.response import refuse, substitute

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from lamella.stack.kernel.response import Headers

__all__ = ["cascade_of"]

# An app refused in these words; the next of the cascade may know better (Rack and Paste try the same two).
_NOT_MINE = ("404", "405")


def cascade_of(apps: Sequence[WSGIApplication], limit: int) -> WSGIApplication:
    """Return the first of *apps*, followed by the next one where it answers 404 or 405.

    Args:
        apps: At least one.
        limit: How many bytes of a request's body are kept for the next one.
    """
    if len(apps) == 1:
        return apps[0]

    def cascade(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            body = _Replay(environ, limit)
        except BadRequestError as error:
            return refuse(environ, start_response, error)
        return attempt(environ.copy(), body, 0, environ, start_response)

    def attempt(
        pristine: WSGIEnvironment, body: _Replay, index: int, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Ask the app of that index; each gets an environ of its own, because an app may spoil it."""
        if index + 1 == len(apps):
            return apps[index]({**pristine, "wsgi.input": body}, start_response)

        def next_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            body.rewind()
            return attempt(pristine, body, index + 1, environ, start_response)

        def choose(status: str, headers: Headers) -> WSGIApplication | None:
            return next_app if status[:3] in _NOT_MINE and body.is_whole else None

        return substitute(apps[index], {**pristine, "wsgi.input": body}, start_response, choose)

    return cascade


class _Replay(BodyReader):
    """A request body that remembers what was read of it, up to a limit, to be read again.

    Nothing is read ahead: an app that answers 404 without looking at the body costs nothing.
    """

    __slots__ = ("_at", "_kept", "_limit", "is_whole")

    def __init__(self, environ: WSGIEnvironment, limit: int) -> None:
        super().__init__(environ["wsgi.input"], body_length(environ))
        self._limit = limit
        self._kept = bytearray()
        self._at = 0
        #: Whether everything read so far can be read again.
        self.is_whole = True

    def rewind(self) -> None:
        """Begin again."""
        self._at = 0

    def _get(self, size: int, *, line: bool) -> bytes:
        """Read from what is kept; from the stream where that is used up."""
        kept = self._kept
        if self._at < len(kept):
            end = min(self._at + size, len(kept))
            if line:
                end = kept.find(b"\n", self._at, end) + 1 or end
            data = bytes(kept[self._at : end])
            self._at = end
            if len(data) == size or (line and data.endswith(b"\n")):
                return data
            return data + super()._get(size - len(data), line=line)
        return super()._get(size, line=line)

    def received(self, data: bytes, asked: int) -> bytes:
        if self.is_whole:
            self.is_whole = len(self._kept) + len(data) <= self._limit
            if self.is_whole:
                self._kept += data
                self._at = len(self._kept)
            else:
                self._kept.clear()
                self._at = 0
        return data
