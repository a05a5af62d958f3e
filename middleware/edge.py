"""Make servers look alike: refuse what no app should see, repair what no client should get.

Reads and may rewrite ``PATH_INFO``, ``SCRIPT_NAME``, ``HTTP_HOST``, ``HTTP_COOKIE`` (the first values stay
in ``lamella.edge.original``) and ``wsgi.input``; removes ``REMOTE_USER``, ``AUTH_TYPE`` and the process's variables.

.. code-block:: toml

    [[layer]]
    use = "edge"

Place it outermost.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Set
from typing import TYPE_CHECKING, Final

from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import BadRequestError, LamellaError
from lamella.stack.kernel.faults import BrokenAppError, app_name, fault_of_body, fault_of_status
from lamella.stack.kernel.http import is_token, parse_host
from lamella.stack.kernel.keys import REQUEST_ID
from lamella.stack.kernel.options import choice, flag
from lamella.stack.kernel.order import Outside
from lamella.stack.kernel.paths import AmbiguousPathError, canonical_path
from lamella.stack.kernel.response import answer, close, has_body, refuse

from ._edge import (
    BadAnswerError,
    EmptyBody,
    clean_headers,
    clean_status,
    frame_body,
    leaked_keys,
    normal_path,
    remove_leaks,
    split_cookies,
    strip_authority,
    wants_websocket,
)

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from lamella.stack.kernel.response import ExcInfo, Headers

__all__ = ["EdgeMiddleware", "IncompleteBodyError"]

_LOGGER = logging.getLogger("lamella.edge")
#: Holds what was rewritten: environ key to the server's value.
ORIGINAL = "lamella.edge.original"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
_EMPTY: Final = EmptyBody()
# How many host names and header names are remembered as good; a client that sends others is checked each time.
_MEMO_SIZE = 512
_PLAIN, _LENGTH = 1, 2
# What apps return by mistake: nothing, text, bytes without a list.
_NO_BODIES: Final = frozenset({type(None), str, bytes, bytearray})


class IncompleteBodyError(LamellaError, RuntimeError):
    """An app sent fewer bytes than its Content-Length; raised at the end, so that the server cuts the connection."""


class EdgeMiddleware:
    """Make every server behave like a careful one.

    A request that is malformed gets its 4xx here. An answer that HTTP does not allow is repaired where that
    is possible (bodies of HEAD, 1xx, 204 and 304, hop-by-hop headers, a wrong ``Content-Length``), else
    replaced by a 500. What was wrong is in the log ``lamella.edge``: a request that is refused here never reaches
    ``access_log``.

    Args:
        app: The application inside.
        websocket: What a client that asks for a websocket gets: ``"426"`` (WSGI has no websockets), or
            ``"pass"``, an ordinary request.
        paths: What an ambiguous path gets: ``"refuse"`` (400), ``"redirect"`` (308 to the path without its empty
            and dot segments, for GET and HEAD), or ``"pass"`` (the app sees it as it came).
        bad_utf8: What a path that is not UTF-8 gets, where *paths* is ``"pass"``: ``"400"`` or ``"pass"``.
        trust_remote_user: Keep the server's ``REMOTE_USER`` and ``AUTH_TYPE``. Only where the server itself
            authenticates, as Apache does; some servers copy them from the process's variables.

    Raises:
        ConfigError: An option is none of its values.
    """

    provides = ()
    requires = ()
    order = tuple(
        Outside(layer, "L119", "what reaches this layer is not yet checked, and what leaves it is not yet repaired")
        for layer in ("access_log", "request_id", "proxy", "hosts", "https", "errors", "health", "metrics", "tracing")
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        websocket: str = "426",
        paths: str = "refuse",
        bad_utf8: str = "400",
        trust_remote_user: bool = False,
    ) -> None:
        look, ambiguous, known_hosts, probe = _checks(
            websocket=choice("websocket", websocket, ("426", "pass")) == "426",
            paths=choice("paths", paths, ("refuse", "redirect", "pass")),
            bad_utf8=choice("bad_utf8", bad_utf8, ("400", "pass")) == "400",
            trust_remote_user=flag("trust_remote_user", trust_remote_user),
        )
        inner = direct(app)

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            # Noted before the app runs: it may clear its environ.
            method: str = environ["REQUEST_METHOD"]
            path: str = environ.get("PATH_INFO", "")
            try:
                if (
                    method not in _METHODS
                    or environ.get("HTTP_HOST") not in known_hosts
                    or probe in environ
                    or "CONTENT_LENGTH" in environ
                    or "HTTP_TRANSFER_ENCODING" in environ
                    or "HTTP_UPGRADE" in environ
                    or "REMOTE_USER" in environ
                    or "AUTH_TYPE" in environ
                    or not environ.get("wsgi.input_terminated")
                    or path[:1] != "/"
                    or environ.get("SCRIPT_NAME", "/")[-1:] == "/"
                    or "," in environ.get("HTTP_COOKIE", "")
                ):
                    other = look(environ)
                    if other is not None:
                        return other(environ, start_response)
                    path = environ["PATH_INFO"]  # repaired
                canonical_path(environ)
            except AmbiguousPathError as error:
                try:
                    other = ambiguous(environ, error)
                except BadRequestError as refused:
                    return _refuse(environ, start_response, refused)
                if other is not None:
                    return other(environ, start_response)
            except BadRequestError as error:
                return _refuse(environ, start_response, error)

            # What follows serves an answer that needs nothing: its headers are looked at and handed on, its body
            # is the app's own list. Whatever needs more makes an exchange, which takes over from there.
            exchange: _Exchange | None = None
            status: str | None = None
            kept: Headers = []
            length: int | None = None

            def start(new: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
                nonlocal status, kept, length
                if exchange is None and status is None and exc_info is None and method != "HEAD":
                    try:
                        found = None
                        if _statuses[new]:
                            raise KeyError
                        for name, value in headers:
                            if not (value.isprintable() and value.isascii()):
                                raise ValueError
                            if _names[name] is _LENGTH:
                                if found is not None or not value.isdigit() or len(value) > 18:
                                    raise ValueError
                                found = int(value)
                    except (LookupError, TypeError, ValueError, AttributeError):
                        return full().start(new, headers)
                    status, kept, length = new, headers[:], found
                    return write
                return full().start(new, headers, exc_info)

            def write(data: bytes, /) -> None:
                full().write(data)

            def full() -> _Exchange:
                nonlocal exchange
                if exchange is None:
                    exchange = _Exchange(environ, start_response, method, path, app)
                    if status is not None:
                        exchange.start(status, kept)
                return exchange

            try:
                body = inner(environ, start)
            except Exception:  # noqa: BLE001
                return full().crash()
            kind = type(body)
            fits = kind is list
            if fits:
                size = 0
                for block in body:
                    if type(block) is not bytes:
                        fits = False
                        break
                    size += len(block)
                else:
                    fits = length is None or size == length
            if fits and exchange is None and status is not None:
                start_response(status, kept)
                return body
            is_granian = environ.get("SERVER_SOFTWARE") == "Granian"
            wrapper = environ.get("wsgi.file_wrapper")
            whole = full()
            if whole.status:
                if kind is list or kind is tuple:  # all there, and without a close()
                    return whole.finish(list(body))
                if isinstance(wrapper, type) and isinstance(body, wrapper) and whole.takes_file():
                    return body
            late = _Body(body, whole)
            if is_granian:
                # It looks at the status when the app returns; every other server waits for the first block.
                late.prime()
            return late

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


# --- requests -----------------------------------------------------------------------------------

_Look = Callable[["WSGIEnvironment"], "WSGIApplication | None"]
_Ambiguous = Callable[["WSGIEnvironment", AmbiguousPathError], "WSGIApplication | None"]


def _checks(
    *, websocket: bool, paths: str, bad_utf8: bool, trust_remote_user: bool
) -> tuple[_Look, _Ambiguous, Set[str], str]:
    """Return what looks at an unusual request, what decides on an ambiguous path, good hosts, and a process variable.

    The two functions tell what answers instead of the app. No environ has the variable, where the
    server does not copy them all.
    """
    leaks = leaked_keys(os.environ)
    probe = next((key for key in ("PATH", "HOME", "PWD") if key in leaks), leaks[0] if leaks else "")
    hosts: set[str] = set()

    def look(environ: WSGIEnvironment) -> WSGIApplication | None:
        method = environ["REQUEST_METHOD"]
        if len(method) > 64 or not is_token(method):
            # Not echoed by anything: an app inside never sees it.
            raise BadRequestError("the method is malformed")
        host = environ.get("HTTP_HOST")
        if host is None:
            # RFC 9112 section 3.2: a request without Host is refused, but HTTP/1.0 had none.
            if environ.get("SERVER_PROTOCOL", "HTTP/1.1") not in ("HTTP/1.0", "HTTP/0.9"):
                raise BadRequestError("the request has no Host")
        elif host not in hosts:
            if parse_host(host) is None:
                raise BadRequestError("the Host is malformed")
            if len(hosts) < _MEMO_SIZE:
                hosts.add(host)
        if not trust_remote_user:
            environ.pop("REMOTE_USER", None)
            environ.pop("AUTH_TYPE", None)
        if probe in environ:
            remove_leaks(environ, leaks)
        cookie = environ.get("HTTP_COOKIE", "")
        if "," in cookie and (split := split_cookies(cookie)) != cookie:
            _rewrite(environ, "HTTP_COOKIE", split)
        frame_body(environ, _EMPTY)
        if websocket and "HTTP_UPGRADE" in environ and wants_websocket(environ):
            return _no_websocket
        if environ.get("PATH_INFO", "")[:1] != "/" or environ.get("SCRIPT_NAME", "/")[-1:] == "/":
            return repair_target(environ)
        return None

    def repair_target(environ: WSGIEnvironment) -> WSGIApplication | None:
        """Bring ``SCRIPT_NAME`` and ``PATH_INFO`` into the form that PEP 3333 gives them."""
        path = environ.setdefault("PATH_INFO", "")
        script_name = environ.setdefault("SCRIPT_NAME", "")
        environ.setdefault("QUERY_STRING", "")
        if path == "*" and environ["REQUEST_METHOD"] == "OPTIONS" and not script_name:
            return _asterisk
        absolute = strip_authority(path)
        if absolute is not None:
            # RFC 9112 section 3.2.2: the target's host replaces the field.
            _rewrite(environ, "HTTP_HOST", absolute[0])
            _rewrite(environ, "PATH_INFO", absolute[1] or "/")
        if script_name.endswith("/") and environ.get("PATH_INFO", "").startswith("/"):
            _rewrite(environ, "SCRIPT_NAME", script_name.rstrip("/"))
        if not environ.get("PATH_INFO") and not environ["SCRIPT_NAME"]:
            environ["PATH_INFO"] = "/"  # RFC 9110 section 4.2.3: an empty path is "/"
        return None

    def ambiguous(environ: WSGIEnvironment, error: AmbiguousPathError) -> WSGIApplication | None:
        """The policy for a path that can be read in two ways."""
        path: str = environ.get("PATH_INFO", "")
        if paths == "redirect" and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            target = normal_path(environ)
            if target is not None:
                return _redirect(target)
        if paths != "pass" or (path and not path.startswith("/")):
            raise error
        if bad_utf8:
            try:
                (environ.get("SCRIPT_NAME", "") + path).encode("latin-1").decode("utf-8")
            except UnicodeError:
                raise BadRequestError("the path is not UTF-8") from None
        return None

    return look, ambiguous, hosts, probe


def _rewrite(environ: WSGIEnvironment, key: str, value: str) -> None:
    """Set *key*, and keep what the server had there."""
    environ.setdefault(ORIGINAL, {}).setdefault(key, environ.get(key))
    environ[key] = value


def _refuse(environ: WSGIEnvironment, start_response: StartResponse, error: BadRequestError) -> list[bytes]:
    """Refuse a request, and log it: no layer inside will ever hear of it."""
    _log_request(logging.WARNING, environ, "refused", error.status, error.reason)
    return refuse(environ, start_response, error)


def _no_websocket(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    return _refuse(
        environ, start_response, BadRequestError("there are no websockets at this address", "426 Upgrade Required")
    )


def _asterisk(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """``OPTIONS *`` asks about the server, not about a resource (RFC 9110 section 9.3.7)."""
    _log_request(logging.INFO, environ, "answered", "204 No Content", "it asks about the server")
    return answer(environ, start_response, "204 No Content", b"", [("Allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS")])


def _redirect(target: str) -> WSGIApplication:
    def redirect(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        _log_request(logging.INFO, environ, "redirected", "308 Permanent Redirect", "the path is not the plain one")
        return answer(environ, start_response, "308 Permanent Redirect", b"", [("Location", target)])

    return redirect


def _log_request(level: int, environ: WSGIEnvironment, what: str, status: str, why: str) -> None:
    """Log what was answered here, in one line; ``%a`` escapes whatever a client may have put into it."""
    _LOGGER.log(
        level,
        "%a %a from %a was %s with %s: %s",
        environ["REQUEST_METHOD"][:64],
        (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))[:200],
        environ.get("REMOTE_ADDR", "")[:64],
        what,
        status,
        why,
    )


# --- answers ------------------------------------------------------------------------------------

#: Header names that were seen, in the app's spelling.
_names: dict[str, int] = {"Content-Length": _LENGTH, "content-length": _LENGTH}
#: Status lines that were seen, and whether their answers have no body.
_statuses: dict[str, bool] = {}


class _Exchange:
    """One answer, held back until its first block, so that it can still be repaired.

    Nothing goes out before the first block anyway (PEP 3333, "The start_response() Callable"); and a server's
    own ``start_response`` is called only once, because gunicorn adds the headers of a second call to the first's.
    """

    # Class attributes, not set for each request: most requests need none of them changed.
    #: What the app said; empty before it did.
    status = ""
    _headers: Headers = []  # noqa: RUF012  (never changed in place)
    _write: Callable[[bytes], object] | None = None
    length: int | None = None
    #: Bytes that may still go out, where the length is known.
    left = 0
    _was_cut = False
    bodiless = False
    #: Whether the server has the headers.
    forwarded = False
    #: Blocks for a server without ``write()``.
    buffer: list[bytes] | None = None
    #: Goes out instead of the app's body.
    page: bytes | None = None

    def __init__(
        self, environ: WSGIEnvironment, start_response: StartResponse, method: str, path: str, app: WSGIApplication
    ) -> None:
        self._app = app
        self._environ = environ
        self._start_response = start_response
        self._method = method
        self._path = path

    def start(self, status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
        """The ``start_response`` that the app gets."""
        if self.status and exc_info is None:
            raise AssertionError("start_response was called twice without exc_info")
        if self.forwarded:
            return self._start_response(status, headers, exc_info)  # raises exc_info where a block is out
        if self.page is not None:
            return self.write
        length = None
        bodiless = _statuses.get(status) if type(status) is str else None
        try:
            if bodiless is None:
                status, bodiless = self._unknown_status(status)
            for name, value in headers:
                kind = _names.get(name)
                if kind == _LENGTH and length is None and value.isdigit() and value.isascii() and len(value) < 19:
                    length = int(value)
                elif kind != _PLAIN or not (value.isprintable() and value.isascii()):
                    headers, length = self._unusual_headers(headers)
                    break
            if bodiless and length is not None:
                headers, length = _without_length(status, headers, length)
        except (BadAnswerError, AttributeError, TypeError, ValueError) as error:
            self.refuse_answer(fault_of_status(status) or f"is at fault: {error}")
            return self.write
        self.status = status
        self._headers = headers[:]
        if length is not None or self.length is not None:
            self.length = length
            self.left = length or 0
        self.bodiless = bodiless or self._method == "HEAD"
        return self.write

    def _unknown_status(self, status: object) -> tuple[str, bool]:
        clean = clean_status(status)
        bodiless = not has_body(clean)
        if len(_statuses) < _MEMO_SIZE and clean == status:
            _statuses[clean] = bodiless
        return clean, bodiless

    def _unusual_headers(self, headers: Headers) -> tuple[Headers, int | None]:
        kept, length, dropped = clean_headers(headers)
        for what in dropped:
            self._log("%s was dropped", what)
        for name, _ in kept:
            if name not in _names and len(_names) < _MEMO_SIZE:
                _names[name] = _LENGTH if name.lower() == "content-length" else _PLAIN
        return kept, length

    def _log(self, message: str, *parts: object, exc_info: bool = False) -> None:
        _LOGGER.error("%s %a: " + message, self._method[:64], self._path[:200], *parts, exc_info=exc_info)

    def replace(self, why: str, *, exc_info: bool = False) -> None:
        """Answer 500 instead of what the app said."""
        self._log("answered with 500: %s", why, exc_info=exc_info)
        request_id = REQUEST_ID.get(self._environ)
        page = "Internal Server Error\n" + (f"Request: {request_id}\n" if request_id else "")
        self.page = page.encode("latin-1", "replace")
        self.status = "500 Internal Server Error"
        self._headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(self.page))),
            ("Cache-Control", "no-store"),
        ]
        self.length = self.left = len(self.page)
        self.bodiless = self._method == "HEAD"
        self.buffer = None

    def refuse_answer(self, fault: str) -> None:
        """Answer 500, and say in the log which app did what, and what to write instead.

        Raises:
            BrokenAppError: A part of the answer is out: the server cuts the connection.
        """
        name = app_name(self._app, self._environ)
        if self.forwarded:
            raise BrokenAppError(name, fault)
        self.replace(f"{name} {fault}")

    def check(self, body: object, block: object) -> bool:
        """Tell whether a block can go out; where not, the app is named."""
        fault = fault_of_body(body, block)
        if fault is not None:
            self.refuse_answer(fault)
        return fault is None

    def crash(self) -> list[bytes]:
        """Answer for an app that raised; called while its exception is handled.

        Raises:
            Exception: The app's own, where a part of its answer is out: the server cuts the connection.
        """
        if self.forwarded:
            raise  # noqa: PLE0704
        self.replace("the app raised", exc_info=True)
        return self.send_page()

    def answers_itself(self) -> bool:
        """Tell whether no block of the app's body is sent: it has none, or a page stands for it."""
        return self.bodiless or self.page is not None

    def takes_file(self) -> bool:
        """Send the headers and tell whether the server may send the file that the app returned by itself."""
        if self.answers_itself() or self.buffer:
            return False
        if not self.forwarded:
            self.forward()
        return True

    def take_buffer(self) -> list[bytes]:
        """Return what went through ``write()`` and is not sent yet."""
        taken, self.buffer = self.buffer or [], None
        return taken

    def send_page(self) -> list[bytes]:
        """Send what stands for the app's body; nothing where it may have none."""
        self.forward()
        return [] if self.bodiless or self.page is None else [self.page]

    def forward(self) -> None:
        """Hand status and headers to the server."""
        self.forwarded = True
        self._write = self._start_response(self.status, self._headers)

    def write(self, data: bytes, /) -> None:
        """The ``write()`` that the app gets; a server without one gets the data as the body's first blocks."""
        if self.page is not None:
            return
        if not self.forwarded:
            self.forward()
        data = self.cut(data)
        if self._write is not None:
            self._write(data)
        elif data:
            self.buffer = [*(self.buffer or ()), data]

    def cut(self, block: bytes) -> bytes:
        """Return what of a block may go out."""
        if self.bodiless:
            return b""
        if self.length is None:
            return block
        if not self.left:
            if block and not self._was_cut:
                self._was_cut = True
                self._log("the body is longer than its Content-Length of %d and was cut", self.length)
            return b""
        left = self.left = self.left - len(block)
        if left >= 0:
            return block
        self._was_cut = True
        self._log("the body is longer than its Content-Length of %d and was cut", self.length)
        self.left = 0
        return block[:left]

    def finish(self, blocks: list[bytes]) -> list[bytes]:
        """Send an answer whose body is all there."""
        if self.page is not None:
            return self.send_page()
        if self.bodiless:
            if not self.forwarded:
                self.forward()
            return []
        for block in blocks:
            if type(block) is not bytes and not self.check(blocks, block):
                return self.send_page()
        if self.length is not None:
            total = sum(map(len, blocks))
            if total > self.left:
                blocks = [self.cut(block) for block in blocks]
            elif total < self.left:
                self._short(total)
        if not self.forwarded:
            self.forward()
        return blocks if self.buffer is None else [*self.buffer, *blocks]

    def _short(self, total: int) -> None:
        """Repair a length that is too long, or cut the connection: a client would wait for the rest."""
        self._log("the body has %d bytes less than its Content-Length of %d", self.left - total, self.length)
        if self.forwarded:
            raise IncompleteBodyError(f"the body is shorter than its Content-Length of {self.length}")
        self.length = self.left = total
        self._headers = [
            (name, str(total) if name.lower() == "content-length" else value) for name, value in self._headers
        ]

    def end(self) -> None:
        """Look at the end of a streamed body.

        Raises:
            IncompleteBodyError: Bytes are missing that the client waits for.
        """
        if self.left > 0 and not self.answers_itself():
            self._short(0)


