"""What a view returns, as a WSGI answer: text, JSON, responses, streams, other applications."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, cast

import webob

from lamella.stack.kernel.response import Headers, close, has_body

from .fields import ResponseError, check_headers, check_status, checking, header_list, known_fields, status_line
from .http_exceptions import http_exceptions, is_http_exception

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["Response", "abort", "respond", "to_response"]

# WebOb has no annotations.
_Webob: Any = webob.Response
_Request: Any = webob.Request

_HTML = ("Content-Type", "text/html; charset=utf-8")
_JSON = ("Content-Type", "application/json")
# Made once: a tenth of what a short text costs.
_MOST = 512
_LENGTHS = [("Content-Length", str(length)) for length in range(_MOST)]


class Response(webob.Response):
    """WebOb's response, which a text or bytes alone make without its 40 questions: 0.4 instead of 1.3 microseconds."""

    def __init__(self, body: Any = None, *arguments: Any, **options: Any) -> None:
        if arguments or options or not (body.__class__ is str or body.__class__ is bytes):
            _init(self, body, *arguments, **options)
            return
        content = body.encode() if body.__class__ is str else body
        self._status = "200 OK"
        self._headers = None
        self._headerlist = [_WEBOB_HTML, ("Content-Length", str(len(content)))]
        self.conditional_response = self.default_conditional_response
        self._app_iter = [content]


_init: Any = webob.Response.__init__
_WEBOB_HTML = ("Content-Type", "text/html; charset=UTF-8")


def respond(
    result: Any, environ: WSGIEnvironment, start_response: StartResponse, view: str, method: str
) -> Iterable[bytes]:
    """Send what a view returned.

    Args:
        result: ``str``, ``bytes``, ``dict`` or ``list`` (JSON), None (204), ``(body, status)``,
            ``(body, headers)``, ``(body, status, headers)``, a WebOb ``Response``, any WSGI
            application, or an iterable of ``str`` or ``bytes`` blocks.
        environ: The request.
        start_response: The server's.
        view: Name of the view, for messages.
        method: The request's.

    Raises:
        ResponseError: None of these, or a status or header that cannot be sent.
    """
    kind = type(result)
    if kind is str:
        body = result.encode()
        length = len(body)
        start_response("200 OK", [_HTML, _LENGTHS[length] if length < _MOST else ("Content-Length", str(length))])
        return [body] if method != "HEAD" else [b""]
    if (kind is _Webob or kind is Response) and not result.conditional_response:
        status, headers = result._status, result._headerlist
        try:
            known = known_fields.issuperset(headers)
        except TypeError:  # an unhashable item, which the check names
            known = False
        if not known:
            check_headers(headers, view)
        if status != "200 OK":
            check_status(status, view)
            if not has_body(status):
                return _bodiless(status, headers, result._app_iter, start_response)
        start_response(status, [*headers])
        return result._app_iter if method != "HEAD" else _Discarded(result._app_iter)
    return _respond(result, environ, start_response, view)


def _respond(result: Any, environ: WSGIEnvironment, start_response: StartResponse, view: str) -> Iterable[bytes]:
    """Send all but the two most frequent kinds."""
    if is_http_exception(result):
        result = _render_exception(result, environ)
    if isinstance(result, _Webob):
        return _respond_webob(result, environ, start_response, view)
    if isinstance(result, tuple):
        return _respond_tuple(result, environ, start_response, view)
    if callable(result):
        return result(environ, checking(start_response, view))  # type: ignore[no-any-return]
    return _send("200 OK" if result is not None else "204 No Content", [], result, environ, start_response, view)


def _respond_tuple(
    result: tuple[Any, ...], environ: WSGIEnvironment, start_response: StartResponse, view: str
) -> Iterable[bytes]:
    """Send ``(body, status)``, ``(body, headers)`` or ``(body, status, headers)``."""
    status: Any = None
    headers: Any = ()
    if len(result) == 3:
        body, status, headers = result
    elif len(result) == 2 and isinstance(result[1], (dict, list, tuple)):
        body, headers = result
    elif len(result) == 2:
        body, status = result
    else:
        raise ResponseError(f"the view {view} returned a tuple of {len(result)}; expected (body, status, headers)")
    fields = header_list(headers, view)
    if isinstance(body, _Webob):
        names = {name.lower() for name, _ in fields}
        body = body.copy() if hasattr(body._app_iter, "__len__") else body
        body.headerlist = [item for item in body.headerlist if item[0].lower() not in names] + fields
        if status is not None:
            body.status = status_line(status, view)
        return respond(body, environ, start_response, view, environ["REQUEST_METHOD"])
    if callable(body):
        raise ResponseError(f"the view {view} returned a WSGI application in a tuple; return it alone")
    line = status_line(200 if body is not None and status is None else 204 if status is None else status, view)
    return _send(line, fields, body, environ, start_response, view)


def _send(
    status: str, headers: Headers, body: Any, environ: WSGIEnvironment, start_response: StartResponse, view: str
) -> Iterable[bytes]:
    """Send a body that is no application, with headers that are checked."""
    typed: tuple[str, str] = _HTML
    blocks: Iterable[bytes]
    length: int | None = None
    wrapper = environ.get("wsgi.file_wrapper")
    if body is None:
        body = b""
    if isinstance(body, (dict, list)):
        # Imported late: it takes 30 of the 85 ms of the whole router, and many apps answer no JSON.
        from msgspec import json

        body, typed = json.encode(body), _JSON
    elif isinstance(body, str):
        body = body.encode()
    if isinstance(body, (bytes, bytearray, memoryview)):
        body = bytes(body)
        blocks, length = [body], len(body)
    elif isinstance(wrapper, type) and isinstance(body, wrapper):
        blocks = cast("Iterable[bytes]", body)
    elif hasattr(body, "__iter__"):
        blocks = _Blocks(body, view)
    else:
        raise ResponseError(f"the view {view} returned {type(body).__name__}, which is no answer")
    if not has_body(status):
        return _bodiless(status, headers, blocks, start_response)
    fields = [item for item in headers if length is None or item[0].lower() != "content-length"]
    if not any(name.lower() == "content-type" for name, _ in fields):
        fields.append(typed)
    if length is not None:
        fields.append(("Content-Length", str(length)))
    start_response(status, fields)
    if environ.get("REQUEST_METHOD") == "HEAD":
        return _Discarded(blocks)
    return blocks


