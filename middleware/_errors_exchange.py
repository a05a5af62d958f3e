"""One answer behind ``errors``: the app's, as long as it holds, then a page in its place."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from lamella.stack.kernel.errors import BadRequestError
from lamella.stack.kernel.faults import BrokenAppError, app_name, fault_of_body, fault_of_status
from lamella.stack.kernel.keys import EXCEPTION, REQUEST_ID
from lamella.stack.kernel.response import ExcInfo, Headers, add_vary, close, get_header, has_body, remove_headers

from ._error_pages import Page, Problem

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["LOG", "NOTHING", "Exchange", "Guard", "Layer", "Render"]

LOG = logging.getLogger("lamella.errors")
#: What an exchange holds at first.
NOTHING: tuple[str, Headers] | None = None
# Fields that speak of the content that is replaced.
_OF_CONTENT: Final = (
    *("content-type", "content-length", "content-encoding", "content-language", "content-range", "content-disposition"),
    *(
        "content-location",
        "content-md5",
        "etag",
        "last-modified",
        "accept-ranges",
        "digest",
        "content-digest",
        "repr-digest",
    ),
)
# Most of an app's plain text that is taken over as the detail.
_DETAIL: Final = 1000
_INTERNAL: Final = "500 Internal Server Error"
# Statuses that were seen, are well formed, and below 400.
_fine: set[str] = set()
_FINE_SIZE: Final = 256

#: Makes what is sent for a problem; the exception is None where an app answered with a bare status.
Render = Callable[["WSGIEnvironment", Problem, "BaseException | None"], Page]


class Layer(NamedTuple):
    """What the options of the layer come to."""

    make: Render
    #: Whether an error without content gets a page, and whether one in plain text does.
    empties: bool
    plains: bool
    #: What is called inside, to name it where it is at fault.
    app: WSGIApplication


class Exchange:
    """One answer: the app's, as long as it holds."""

    # Set by the layer for each request; an __init__ would cost 2,000 instructions of 9,000.
    layer: Layer
    environ: WSGIEnvironment
    start_response: StartResponse
    #: Status and headers of an error that may still turn out to be empty.
    held: tuple[str, Headers] | None
    started: bool

    # The same for most requests.
    _write: Callable[[bytes], object] | None = None
    #: Whether content went on to the server: the headers are out then.
    sent = False
    #: The plain text of such an answer that came by ``write()``; None where content is to be passed on.
    detail: bytes | None = None
    #: Whether the rest of the app's content is dropped, because a page took its place.
    dropping = False
    _says_empty = False

    def start(self, status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
        """The ``start_response`` that the app gets."""
        try:
            is_fine = status in _fine
        except TypeError:
            is_fine = False
        if is_fine and exc_info is None and not self.started and self.held is None:
            self.started = True
            self._write = self.start_response(status, headers)
            return self
        return self._look(status, headers, exc_info)

    def _look(self, status: str, headers: Headers, exc_info: ExcInfo) -> Callable[[bytes], object]:
        """Start an answer that is an error, or new, or not the first one."""
        if self.held is not None and exc_info is None:
            raise AssertionError("start_response was called twice without exc_info")
        if (type(status) is not str or status[3:4] != " ") and (fault := fault_of_status(status)):
            raise BrokenAppError(app_name(self.layer.app, self.environ), fault)
        if status < "400" and len(_fine) < _FINE_SIZE and fault_of_status(status) is None:
            _fine.add(status)
        self.held, self.detail = None, None
        if not self.sent and self.layer.empties and status >= "400" and self._may_replace(status, headers):
            if self.started:  # the server knows the first answer: only now, with exc_info, can it be taken back
                self._write = self.start_response(status, headers, exc_info)
                return self
            self.held = (status, headers)
            return self
        self.started = True
        if exc_info is None:
            self._write = self.start_response(status, headers)
        else:
            self._write = self.start_response(status, headers, exc_info)
        return self

    def _may_replace(self, status: str, headers: Headers) -> bool:
        """Tell whether the answer may be without content of the app's own, and begin to collect its text."""
        if not (status[:3].isdigit() and status[3:4] == " ") or status >= "600":
            return False
        if get_header(headers, "content-encoding") is not None:
            return False
        length = get_header(headers, "content-length")
        self._says_empty = length == "0"
        kind = (get_header(headers, "content-type") or "").partition(";")[0].strip().lower()
        if self.layer.plains and kind == "text/plain":
            self.detail = b""
            return True
        # A HEAD request has no content to look at: only an explicit zero says that there would be none.
        return self._says_empty or (length is None and self.environ.get("REQUEST_METHOD") != "HEAD")

    def __call__(self, data: bytes, /) -> object:
        """The ``write()`` that the app gets."""
        if not data or self.dropping:
            return None
        if self.held is not None and self.detail is not None:
            self.detail += data[: _DETAIL - len(self.detail)]
            return None
        self.release()
        self.sent = True
        return self._write(data) if self._write is not None else None

    def settle(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return what is sent for a held answer whose content is all there: the content, or a page."""
        content = b"".join(body)
        if self.detail is not None or not content:
            return [self.replace(content)]
        self.release()
        return body

    def pull(self, block: bytes) -> bytes:
        """Return what is yielded for a block of the app's: the block, or a page in its place."""
        if self.dropping:
            return b""
        if self.held is not None:
            # Something has to be decided with the first block: an answer begins before it (PEP 3333). One that
            # is empty may be followed by content, unless the headers say that there is none.
            if self.detail is not None or (self._says_empty and not block):
                return self.replace(block)
            self.release()
        if block:
            self.sent = True
        return block

    def release(self) -> None:
        """Start the app's own answer after all."""
        if self.held is not None:
            (status, headers), self.held, self.detail = self.held, None, None
            self.started = True
            self._write = self.start_response(status, headers)

    def replace(self, text: bytes = b"") -> bytes:
        """Start a page in place of the held answer, with *text* as its detail; return its content."""
        if self.held is None:
            return b""
        (status, headers), self.held = self.held, None
        detail = ((self.detail or b"") + text)[:_DETAIL].decode("utf-8", "replace").strip()
        self.started = self.sent = self.dropping = True
        page = self._page(status, None, detail)
        fields = [*remove_headers(headers, *_OF_CONTENT), *_fields(page, fresh=False)]
        if self.detail is not None and self.environ.get("REQUEST_METHOD") == "HEAD":
            fields = remove_headers(fields, "content-length")  # without the text, its length is not known
        self.start_response(status, add_vary(fields, "Accept"))
        return self._content(status, page)

    def fail(self, error: Exception) -> list[bytes]:
        """Log *error* and answer in the app's place.

        Raises:
            Exception: *error* itself, where content is already on the wire.
        """
        self.held = None
        EXCEPTION.set(self.environ, _class_name(error))
        _report(error, self.environ)
        if self.sent:
            raise error
        status, detail = _INTERNAL, ""
        if isinstance(error, BadRequestError):
            status, detail = error.status, error.reason
        page = self._page(status, error, detail)
        fields = add_vary([("Cache-Control", "no-store"), *_fields(page, fresh=True)], "Accept")
        # With exc_info, because the app may have started; a server that has sent its headers raises it again.
        try:
            self.start_response(status, fields, (type(error), error, error.__traceback__))  # type: ignore[arg-type]
        except Exception as raised:
            if raised is error:
                raise
            raise error from raised
        self.started = True
        return [self._content(status, page)]

    def _page(self, status: str, error: BaseException | None, detail: str) -> Page:
        request_id = REQUEST_ID.seen(self.environ) or ""
        return self.layer.make(self.environ, Problem(status, request_id, detail), error)

    def _content(self, status: str, page: Page) -> bytes:
        return page.body if has_body(status, self.environ.get("REQUEST_METHOD", "GET")) else b""


class Guard:
    """A body that may still fail, or turn out to be empty."""

    __slots__ = ("_body", "_closed", "_ended", "_exchange", "_iterator")

    def __init__(self, body: Iterable[bytes], exchange: Exchange) -> None:
        self._body = body
        self._exchange = exchange
        self._iterator: Iterator[bytes] | None = None
        self._ended = False
        self._closed = False

    def __iter__(self) -> Guard:
        return self

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        exchange = self._exchange
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            block = next(self._iterator)
            if type(block) is not bytes and (fault := fault_of_body(self._body, block)):
                raise BrokenAppError(app_name(exchange.layer.app, exchange.environ), fault)
        except StopIteration:
            self._ended = True
            if exchange.held is None:
                raise
            return exchange.replace()
        except Exception as error:  # noqa: BLE001  that is what this layer is for
            self._ended = True
            (page,) = exchange.fail(error)
            return page
        return exchange.pull(block)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            close(self._body)
        except Exception as error:
            EXCEPTION.set(self._exchange.environ, _class_name(error))
            _report(error, self._exchange.environ)
            raise


def _fields(page: Page, *, fresh: bool) -> Headers:
    """The fields that speak of *page*."""
    more = [("X-Content-Type-Options", "nosniff")] if fresh or page.headers else []
    return [("Content-Type", page.content_type), ("Content-Length", str(len(page.body))), *more, *page.headers]


def _class_name(error: BaseException) -> str:
    """The class of an exception, with its module where that is not builtins."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _report(error: Exception, environ: WSGIEnvironment) -> None:
    """Log *error*; a request that was merely wrong without a traceback."""
    request_id = REQUEST_ID.seen(environ) or "-"
    path = quote(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""), encoding="utf-8", errors="replace")
    method = quote(environ.get("REQUEST_METHOD", "-"), errors="replace")
    extra = {"request_id": request_id}
    try:
        if isinstance(error, BadRequestError):
            LOG.info("%s %s refused: %s (request %s)", method, path, error.reason, request_id, extra=extra)
        else:
            LOG.error("%s %s failed (request %s)", method, path, request_id, exc_info=error, extra=extra)
    except Exception as failure:  # noqa: BLE001  a broken log handler must not cost the answer
        try:
            sys.stderr.write(f"lamella.errors: the log failed: {type(failure).__name__}\n")
        except Exception:  # noqa: BLE001, S110  nobody is left to tell
            pass
