"""A request made by hand, and a server small enough to watch."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from lamella.stack.kernel.environ import header_key
from lamella.stack.kernel.response import get_header

from .lint import HOSTILE

if TYPE_CHECKING:
    from types import TracebackType
    from wsgiref.types import WSGIApplication, WSGIEnvironment

__all__ = ["Response", "call", "environ"]


def environ(
    method: str = "GET", path: str = "/", /, *, body: bytes = b"", mount: str = "", **headers: Any
) -> dict[str, Any]:
    """Build the environ of one request, as a careful server would.

    Args:
        method: The request method.
        path: Request target: a percent-encoded path, with or without a query.
        body: The request's content; sets ``CONTENT_LENGTH``.
        mount: ``SCRIPT_NAME``: where the app is mounted.
        **headers: Header fields, underscores for dashes: ``if_none_match='"x"'``. A name with a dot
            or an upper-case first letter is an environ key and is set as it is: ``REMOTE_ADDR="::1"``.
    """
    raw_path, _, query = path.partition("?")
    request: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": mount,
        "PATH_INFO": unquote_to_bytes(raw_path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if body:
        request["CONTENT_LENGTH"] = str(len(body))
    for name, value in headers.items():
        request[name if "." in name or name[:1].isupper() else header_key(name)] = value
    path_info, length = request["PATH_INFO"], request.get("CONTENT_LENGTH", "")
    if not str(path_info).startswith("/") or not str(length or "0").isdigit():
        request[HOSTILE] = True  # on purpose: the linter does not blame the test
    return request


class Response:
    """What one request was answered with.

    Attributes:
        status: The status line.
        headers: The header list.
        blocks: What ``write()`` and the body gave, block by block.
        error: What the app or its body raised, where :func:`call` was told to keep it.
    """

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.blocks: list[bytes] = []
        self.error: BaseException | None = None

    @property
    def code(self) -> int:
        """The status code."""
        return int(self.status[:3])

    @property
    def body(self) -> bytes:
        """All blocks."""
        return b"".join(self.blocks)

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    def header(self, name: str) -> str | None:
        """Return a field value, equal names joined with a comma, or None."""
        return get_header(self.headers, name)

    def header_list(self, name: str) -> list[str]:
        """Return the values of every field called *name*, such as ``Set-Cookie``."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


def call(
    app: WSGIApplication, environ: WSGIEnvironment, *, blocks: int | None = None, keep_error: bool = False
) -> Response:
    """Serve one request as a server does: call, iterate, close.

    Args:
        app: The application.
        environ: See :func:`environ`.
        blocks: Stop after this many blocks, as when the client leaves; None for all.
        keep_error: Put an exception into ``Response.error`` instead of raising it.

    Raises:
        AssertionError: The app yielded before it started a response, or never started one.
    """
    response = Response()
    start_response = _Start(response)
    body: Iterable[bytes] = ()
    try:
        try:
            body = app(environ, start_response)
            if blocks != 0:
                for block in body:
                    if block:
                        start_response.send()
                    response.blocks.append(block)
                    if blocks is not None and len(response.blocks) >= blocks:
                        break
            if blocks is None:
                start_response.send()
        finally:
            closing = getattr(body, "close", None)
            if closing is not None:
                closing()
    except BaseException as error:
        if not keep_error:
            raise
        response.error = error
    return response


class _Start:
    """``start_response`` of the small server."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._sent = False

    def send(self) -> None:
        """Note that the headers went out."""
        if not self._response.status:
            raise AssertionError("the app never called start_response")
        self._sent = True

    def __call__(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None = None,
        /,
    ) -> Callable[[bytes], object]:
        if exc_info is not None:
            if self._sent and exc_info[1] is not None:
                raise exc_info[1].with_traceback(exc_info[2])
        elif self._response.status:
            raise AssertionError("start_response was called twice without exc_info")
        self._response.status = status
        self._response.headers = list(headers)
        return self._write

    def _write(self, data: bytes, /) -> None:
        self.send()
        self._response.blocks.append(data)