def _bodiless(status: str, headers: Headers, body: object, start_response: StartResponse) -> Iterable[bytes]:
    """Send a 204 or 304: no content, and no header that describes one (RFC 9110 sections 8.6 and 15.3.5)."""
    drop = ("content-length",) if status.startswith("304") else ("content-length", "content-type")
    start_response(status, [item for item in headers if item[0].lower() not in drop])
    return _Discarded(body)


class _Discarded:
    """An empty body that closes the one it stands for."""

    __slots__ = ("_body",)

    def __init__(self, body: object) -> None:
        self._body: object = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        body, self._body = self._body, None
        close(body)


class _Blocks:
    """Blocks of text or bytes, one by one, as bytes."""

    __slots__ = ("_body", "_iterator", "_view")

    def __init__(self, body: Iterable[Any], view: str) -> None:
        self._body = body
        self._iterator: Iterator[Any] | None = None
        self._view = view

    def __iter__(self) -> _Blocks:
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = iter(self._body)
        block = next(self._iterator)
        if isinstance(block, bytes):
            return block
        if isinstance(block, str):
            return block.encode()
        raise ResponseError(f"the view {self._view} yielded {type(block).__name__}; expected str or bytes")

    def close(self) -> None:
        close(self._body)


# --- WebOb --------------------------------------------------------------------------------------


def _respond_webob(
    response: Any, environ: WSGIEnvironment, start_response: StartResponse, view: str
) -> Iterable[bytes]:
    """Send a WebOb response that is a subclass, or conditional."""
    checked = checking(start_response, view)
    if type(response).__call__ is not _Webob.__call__:
        return response(environ, checked)  # type: ignore[no-any-return]
    if not response.conditional_response:
        check_headers(response._headerlist, view)
        check_status(response._status, view)
        if not has_body(response._status):
            return _bodiless(response._status, response._headerlist, response._app_iter, start_response)
        start_response(response._status, [*response._headerlist])
        return response._app_iter if environ.get("REQUEST_METHOD") != "HEAD" else _Discarded(response._app_iter)
    return response(_readable(environ), checked)  # type: ignore[no-any-return]


def _readable(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Return *environ* without the conditional fields that WebOb would raise on."""
    request = _Request(environ)
    bad = []
    for key, name in (
        ("HTTP_RANGE", "range"),
        ("HTTP_IF_RANGE", "if_range"),
        ("HTTP_IF_NONE_MATCH", "if_none_match"),
        ("HTTP_IF_MODIFIED_SINCE", "if_modified_since"),
    ):
        if key in environ:
            try:
                getattr(request, name)
            except Exception:  # noqa: BLE001 - whatever it raises, a field we cannot read is ignored
                bad.append(key)
    return {key: value for key, value in environ.items() if key not in bad} if bad else environ


def _render_exception(error: Any, environ: WSGIEnvironment) -> Any:
    """Return a response for a WebOb HTTP exception: its own body, or a short text.

    WebOb's pages cost 45 microseconds; the ``errors`` layer makes better ones.
    """
    given = vars(error)
    if error.has_body or error.empty_body or "body_template_obj" in given or "json_formatter" in given:
        return error
    response = _Webob(status=error.status, headerlist=[])
    response.headerlist = [
        item for item in error.headerlist if item[0].lower() not in ("content-type", "content-length")
    ]
    if has_body(error.status):
        text = error.status if not error.detail else f"{error.status}\n\n{error.detail}"
        response._headerlist.append(("Content-Type", "text/plain; charset=utf-8"))
        response.body = f"{text}\n".encode()
    return response


def to_response(result: Any, environ: WSGIEnvironment, view: str) -> Any | None:
    """Return what a view returned as a WebOb response, for hooks; None for another WSGI application."""
    if is_http_exception(result):
        result = _render_exception(result, environ)
    if isinstance(result, _Webob):
        return result
    if callable(result):
        return None
    started: list[Any] = []

    def start(status: str, headers: Headers, exc_info: Any = None, /) -> Callable[[bytes], object]:
        started[:] = [status, headers]
        return lambda data: None

    # As for GET: whether a body is left out is decided when the response is sent.
    request = {"REQUEST_METHOD": "GET", "wsgi.file_wrapper": environ.get("wsgi.file_wrapper")}
    body = respond(result, request, start, view, "GET")
    response = _Webob(status=started[0], headerlist=started[1], app_iter=body)
    return response


# --- what views call ----------------------------------------------------------------------------


def abort(status: int, detail: str | None = None, headers: Mapping[str, str] | None = None) -> NoReturn:
    """Stop the view and answer with *status*, through the error handlers.

    Args:
        status: 300 to 599.
        detail: Shown to the client.
        headers: More header fields, such as ``{"Retry-After": "60"}``.

    Raises:
        ValueError: No such status.
    """
    kind = http_exceptions().status_map.get(status)
    if kind is None or not 300 <= status <= 599:
        raise ValueError(f"no error status: {status}")
    error = kind(detail)
    for name, value in (headers or {}).items():
        error.headers[name] = value
    raise error
