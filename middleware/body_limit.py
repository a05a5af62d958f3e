"""Bound what a client may upload: refuse a body that is too large, cut short, or too slow.

Replaces ``wsgi.input``; the server's own stays in ``lamella.body_limit.original``.

.. code-block:: toml

    [[layer]]
    use      = "body_limit"
    limit    = "1 MiB"
    policies = [{ paths = ["/upload/*"], limit = "1 GiB" }]

Place it outside every layer that reads a body, such as ``csrf`` and ``login``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lamella.stack.kernel.body import BodyReader, body_length
from lamella.stack.kernel.environ import direct
from lamella.stack.kernel.errors import BadRequestError, ConfigError
from lamella.stack.kernel.options import Duration, Size, duration, size
from lamella.stack.kernel.order import Inside, Outside
from lamella.stack.kernel.paths import canonical_path
from lamella.stack.kernel.patterns import read_policies
from lamella.stack.kernel.response import close, refuse, substitute

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from lamella.stack.kernel.response import ExcInfo, Headers

__all__ = ["BodyLimitMiddleware", "BrokenBodyError"]

#: Holds what was replaced: environ key to the server's value.
ORIGINAL = "lamella.body_limit.original"
# How much is asked for at once where the speed is watched: a read that waits cannot be interrupted.
_PIECE = 16 * 1024


class BrokenBodyError(BadRequestError):
    """What an app gets from ``wsgi.input`` where the body is too large, cut short or too slow.

    It need not catch it: the client gets the right answer, whatever the app makes of it.
    """


class BodyLimitMiddleware:
    """Limit request bodies.

    A body whose ``Content-Length`` is too large is a 413 before anything of it is read; one without a length (chunked)
    when the byte past the limit arrives. One that ends before its ``Content-Length`` is a 400, not a short file.

    Args:
        app: The application inside.
        limit: Most bytes of a request body, such as ``"10 MiB"``; ``0`` allows none.
        policies: Other limits for some paths: tables with ``paths`` (path patterns) and ``limit``. The most specific
            pattern counts.
        min_rate: Fewest bytes per second, such as ``"1 KiB"``, over the time that an app waits for them; slower
            is a 408. None: not looked at.
        grace: How long a client may be slow at the start.

    Raises:
        ConfigError: A size or duration is malformed, or a policy has no paths or no limit.
    """

    provides = ()
    requires = ()
    order = (
        Inside("edge", "L119", "a body is counted only after it is known where it ends"),
        *(
            Outside(layer, "L119", "it reads the body, which must be limited first")
            for layer in ("csrf", "login", "oidc")
        ),
    )
    streams = True

    def __init__(
        self,
        app: WSGIApplication,
        *,
        limit: Size,
        policies: Iterable[Mapping[str, Any]] = (),
        min_rate: Size | None = None,
        grace: Duration = "10s",
    ) -> None:
        usual = size("limit", limit)
        limits = read_policies("policies", policies, ("limit",), _policy_limit)
        rate = 0 if min_rate is None else size("min_rate", min_rate)
        patience = duration("grace", grace)
        inner = direct(app)

        def wsgi_closure(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if not (
                environ.get("CONTENT_LENGTH")
                or environ.get("HTTP_TRANSFER_ENCODING")
                or ("wsgi.input_terminated" in environ and _may_have_body(environ))
            ):
                return inner(environ, start_response)
            try:
                length = body_length(environ)
                most = usual
                if limits:
                    path = canonical_path(environ)
                    most = next((own for matches, own in limits if matches(path)), usual)
                if length is not None and length > most:
                    raise _too_large(most)
            except BadRequestError as error:
                return refuse(environ, start_response, error)
            stream = environ["wsgi.input"]
            body = _LimitedBody(stream, length, most, rate, patience)
            environ.setdefault(ORIGINAL, {"wsgi.input": stream})
            environ["wsgi.input"] = body
            return _guarded(inner, environ, start_response, body)

        self.wsgi_closure = wsgi_closure

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self.wsgi_closure(environ, start_response)


def _may_have_body(environ: WSGIEnvironment) -> bool:
    """Tell whether a request without length and coding may have a body: where the server ends it.

    In HTTP/1.1 it has none (RFC 9112 section 6.3), in HTTP/2 it may; and waitress hides the coding of what it decoded.
    """
    if not environ.get("wsgi.input_terminated"):
        return False
    return environ["REQUEST_METHOD"] not in ("GET", "HEAD") or environ.get("SERVER_PROTOCOL", "")[:7] != "HTTP/1."


def _policy_limit(policy: Mapping[str, Any]) -> int:
    if "limit" not in policy:
        raise ConfigError("policies", dict(policy), "a limit for the paths")
    return size("policies.limit", policy["limit"])


def _too_large(limit: int) -> BrokenBodyError:
    return BrokenBodyError(f"the request body is larger than {limit} bytes", "413 Content Too Large")


class _LimitedBody(BodyReader):
    """A request body that is counted, timed, and complete or an error."""

    __slots__ = ("_grace", "_limit", "_rate", "_received", "_waited", "error")

    def __init__(self, stream: Any, length: int | None, limit: int, rate: int, grace: float) -> None:
        super().__init__(stream, length)
        self._limit = limit
        self._rate = rate
        self._grace = grace
        self._received = 0
        self._waited = 0.0
        #: What went wrong.
        self.error: BrokenBodyError | None = None

    def _get(self, size: int, *, line: bool) -> bytes:
        if self.error is not None:
            raise self.error
        if line or self._left is None:
            return self._piece(min(size, _PIECE) if self._rate and not line else size, line=line)
        # A server's read() may give less than was asked for; an app that reads once must not take that for the end.
        wanted = min(size, self._left)
        pieces = []
        while wanted:
            piece = self._piece(min(wanted, _PIECE) if self._rate else wanted, line=False)
            pieces.append(piece)
            wanted -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _piece(self, size: int, *, line: bool) -> bytes:
        """Read once, and notice what that says of the client."""
        began = time.monotonic() if self._rate else 0.0
        try:
            data = super()._get(size, line=line)
        except BadRequestError:
            raise
        except Exception as error:
            # gevent and uWSGI raise OSError where the client has gone, gunicorn its own errors at a malformed chunk.
            raise self._fail(BrokenBodyError("the request body is malformed, or not all of it came")) from error
        if self._rate:
            self._waited += time.monotonic() - began
            if self._waited > self._grace and self._received < self._rate * self._waited:
                raise self._fail(BrokenBodyError("the request body comes too slowly", "408 Request Timeout"))
        return data

    def received(self, data: bytes, asked: int) -> bytes:
        if not data and self._left:
            raise self._fail(_cut())
        self._received += len(data)
        if self._received > self._limit:
            raise self._fail(_too_large(self._limit))
        return data

    def _fail(self, error: BrokenBodyError) -> BrokenBodyError:
        self.error = error
        return error


def _cut() -> BrokenBodyError:
    return BrokenBodyError("the request body is shorter than its Content-Length")


# --- answers ------------------------------------------------------------------------------------


def _guarded(
    app: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse, body: _LimitedBody
) -> Iterable[bytes]:
    """Call *app*; where it stumbled over *body*, the client gets the reason, not the app's error page."""
    # Noted before the app runs: it may clear its environ.
    request = {"REQUEST_METHOD": environ["REQUEST_METHOD"]}
    wrapper = environ.get("wsgi.file_wrapper")

    def refusal(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return refuse(request, start_response, body.error or _cut())

    def choose(status: str, headers: Headers) -> WSGIApplication | None:
        if body.error is None or status[:3] == body.error.status[:3]:
            return None
        return refusal

    exchange = _Started(start_response)
    try:
        answer = substitute(app, environ, exchange.start, choose)
    except Exception:
        if body.error is None:
            raise
        return refusal(request, exchange.restart(sys.exc_info()))
    if type(answer) is list or type(answer) is tuple or (isinstance(wrapper, type) and isinstance(answer, wrapper)):
        return answer
    return _GuardedAnswer(answer, exchange, body, refusal)


class _Started:
    """Remembers whether the server has a status already."""

    __slots__ = ("_start_response", "_started")

    def __init__(self, start_response: StartResponse) -> None:
        self._start_response = start_response
        self._started = False

    def start(self, status: str, headers: Headers, exc_info: ExcInfo = None, /) -> Callable[[bytes], object]:
        self._started = True
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

    def restart(self, exc_info: Any) -> StartResponse:
        """Return a ``start_response`` that replaces what the app said, or raises where a block is out."""
        if not self._started:
            return self._start_response
        return lambda status, headers, _=None, /: self._start_response(status, headers, exc_info)


class _GuardedAnswer:
    """The body of an app that reads the request while it answers."""

    __slots__ = ("_answer", "_body", "_exchange", "_iterator", "_refusal")

    def __init__(
        self, answer: Iterable[bytes], exchange: _Started, body: _LimitedBody, refusal: WSGIApplication
    ) -> None:
        self._answer: Iterable[bytes] | None = answer
        self._exchange = exchange
        self._body = body
        self._refusal = refusal
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> _GuardedAnswer:
        return self

    def __next__(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = iter(self._answer or ())
            return next(self._iterator)
        except StopIteration:
            raise
        except Exception:
            if self._body.error is None:
                raise
            # Raises the app's exception where a block is out: the server cuts the connection.
            self._iterator = iter(self._refusal({}, self._exchange.restart(sys.exc_info())))
            return next(self._iterator)

    def close(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            close(answer)