def _without_length(status: str, headers: Headers, length: int) -> tuple[Headers, int | None]:
    """Drop a Content-Length that the status forbids (RFC 9110 section 8.6), or that says a 304's content is empty."""
    if status.startswith("304") and length:
        return headers, None
    return [item for item in headers if item[0].lower() != "content-length"], None


class _Body:
    """A streamed body, looked at block by block."""

    __slots__ = ("_blocks", "_body", "_exchange", "_primed")

    def __init__(self, body: Iterable[bytes], exchange: _Exchange) -> None:
        self._body: Iterable[bytes] | None = body
        self._exchange = exchange
        self._blocks = _stream(body, exchange)
        self._primed: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        if self._primed:
            from itertools import chain

            return chain(self._primed, self._blocks)
        return self._blocks

    def prime(self) -> None:
        """Ask the app until it has called ``start_response``, and hand that on."""
        exchange = self._exchange
        if exchange.status and not exchange.answers_itself():
            if not exchange.forwarded:
                exchange.forward()
            return
        for block in self._blocks:
            self._primed.append(block)
            if exchange.forwarded:
                break

    def close(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            close(body)


def _stream(body: Iterable[bytes], exchange: _Exchange) -> Iterator[bytes]:
    """Yield what may go out of a body; the headers go before the first block."""
    if not exchange.answers_itself():
        try:
            if type(body) in _NO_BODIES and not exchange.check(body, b""):
                body = ()
            for block in body:
                if type(block) is not bytes and not exchange.check(body, block):
                    break
                if not exchange.forwarded:
                    if not exchange.status:
                        if not block:
                            yield block
                            continue
                        exchange.replace("the app sent a block before it called start_response")
                    if exchange.answers_itself():
                        break
                    exchange.forward()
                elif exchange.bodiless:  # the headers went with a write()
                    break
                if exchange.buffer:
                    yield from exchange.take_buffer()
                yield block if exchange.length is None else exchange.cut(block)
            else:
                if not exchange.status:
                    exchange.replace("the app never called start_response")
                exchange.end()
        except Exception:
            if exchange.forwarded:
                raise
            exchange.replace("the body raised before its first block", exc_info=True)
    if not exchange.forwarded:
        yield from exchange.send_page()
    if exchange.buffer:
        yield from exchange.take_buffer()
