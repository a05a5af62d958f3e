"""Files as answers: conditional, with one byte range, under a name of choice."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from mimetypes import guess_type
from stat import S_ISREG
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

import webob

from lamella.stack.kernel.conditional import evaluate, has_precondition, if_range_holds, parse_ranges
from lamella.stack.kernel.http import ETag, format_date
from lamella.stack.kernel.response import Headers, close

from .fields import STATUSES
from .http_exceptions import http_exceptions

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["content_disposition", "send_file"]

# WebOb has no annotations.
_Webob: Any = webob.Response

_BLOCK = 256 * 1024
# RFC 8187 section 3.2.1: attr-char.
_ATTR_SAFE = "!#$&+-.^_`|~"


def content_disposition(filename: str, *, inline: bool = False) -> str:
    """Return a Content-Disposition for *filename*, whatever it holds (RFC 6266, RFC 8187).

    Paths are cut to their last part, control characters are dropped; a name outside ASCII comes in
    both forms, for old and new clients.
    """
    kind = "inline" if inline else "attachment"
    name = filename.encode("utf-8", "ignore").decode().replace("\\", "/").rpartition("/")[2]
    name = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "", name).strip()
    if not name:
        return kind
    # A percent sign, quote or backslash in the plain form is read differently by different browsers (RFC 6266, D).
    plain = re.sub(r'["\\%]', "_", name.encode("ascii", "replace").decode().replace("?", "_"))
    if plain == name:
        return f'{kind}; filename="{name}"'
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe=_ATTR_SAFE)}"


def send_file(
    file: str | os.PathLike[str] | IO[bytes],
    environ: WSGIEnvironment,
    *,
    root: str | os.PathLike[str] | None = None,
    filename: str | None = None,
    content_type: str | None = None,
    download: bool = False,
) -> Any:
    """Return a response with a file: conditional, with one byte range, sent by the server's ``sendfile``.

    Args:
        file: A path, or an open binary file, which is closed at the end.
        environ: The request: ``request.environ``.
        root: A folder that *file*, then relative, must not leave, also not through a link. Give it
            whenever *file* comes from the request.
        filename: Name for the browser; by default that of the path, where *download* is on.
        content_type: By default guessed from the name.
        download: Save it instead of showing it.

    Raises:
        webob.exc.HTTPNotFound: No such file, or outside *root*.
    """
    opened, name, stat = _open(file, root)
    shown = filename or name
    guessed, coding = guess_type(shown)
    kind = content_type or (guessed if coding is None else None) or "application/octet-stream"
    if content_type is None and kind.startswith("text/"):
        kind += "; charset=utf-8"
    headers: Headers = [("Content-Type", kind), ("X-Content-Type-Options", "nosniff")]
    if download or filename is not None:
        headers.append(("Content-Disposition", content_disposition(shown, inline=not download)))
    if stat is None:
        return _Webob(status="200 OK", headerlist=headers, app_iter=_wrap(environ, opened))
    size, modified = stat.st_size, int(stat.st_mtime)
    etag = ETag(f"{stat.st_mtime_ns:x}-{size:x}")
    headers += [("ETag", str(etag)), ("Last-Modified", format_date(modified)), ("Accept-Ranges", "bytes")]
    status = evaluate(environ, etag, modified) if has_precondition(environ) else 0
    if status:
        opened.close()
        return _Webob(status=STATUSES[status], headerlist=[*headers[1:], ("Content-Length", "0")], app_iter=[])
    span = _span(environ, size, etag, modified)
    if span == (0, 0):
        opened.close()
        refused = [*headers[1:], ("Content-Range", f"bytes */{size}"), ("Content-Length", "0")]
        return _Webob(status=STATUSES[416], headerlist=refused, app_iter=[])
    if span is not None:
        start, stop = span
        headers += [("Content-Range", f"bytes {start}-{stop - 1}/{size}"), ("Content-Length", str(stop - start))]
        return _Webob(status=STATUSES[206], headerlist=headers, app_iter=_Slice(opened, start, stop - start))
    headers.append(("Content-Length", str(size)))
    return _Webob(status="200 OK", headerlist=headers, app_iter=_wrap(environ, opened))


def _open(
    file: str | os.PathLike[str] | IO[bytes], root: str | os.PathLike[str] | None
) -> tuple[IO[bytes], str, os.stat_result | None]:
    """Open *file*; return it, its name, and what the system knows of it."""
    if not isinstance(file, (str, os.PathLike)):
        return file, os.path.basename(str(getattr(file, "name", "") or "")), None
    from pathlib import Path  # late: it takes a tenth of the router's start

    try:
        path = Path(file)
        if root is not None:
            folder = Path(root).resolve()
            path = (folder / path).resolve()
            if not path.is_relative_to(folder):
                raise http_exceptions().HTTPNotFound
        opened = path.open("rb")
    except (OSError, ValueError):  # ValueError: a NUL in the name
        raise http_exceptions().HTTPNotFound from None
    stat = os.fstat(opened.fileno())
    if not S_ISREG(stat.st_mode):
        opened.close()
        raise http_exceptions().HTTPNotFound
    return opened, path.name, stat


def _span(environ: WSGIEnvironment, size: int, etag: ETag, modified: int) -> tuple[int, int] | None:
    """Return the one range to send, (0, 0) where none can be, None for the whole."""
    text = environ.get("HTTP_RANGE")
    if not text or environ.get("REQUEST_METHOD") != "GET":
        return None
    if_range = environ.get("HTTP_IF_RANGE")
    if if_range is not None and not if_range_holds(if_range, etag, modified):
        return None
    ranges = parse_ranges(text, size)
    if ranges is None or len(ranges) > 1:
        return None
    return ranges[0] if ranges else (0, 0)


def _wrap(environ: WSGIEnvironment, opened: IO[bytes]) -> Iterable[bytes]:
    """Return the file in the server's own wrapper, where it has one."""
    wrapper: Callable[..., Iterable[bytes]] = environ.get("wsgi.file_wrapper") or _Slice
    return wrapper(opened, _BLOCK) if wrapper is not _Slice else _Slice(opened, 0, None)


class _Slice:
    """A part of a file, in large blocks."""

    def __init__(self, opened: IO[bytes], start: int, length: int | None) -> None:
        self._file = opened
        self._left = length
        if start:
            opened.seek(start)

    def __iter__(self) -> _Slice:
        return self

    def __next__(self) -> bytes:
        block = self._file.read(_BLOCK if self._left is None else min(_BLOCK, self._left))
        if not block:
            raise StopIteration
        if self._left is not None:
            self._left -= len(block)
        return block

    def close(self) -> None:
        close(self._file)
