"""Turn exceptions, and error answers without content, into a page or ``application/problem+json``.

An exception becomes a 500, logged with its traceback and the request's identifier to the logger ``lamella.errors``;
its class is left under ``lamella.exception`` for the access log. Browsers get a page, programs RFC 9457 problems.
What an app wrote itself is never replaced, unless told so. Once bytes are on the wire the exception goes on to the
server.

.. code-block:: toml

    [[layer]]
    use = "errors"

Place it inside ``access_log``, ``request_id``, ``context`` and ``cors``, outside all that may fail.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from lamella.middleware._error_pages import Page, Problem, render
from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.faults import BrokenAppError, app_name, fault_of_body, fault_of_status
from lamella.stack.kernel.keys import EXCEPTION, REQUEST_ID
from lamella.stack.kernel.options import FilePath, choice, file_path
from lamella.stack.kernel.order import Inside, Outside
from lamella.stack.kernel.response import Headers, add_vary, close, get_header, has_body, remove_headers

if TYPE_CHECKING:
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None

__all__ = ["ErrorsMiddleware"]

_log = logging.getLogger("lamella.errors")
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
_PAGE_NAMES: Final = frozenset({"4xx", "5xx", "default"} | {str(code) for code in range(400, 600)})

#: Makes what is sent for a problem; the exception is None where an app answered with a bare status.
_Render = Callable[["WSGIEnvironment", Problem, "BaseException | None"], Page]


class ErrorsMiddleware:
    """Answer where the app inside could not.

    Args:
        app: The application inside.
        debug: Show the traceback, the environ and the layers to a browser on this machine; everybody else, and
            whatever comes through a proxy, gets the ordinary page. Not for production.
        render: Which answers of the app get a page: ``"exceptions"`` none, only exceptions do; ``"empty"`` those with
            a status of 400 and above and no content; ``"plain"`` also those in ``text/plain``, whose text becomes the
            detail.
        pages: Own HTML pages: a status such as ``"404"``, ``"4xx"``, ``"5xx"`` or ``"default"`` to a file in UTF-8;
            ``$status``, ``$reason``, ``$detail`` and ``$request_id`` in it are filled in.

    Raises:
        ConfigError: An unknown value of *render*, a page for no error status, or a file that cannot be read.
    """

    provides = (EXCEPTION,)
    requires = ()
    order = (
        Inside("access_log", "L102", "a page that is made here would not be logged"),
        Inside("request_id", "L117", "the page and the log have no identifier before it is known"),
        Inside("cors", "L103", "a script could not read the error: it has no CORS headers"),
        Outside("dispatch", "L102", "what fails behind the mounts would not be caught"),
        Outside("session", "L102", "what fails in the session would not be caught"),
        Outside("static", "L102", "what fails while a file is read would not be caught"),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        debug: bool = False,
        render: str = "empty",
        pages: Mapping[str, FilePath] = {},
    ) -> None:
        if not isinstance(debug, bool):
            raise ConfigError("debug", debug, "true or false")
        choice("render", render, ("exceptions", "empty", "plain"))
        inner, make = direct(app), _renderer(debug, _own_pages(pages))
        empties, plains = render != "exceptions", render == "plain"

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            exchange = _Exchange(environ, start_response, make, empties, plains, app)
            try:
                body = inner(environ, exchange.start)
                if type(body) in (list, tuple):
                    for block in body:
                        if type(block) is not bytes and (fault := fault_of_body(body, block)):
                            raise BrokenAppError(app_name(app, environ), fault)
                    if exchange.held is not None:
                        return exchange.settle(body)
                    if exchange.started:
                        return body  # nothing more can fail, nothing is to be replaced
                elif fault := fault_of_body(body):
                    raise BrokenAppError(app_name(app, environ), fault)
            except Exception as error:  # noqa: BLE001  that is what this layer is for
                return exchange.fail(error)
            wrapper = environ.get("wsgi.file_wrapper")
            if isinstance(wrapper, type) and isinstance(body, wrapper):
                exchange.release()
                return body
            return _Guard(body, exchange)

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


class _Exchange:
    """One answer: the app's, as long as it holds."""

    __slots__ = (
        *("_empties", "_environ", "_make", "_plains", "_says_empty", "_start_response", "_write"),
        *("app", "detail", "dropping", "held", "sent", "started"),
    )

    def __init__(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        make: _Render,
        empties: bool,
        plains: bool,
        app: WSGIApplication,
    ) -> None:
        #: What is called inside, to name it where it is at fault.
        self.app = app
        self._environ = environ
        self._start_response = start_response
        self._make = make
        self._empties = empties
        self._plains = plains
        self._write: Callable[[bytes], object] | None = None
        self.started = False
        #: Whether content went on to the server: the headers are out then.
        self.sent = False
        #: Status and headers of an error that may still turn out to be empty.
        self.held: tuple[str, Headers] | None = None
        #: The plain text of such an answer that came by ``write()``; None where content is to be passed on.
        self.detail: bytes | None = None
        #: Whether the rest of the app's content is dropped, because a page took its place.
        self.dropping = False
        self._says_empty = False

    def start(self, status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
        if self.held is not None and exc_info is None:
            raise AssertionError("start_response was called twice without exc_info")
        if (type(status) is not str or status[3:4] != " ") and (fault := fault_of_status(status)):
            raise BrokenAppError(app_name(self.app, self._environ), fault)
        self.held, self.detail = None, None
        if not self.sent and self._empties and status >= "400" and self._may_replace(status, headers):
            if self.started:  # the server knows the first answer: only now, with exc_info, can it be taken back
                self._write = self._start_response(status, headers, exc_info)
                return self._pass_on
            self.held = (status, headers)
            return self._pass_on
        self.started = True
        if exc_info is None:
            self._write = self._start_response(status, headers)
        else:
            self._write = self._start_response(status, headers, exc_info)
        return self._pass_on

    def _may_replace(self, status: str, headers: Headers) -> bool:
        """Tell whether the answer may be without content of the app's own, and begin to collect its text."""
        if not (status[:3].isdigit() and status[3:4] == " ") or status >= "600":
            return False
        if get_header(headers, "content-encoding") is not None:
            return False
        length = get_header(headers, "content-length")
        self._says_empty = length == "0"
        kind = (get_header(headers, "content-type") or "").partition(";")[0].strip().lower()
        if self._plains and kind == "text/plain":
            self.detail = b""
            return True
        # A HEAD request has no content to look at: only an explicit zero says that there would be none.
        return self._says_empty or (length is None and self._environ.get("REQUEST_METHOD") != "HEAD")

    def _pass_on(self, data: bytes, /) -> object:
        """``write()`` for the app."""
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
            self._write = self._start_response(status, headers)

    def replace(self, text: bytes = b"") -> bytes:
        """Start a page in place of the held answer, with *text* as its detail; return its content."""
        if self.held is None:
            return b""
        (status, headers), self.held = self.held, None
        detail = ((self.detail or b"") + text)[:_DETAIL].decode("utf-8", "replace").strip()
        self.started = self.sent = self.dropping = True
        page = self._page(status, None, detail)
        fields = [*remove_headers(headers, *_OF_CONTENT), *_fields(page, fresh=False)]
        if self.detail is not None and self._environ.get("REQUEST_METHOD") == "HEAD":
            fields = remove_headers(fields, "content-length")  # without the text, its length is not known
        self._start_response(status, add_vary(fields, "Accept"))
        return self._content(status, page)

    def fail(self, error: Exception) -> list[bytes]:
        """Log *error* and answer in the app's place.

        Raises:
            Exception: *error* itself, where content is already on the wire.
        """
        self.held = None
        EXCEPTION.set(self._environ, _class_name(error))
        _report(error, self._environ)
        if self.sent:
            raise error
        status, detail = _INTERNAL, ""
        if isinstance(error, BadRequestError):
            status, detail = error.status, error.reason
        page = self._page(status, error, detail)
        fields = add_vary([("Cache-Control", "no-store"), *_fields(page, fresh=True)], "Accept")
        # With exc_info, because the app may have started; a server that has sent its headers raises it again.
        try:
            self._start_response(status, fields, (type(error), error, error.__traceback__))  # type: ignore[arg-type]
        except Exception as raised:
            if raised is error:
                raise
            raise error from raised
        self.started = True
        return [self._content(status, page)]

    def _page(self, status: str, error: BaseException | None, detail: str) -> Page:
        request_id = REQUEST_ID.seen(self._environ) or ""
        return self._make(self._environ, Problem(status, request_id, detail), error)

    def _content(self, status: str, page: Page) -> bytes:
        return page.body if has_body(status, self._environ.get("REQUEST_METHOD", "GET")) else b""


class _Guard:
    """A body that may still fail, or turn out to be empty."""

    __slots__ = ("_body", "_closed", "_ended", "_exchange", "_iterator")

    def __init__(self, body: Iterable[bytes], exchange: _Exchange) -> None:
        self._body = body
        self._exchange = exchange
        self._iterator: Iterator[bytes] | None = None
        self._ended = False
        self._closed = False

    def __iter__(self) -> _Guard:
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
                raise BrokenAppError(app_name(exchange.app, exchange._environ), fault)
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
            EXCEPTION.set(self._exchange._environ, _class_name(error))
            _report(error, self._exchange._environ)
            raise


def _fields(page: Page, *, fresh: bool) -> Headers:
    """The fields that speak of *page*."""
    more = [("X-Content-Type-Options", "nosniff")] if fresh or page.headers else []
    return [("Content-Type", page.content_type), ("Content-Length", str(len(page.body))), *more, *page.headers]


def _renderer(debug: bool, pages: Mapping[str, str]) -> _Render:
    """Return what makes the answers; the debug page is not even loaded where it is off."""

    def ordinary(environ: WSGIEnvironment, problem: Problem, error: BaseException | None) -> Page:
        return render(problem, environ.get("HTTP_ACCEPT", ""), pages)

    if not debug:
        return ordinary
    from lamella.middleware._debug_page import debug_page, is_local

    def talkative(environ: WSGIEnvironment, problem: Problem, error: BaseException | None) -> Page:
        if error is None or not is_local(environ):
            return ordinary(environ, problem, error)
        try:
            return debug_page(problem, error, environ, environ.get("HTTP_ACCEPT", ""))
        except Exception:  # noqa: BLE001  whatever it is, an answer has to go out
            _log.exception("the debug page failed")
            return ordinary(environ, problem, error)

    return talkative


def _own_pages(pages: Mapping[str, FilePath]) -> dict[str, str]:
    """Return the texts of the site's own pages."""
    if not isinstance(pages, Mapping):
        raise ConfigError("pages", pages, "a table of statuses and files")
    found = {}
    for name, path in pages.items():
        if name not in _PAGE_NAMES:
            raise ConfigError("pages", name, 'a status such as "404", "4xx", "5xx" or "default"')
        try:
            found[name] = file_path(f"pages.{name}", path).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"pages.{name}", str(path), f"a file in UTF-8 ({error})") from None
    return found


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
            _log.info("%s %s refused: %s (request %s)", method, path, error.reason, request_id, extra=extra)
        else:
            _log.error("%s %s failed (request %s)", method, path, request_id, exc_info=error, extra=extra)
    except Exception as failure:  # noqa: BLE001  a broken log handler must not cost the answer
        try:
            sys.stderr.write(f"lamella.errors: the log failed: {type(failure).__name__}\n")
        except Exception:  # noqa: BLE001, S110  nobody is left to tell
            pass
